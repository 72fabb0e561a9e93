"""A process of its own that asks for one dollar many times and prints how often it was granted."""

from __future__ import annotations

import asyncio
import random
import sys

from tests.unit.ledger.scenario import ask, hold
from workers.ledger.ledger import Ledger
from workers.ledger.types import Granted


def main(url: str, name: str, times: str, limit: str) -> None:
    sys.stdout.write(f"{asyncio.run(_race(url, name, int(times), limit))}\n")


async def _race(url: str, name: str, times: int, limit: str) -> int:
    ledger = Ledger(url, heartbeat_s=5, stale_s=60, keep_days=7, pool_size=2, name=name)
    await ledger.start()
    granted, asked = 0, 0
    while asked < times:
        batch = min(random.randint(1, 8), times - asked)
        answers = await ledger.open([ask(f"{name}-{asked + i}", "1", 1, hold(limit)) for i in range(batch)])
        granted += sum(isinstance(answer, Granted) for answer in answers)
        asked += batch
    await ledger.close()
    return granted
