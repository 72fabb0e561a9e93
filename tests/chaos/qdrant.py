"""`python -m tests.chaos.qdrant PORT`: a Qdrant to be frozen and killed.

It speaks Qdrant's protocol over the client's own engine, in memory: after a kill its entries are gone, as those of a lost machine.
"""

from __future__ import annotations

import asyncio
import sys
import warnings

from tests.unit.cache.rest import qdrant_over_rest


async def main(port: int) -> None:
    warnings.simplefilter("ignore")  # the embedded engine says that it is no server
    async with qdrant_over_rest(port):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
