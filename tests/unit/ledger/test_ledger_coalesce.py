"""Concurrent calls meet in batches."""

from __future__ import annotations

import asyncio

import pytest

from workers.ledger.coalesce import Coalescer
from workers.outcomes import Unavailable


class Batches:
    """Doubles numbers; fails on what is told to fail."""

    def __init__(self, bad: dict[int, Exception] | None = None) -> None:
        self.seen: list[list[int]] = []
        self.bad = bad or {}
        self.started = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, items: list[int]) -> list[int]:
        self.seen.append(items)
        self.started.set()
        await self.gate.wait()
        for item in items:
            if item in self.bad:
                raise self.bad[item]
        return [2 * item for item in items]


async def test_concurrent_calls_are_one_batch() -> None:
    batches = Batches()
    double = Coalescer(batches)
    assert await asyncio.gather(*map(double, range(5))) == [0, 2, 4, 6, 8]
    assert batches.seen == [[0, 1, 2, 3, 4]]


async def test_a_lone_call_does_not_wait_for_company() -> None:
    batches = Batches()
    calling = asyncio.create_task(Coalescer(batches)(3))
    for _ in range(5):  # turns of the event loop, in which no time passes
        await asyncio.sleep(0)
    assert batches.seen == [[3]]
    assert await calling == 6


async def test_a_full_batch_goes_at_once() -> None:
    batches = Batches()
    double = Coalescer(batches, size=2)
    assert await asyncio.gather(*map(double, range(4))) == [0, 2, 4, 6]
    assert batches.seen == [[0, 1], [2, 3]]


async def test_what_comes_while_batches_run_makes_the_next_one() -> None:
    batches = Batches()
    batches.gate.clear()
    double = Coalescer(batches, size=4, parallel=1)
    calls = []
    for i in range(10):
        calls.append(asyncio.create_task(double(i)))
        await asyncio.sleep(0.002)
    assert batches.seen == [[0]]
    batches.gate.set()
    assert await asyncio.gather(*calls) == [2 * i for i in range(10)]
    assert batches.seen == [[0], [1, 2, 3, 4], [5, 6, 7, 8], [9]]


async def test_unavailable_goes_to_every_caller_and_is_not_tried_again() -> None:
    batches = Batches({1: Unavailable("ledger", "connection lost")})
    double = Coalescer(batches)
    results = await asyncio.gather(*map(double, range(3)), return_exceptions=True)
    assert [str(r) for r in results] == ["ledger: connection lost"] * 3
    assert len(batches.seen) == 1


async def test_a_bad_item_fails_alone() -> None:
    double = Coalescer(Batches({1: ValueError("not this one")}))
    results = await asyncio.gather(*map(double, range(3)), return_exceptions=True)
    assert (results[0], results[2]) == (0, 4)
    with pytest.raises(ValueError, match="not this one"):
        raise results[1]  # type: ignore[misc]


async def test_a_cancelled_caller_leaves_its_batch_alone() -> None:
    batches = Batches()
    batches.gate.clear()
    double = Coalescer(batches)
    calls = [asyncio.create_task(double(i)) for i in range(3)]
    await batches.started.wait()
    calls[1].cancel()
    await asyncio.wait([calls[1]])
    batches.gate.set()
    assert (await calls[0], await calls[2]) == (0, 4)
    assert calls[1].cancelled()


async def test_a_caller_cancelled_while_waiting_changes_nothing_for_others() -> None:
    double = Coalescer(Batches())
    calls = [asyncio.create_task(double(i)) for i in range(3)]
    await asyncio.sleep(0)
    calls[0].cancel()
    assert await asyncio.gather(calls[1], calls[2]) == [2, 4]


async def test_a_batch_of_the_wrong_length_is_a_bug_not_a_hang() -> None:
    async def short(items: list[int]) -> list[int]:
        return items[1:]

    with pytest.raises(RuntimeError, match="gave 0 results"):
        await Coalescer(short)(1)


async def test_drain_returns_when_all_is_answered() -> None:
    batches = Batches()
    double = Coalescer(batches, size=2, parallel=1)
    calls = [asyncio.create_task(double(i)) for i in range(5)]
    await asyncio.sleep(0)
    await double.drain()
    assert [call.done() or await call is not None for call in calls] == [True] * 5
    await double.drain()
