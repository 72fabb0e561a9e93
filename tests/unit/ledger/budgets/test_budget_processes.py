"""Budgets under fire: worker processes on one PostgreSQL, watched from outside, and killed.

`SCRIMP_TEST_LONG=1` asks ten times as much of the last two; the first one is always whole.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Awaitable
from dataclasses import replace
from typing import TypeVar

import pytest

from tests.unit.ledger.budgets.forks import Forks, Job, Said, forks
from tests.unit.ledger.budgets.outside import Outside, outside
from tests.unit.ledger.conftest import Start
from tests.unit.ledger.scenario import counters, dollars, drift
from workers.ledger.verify import verify

LONG = 10 if os.environ.get("SCRIMP_TEST_LONG") else 1
SEED = int(os.environ.get("SCRIMP_TEST_SEED", "4"))
WORKERS = 16
R = TypeVar("R")
ROOM = 7_313
LIMITS: dict[str, str | int] = {
    "{}": str(240 * LONG),
    '{"tenant": "*"}': str(100 * LONG),
    '{"user": "*"}': 1_250 * LONG,
    '{"tenant": "*", "user": "*"}': 520 * LONG,
}
"""Each gets full while there is room in others."""

postgresql = pytest.mark.parametrize("url", ["postgresql"], indirect=True)


async def until_all_end(group: Forks, workers: int) -> dict[str, Said]:
    ended: dict[str, Said] = {}
    while len(ended) < workers:
        said = await group.said()
        if said.ended:
            ended[said.name] = said
    return ended


@postgresql
@pytest.mark.timeout(600)
async def test_sixteen_processes_are_granted_exactly_what_fits(url: str) -> None:
    """20,000 calls of equal size, none of whose counters exists yet, against room for 7,313."""
    limits: dict[str, str | int] = {"{}": str(ROOM)}
    async with outside(url) as books, forks() as group:
        deadlocks = await books.deadlocks()
        for i in range(WORKERS):
            group.fork(Job(url, f"w{i}", 20_000 // WORKERS, limits, size=100))
        ended = await until_all_end(group, WORKERS)
        assert sum(said.done for said in ended.values()) == 20_000
        assert sum(said.granted for said in ended.values()) == ROOM
        assert sum(said.refused[""] for said in ended.values()) == 20_000 - ROOM
        assert await books.states() == {"reserved": ROOM}
        assert await books.used() == {("{}", "usd"): ROOM * 10**10}
        assert await books.drift() == []
        assert await books.deadlocks() == deadlocks


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
async def test_three_processes_on_one_file_are_granted_exactly_what_fits(url: str) -> None:
    async with forks() as group:
        for i in range(3):
            group.fork(Job(url, f"w{i}", 640, {"{}": "730"}, size=100))
        ended = await until_all_end(group, 3)
    assert sum(said.granted for said in ended.values()) == 730
    assert await counters(url) == {("{}", "usd", "month"): (dollars("730"), 0)}
    assert await drift(url) == {}


async def watched(books: Outside, work: Awaitable[R]) -> R:
    """`work`; at any moment of it, no budget is passed and every counter says what its attempts say."""
    task = asyncio.ensure_future(work)
    try:
        looks = 0
        while not task.done():
            assert await books.over(LIMITS) == []
            assert await books.drift() == []
            looks += 1
            await asyncio.wait([task], timeout=0.05)
        assert looks > 1
        return await task
    finally:
        task.cancel()


@postgresql
@pytest.mark.timeout(600)
async def test_settlements_and_any_sizes_never_pass_a_budget(url: str) -> None:
    async with outside(url) as books, forks() as group:
        deadlocks = await books.deadlocks()
        for i in range(WORKERS):
            group.fork(Job(url, f"w{i}", 400 * LONG, LIMITS, settles=True))
        ended = await watched(books, until_all_end(group, WORKERS))
        refused = {named for said in ended.values() for named in said.refused}
        assert refused == {"", "tenant", "user", "tenant+user"}
        assert (await books.states()).keys() == {"reserved", "settled", "unconfirmed", "abandoned"}
        assert await books.wrong_requests() == []
        assert await books.deadlocks() == deadlocks


@postgresql
@pytest.mark.timeout(600)
async def test_killed_workers_never_pass_a_budget(url: str, start: Start) -> None:
    """Workers are killed at any moment and started again where a redelivery would: at the last batch they had told of."""
    rnd = random.Random(SEED)
    kills = 50 * LONG

    async def killing(group: Forks) -> int:
        jobs = {f"w{i}": Job(url, f"w{i}", 400 * LONG, LIMITS, settles=True, heartbeat_s=0.2, stale_s=1) for i in range(WORKERS)}
        alive: dict[str, int] = {}
        dead: set[int] = set()
        unfinished = set(jobs)
        for job in jobs.values():
            group.fork(job)
        while unfinished:
            said = await group.said()
            if said.pid in dead:
                continue
            alive[said.name] = said.pid
            jobs[said.name] = replace(jobs[said.name], start=said.done)
            if said.ended:
                unfinished.discard(said.name)
                del alive[said.name]
            elif len(dead) < kills and rnd.random() < 0.5:
                victim = rnd.choice(sorted(alive))
                os.kill(alive[victim], signal.SIGKILL)
                dead.add(alive.pop(victim))
                group.fork(jobs[victim])
        return len(dead)

    async with outside(url) as books, forks() as group:
        assert await watched(books, killing(group)) == kills
        states = await books.states()
        assert states["reserved"] > 0
        sweeper = await start("sweeper", stale_s=1)

        while "reserved" in await books.states():
            await sweeper.published(await sweeper.sweep())
        assert await books.over(LIMITS) == []
        assert await books.drift() == []
        assert (await books.states())["unconfirmed"] >= states["reserved"]
        assert await books.wrong_requests() == []
    assert (await verify(url, stale_s=1, grace_s=0, keep_days=7)).problems == []
