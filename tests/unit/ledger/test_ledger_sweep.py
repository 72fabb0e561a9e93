"""The sweep, what it publishes, and the purge."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from decimal import Decimal

import pytest
import sqlalchemy as sa

from schemas import CostRecord
from schemas.types import utc_now
from tests.unit.ledger.conftest import Start
from tests.unit.ledger.scenario import ask, counters, dollars, drift, ending, execute, hold, settlement, silence
from workers.ledger.ledger import Ledger
from workers.ledger.tables import request, worker
from workers.ledger.types import Answered, Ended, Held, Used

ACME = '{"tenant": "acme"}'


async def states(url: str) -> list[str]:
    return [row.state for row in await execute(url, "SELECT state FROM attempt ORDER BY request, n")]


async def test_a_stale_owner_is_written_off_though_nobody_asks(start: Start, url: str) -> None:
    owner, sweeper = await start("owner"), await start("sweeper")
    await owner.open([ask("r", "1", 10, hold("5")), ask("s", "2", 10, hold("5"))])
    assert await sweeper.sweep() == []
    assert await states(url) == ["reserved", "reserved"]
    await silence(url, owner)
    assert await sweeper.sweep() == []
    assert await states(url) == ["unconfirmed", "unconfirmed"]
    assert await counters(url) == {(ACME, "usd", "month"): (0, dollars("3"))}


async def test_an_expired_attempt_of_a_living_owner_is_written_off(ledger: Ledger, url: str) -> None:
    await ledger.open([ask("r", ttl_s=0), ask("s")])
    await ledger.sweep()
    assert sorted(await states(url)) == ["reserved", "unconfirmed"]


async def test_the_owner_without_a_row_is_stale(start: Start, url: str) -> None:
    owner, sweeper = await start("owner"), await start("sweeper")
    await owner.open([ask("r")])
    await execute(url, sa.delete(worker).where(worker.c.id == owner.owner))
    await sweeper.sweep()
    assert await states(url) == ["unconfirmed"]


async def test_an_ended_request_gets_a_revision(start: Start, url: str) -> None:
    owner, sweeper = await start("owner"), await start("sweeper")
    await owner.open([ask("r", "0.004", 10, hold("5"))])
    await sweeper.end([ending("r", reason="deadline_passed")])
    await silence(url, owner)
    (revised,) = await sweeper.sweep()
    record = CostRecord.model_validate_json(revised.cost_record)
    assert (revised.revision, record.unconfirmed_usd, record.attempts[0].state) == (2, Decimal("0.004"), "unconfirmed")
    assert await drift(url) == {}


async def test_a_revision_is_published_until_it_is_noted(start: Start, url: str) -> None:
    owner, sweeper = await start("owner"), await start("sweeper")
    await owner.open([ask("r", "0.004", 10, hold("5")), ask("other", "0.004", 10, hold("5"))])
    await sweeper.end([ending("r"), ending("other")])
    await silence(url, owner)
    second = await sweeper.sweep()
    assert await sweeper.sweep() == second
    await owner.settle([settlement("r", cost="0.003")])  # a third revision, while the second is on its way
    await sweeper.published(second)
    (third,) = await sweeper.sweep()
    assert (third.request_id, third.revision) == ("r", 3)
    await sweeper.published([third])
    await sweeper.published(second)  # a slower sweeper
    assert await sweeper.sweep() == []


async def test_sweepers_meet(start: Start, url: str) -> None:
    owner, *sweepers = [await start(f"w{i}") for i in range(5)]
    await owner.open([ask(f"r{i}", "1", 10, hold("100")) for i in range(40)])
    await silence(url, owner)
    await asyncio.gather(*(w.sweep() for w in sweepers))
    assert set(await states(url)) == {"unconfirmed"}
    assert await drift(url) == {}


@pytest.fixture
def chunk(monkeypatch: pytest.MonkeyPatch) -> int:
    for module in ("sweep", "ledger"):
        monkeypatch.setattr(f"workers.ledger.{module}.CHUNK", 10)
    return 10


async def test_more_than_one_chunk(start: Start, url: str, chunk: int) -> None:
    owner, sweeper = await start("owner"), await start("sweeper")
    await owner.open([ask(f"r{i}", "1", 10, hold("100")) for i in range(2 * chunk + 5)])
    await silence(url, owner)
    await sweeper.sweep()
    assert set(await states(url)) == {"unconfirmed"}
    assert await drift(url) == {}


class TestPurge:
    async def age(self, url: str, **days: float) -> None:
        moved = {name: utc_now() - timedelta(days=number) for name, number in days.items()}
        await execute(url, sa.update(request).values(**moved))

    async def test_old_answers_go_and_the_row_stays(self, ledger: Ledger, url: str) -> None:
        await ledger.open([ask("r")])
        await ledger.settle([settlement("r")])
        await ledger.end([ending("r")])
        await self.age(url, ended_at=8)
        assert await ledger.purge() == 1
        (row,) = await execute(url, "SELECT body_hash, response, status FROM request")
        assert tuple(row) == ("body", None, "answered")
        assert [r.answer for r in await execute(url, "SELECT answer FROM attempt")] == [None]
        assert await ledger.end([ending("r")]) == [Used()]
        assert await ledger.open([ask("r")]) == [Ended()]
        assert await ledger.purge() == 0

    async def test_young_answers_stay(self, ledger: Ledger, url: str) -> None:
        await ledger.open([ask("ended"), ask("under way")])
        await ledger.settle([settlement("ended"), settlement("under way")])
        await ledger.end([ending("ended")])
        await self.age(url, created_at=6)
        assert await ledger.purge() == 0
        assert isinstance((await ledger.open([ask("under way")]))[0], Answered)

    async def test_the_answer_of_a_request_that_never_ended_goes_too(self, ledger: Ledger, url: str) -> None:
        await ledger.open([ask("r")])
        await ledger.settle([settlement("r")])
        await self.age(url, created_at=8)
        assert await ledger.purge() == 1
        assert [r.answer for r in await execute(url, "SELECT answer FROM attempt")] == [None]

    async def test_in_chunks(self, ledger: Ledger, url: str, chunk: int) -> None:
        await ledger.end([ending(f"r{i}") for i in range(chunk + 5)])
        await self.age(url, ended_at=8)
        assert await ledger.purge() == chunk + 5

    async def test_workers_long_gone_are_forgotten(self, start: Start, url: str) -> None:
        gone, here = await start("gone"), await start("here")
        await gone.open([ask("r")])
        await silence(url, gone)
        await execute(url, sa.update(worker).where(worker.c.id == gone.owner).values(beat=utc_now() - timedelta(days=2)))
        await here.purge()
        assert [row.id for row in await execute(url, "SELECT id FROM worker")] == [here.owner]
        assert not isinstance((await here.open([ask("r")]))[0], Held)
