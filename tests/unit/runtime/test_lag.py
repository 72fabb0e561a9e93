"""The lag is what is not committed: what waits on the broker, and what was taken and is not done."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from workers.runtime import lag


@dataclass
class Fake:
    """A consumer of two partitions, and the intake behind it."""

    ends: dict[str, int] = field(default_factory=lambda: {"a": 10, "b": 7})
    positions: dict[str, int] = field(default_factory=lambda: {"a": 10, "b": 4})
    uncommitted: int = 2
    broken: Exception | None = None
    hangs: bool = False

    def assignment(self) -> Collection[Any]:
        return self.ends.keys()

    async def end_offsets(self, partitions: Collection[Any]) -> dict[Any, int]:
        if self.broken is not None:
            raise self.broken
        if self.hangs:
            await asyncio.sleep(3_600)
        return {p: self.ends[p] for p in partitions}

    async def position(self, partition: Any) -> int:
        return self.positions[partition]


@asynccontextmanager
async def watching(fake: Fake | None) -> AsyncIterator[asyncio.Queue[float]]:
    """What is told while it is watched."""
    told: asyncio.Queue[float] = asyncio.Queue()
    task = asyncio.create_task(lag.watch(lambda: fake, fake or Fake(), told.put_nowait, look_s=0.01))
    yield told
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_what_waits_and_what_is_under_way() -> None:
    fake = Fake()
    async with watching(fake) as told, asyncio.timeout(10):
        assert await told.get() == 3 + 2
        fake.positions["b"], fake.uncommitted = 7, 0
        while await told.get():
            pass


async def test_records_that_were_deleted_under_it_are_no_lag() -> None:
    assert await lag.left(Fake(positions={"a": 12, "b": 7})) == 0


async def test_without_partitions_there_is_none() -> None:
    assert await lag.left(Fake(ends={})) == 0


@pytest.mark.parametrize("fault", [Fake(broken=RuntimeError("closed")), Fake(hangs=True)], ids=["raises", "hangs"])
async def test_a_look_that_fails_tells_nothing_and_the_next_one_does(fault: Fake) -> None:
    async with watching(fault) as told, asyncio.timeout(10):
        await asyncio.sleep(0.1)
        assert told.empty()
        fault.broken, fault.hangs = None, False
        assert await told.get() == 5


async def test_no_consumer_tells_nothing() -> None:
    async with watching(None) as told:
        await asyncio.sleep(0.05)
        assert told.empty()
