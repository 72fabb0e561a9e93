"""`python -P joining.py GATE run call`: the worker as it is, except that it joins its group only once the file GATE exists.

Starting takes seconds, so that without a gate nobody knows whether it joins while the others are busy.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

from workers.cli.main import main
from workers.runtime.fleet import Fleet


def wait(gate: Path) -> None:
    gate.with_suffix(".waiting").touch()
    while not gate.exists():
        time.sleep(0.02)


def wrap(gate: Path) -> None:
    start = Fleet.start

    async def start_when_open(self: Fleet) -> None:
        await asyncio.to_thread(wait, gate)
        await start(self)

    Fleet.start = start_when_open  # type: ignore[method-assign]


if __name__ == "__main__":
    wrap(Path(sys.argv.pop(1)))
    main()
