"""A ledger of its own for a benchmark, on PostgreSQL; dropped afterwards, also when the benchmark fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager

from tests.servers import postgres
from workers.ledger.migrate import upgrade


@asynccontextmanager
async def fresh_ledger() -> AsyncIterator[str]:
    """Its URL. The server's own calls run an event loop each, so they run in a thread, the last one too."""
    async with AsyncExitStack() as on_exit:
        database = ExitStack()
        on_exit.push_async_callback(asyncio.to_thread, database.close)
        url = await asyncio.to_thread(database.enter_context, postgres.database())
        await upgrade(url)
        yield url
