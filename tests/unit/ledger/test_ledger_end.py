"""`end`: the first ending of a body wins, its bytes come back on every repeat."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from decimal import Decimal

import pytest

from schemas import UNCLAIMED, CostRecord
from schemas.types import utc_now
from tests.unit.ledger.conftest import Start
from tests.unit.ledger.scenario import ask, counters, dollars, drift, ending, execute, facts, hold, settlement, silence, state
from workers.ledger.ledger import Ledger
from workers.ledger.types import Books, Conflict, Ended, Ending, Granted, Statement, Stored, Used


async def test_an_ending_claims_the_id_of_a_request_that_never_opened(ledger: Ledger, url: str) -> None:
    (stored,) = await ledger.end([ending("r")])
    assert isinstance(stored, Stored)
    assert (stored.response, stored.first) == (b"response", True)
    assert await ledger.open([ask("r")]) == [Ended()]
    (row,) = await execute(url, "SELECT * FROM request")
    assert (row.status, row.feature, row.lane, row.purpose, row.revision, row.published_revision) == (
        *("answered", "support", "interactive", "request"),
        *(1, 1),
    )
    assert (row.baseline, row.routing, row.cache, row.compression) == tuple(map(dollars, ("0.01", "0.009", "0.002", "-0.001")))


async def test_the_first_ending_wins(ledger: Ledger) -> None:
    (first,) = await ledger.end([ending("r", "one")])
    (second,) = await ledger.end([ending("r", "two", reason="provider_error")])
    assert isinstance(first, Stored)
    assert second == Stored(first.response, first.cost_record, first=False)


async def test_the_first_of_a_batch_wins(ledger: Ledger) -> None:
    answers = await ledger.end([ending("r", "one"), ending("s", "s"), ending("r", "two"), ending("r", "three", body="other")])
    assert [(a.response, a.first) for a in answers if isinstance(a, Stored)] == [(b"one", True), (b"s", True), (b"one", False)]
    assert answers[3] == Conflict()


async def test_another_body_leaves_the_row_alone(ledger: Ledger, url: str) -> None:
    await ledger.open([ask("r", body="one")])
    assert await ledger.end([ending("r", body="two")]) == [Conflict()]
    assert [r.status for r in await execute(url, "SELECT status FROM request")] == [None]
    (stored,) = await ledger.end([ending("r", body="one")])
    assert isinstance(stored, Stored)
    assert stored.first
    assert await ledger.end([ending("r", body="two")]) == [Conflict()]


async def test_the_bytes_are_kept_as_they_are(ledger: Ledger) -> None:
    raw = bytes(range(256))

    def raw_statement(books: Books) -> Statement:
        made = state(facts(), books, "")
        return Statement(raw, b'{"z": 1, "a":  2}', made.cost, made.unconfirmed, made.baseline, made.saved)

    answers = [await ledger.end([Ending(facts(), "answered", None, "light", "mini", "model", raw_statement)]) for _ in range(2)]
    assert [(a.response, a.cost_record) for (a,) in answers if isinstance(a, Stored)] == [(raw, b'{"z": 1, "a":  2}')] * 2


async def test_it_is_priced_from_the_books(ledger: Ledger) -> None:
    await ledger.open([ask("r")])
    await ledger.settle([settlement("r", 1, cost="0.001", verdict="escalate")])
    await ledger.open([ask("r", after=1)])
    await ledger.settle([settlement("r", 2, cost="0.002")])
    (stored,) = await ledger.end([ending("r")])
    assert isinstance(stored, Stored)
    record = CostRecord.model_validate_json(stored.cost_record)
    assert ([a.n for a in record.attempts], record.cost_usd, record.revision) == ([1, 2], Decimal("0.003"), 1)
    assert abs(record.occurred_at - utc_now()) < timedelta(minutes=5)


async def test_a_stale_owner_is_written_off_in_the_same_transaction(start: Start, url: str) -> None:
    owner, ender = await start("owner"), await start("ender")
    await owner.open([ask("r", "1", 100, hold("5"))])
    await silence(url, owner)
    (stored,) = await ender.end([ending("r", reason="deadline_passed")])
    assert isinstance(stored, Stored)
    record = CostRecord.model_validate_json(stored.cost_record)
    assert ([a.state for a in record.attempts], record.unconfirmed_usd) == (["unconfirmed"], Decimal(1))
    assert await counters(url) == {('{"tenant": "acme"}', "usd", "month"): (0, dollars("1"))}
    assert await ender.sweep() == []


async def test_the_attempt_of_a_live_owner_is_left_to_it(start: Start, url: str) -> None:
    owner, ender = await start("owner"), await start("ender")
    await owner.open([ask("r", "1", 100, hold("5"))])
    await ender.end([ending("r", reason="deadline_passed")])
    assert await counters(url) == {('{"tenant": "acme"}', "usd", "month"): (dollars("1"), 0)}
    assert await drift(url) == {}


async def test_a_purged_id_is_used(ledger: Ledger, url: str) -> None:
    await ledger.end([ending("r")])
    await execute(url, "UPDATE request SET response = NULL")
    assert await ledger.end([ending("r")]) == [Used()]
    assert await ledger.end([ending("r", body="other")]) == [Conflict()]


@pytest.mark.parametrize("reason", sorted(UNCLAIMED))
async def test_an_ending_that_claims_no_id_never_reaches_the_table(ledger: Ledger, url: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        await ledger.end([ending("fine"), ending("r", reason=reason)])
    assert await execute(url, "SELECT 1 FROM request") == []


async def test_a_statement_that_fails_undoes_the_batch(ledger: Ledger, url: str) -> None:
    def broken(books: Books) -> Statement:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await ledger.end([ending("fine"), Ending(facts("r"), "answered", None, None, None, None, broken)])
    assert await execute(url, "SELECT 1 FROM request") == []
    (stored,) = await ledger.end([ending("fine")])
    assert isinstance(stored, Stored)
    assert stored.first


async def test_many_enders_store_one_ending(start: Start) -> None:
    workers = [await start(f"w{i}") for i in range(4)]
    answers = await asyncio.gather(*(w.end([ending("r", f"{i}-{j}")]) for i, w in enumerate(workers) for j in range(3)))
    stored = [a for (a,) in answers if isinstance(a, Stored)]
    assert len(stored) == 12
    assert len({a.response for a in stored}) == 1
    assert sum(a.first for a in stored) == 1


async def test_an_opened_request_is_not_ended_by_an_escalation(ledger: Ledger) -> None:
    await ledger.open([ask("r")])
    await ledger.settle([settlement("r", verdict="escalate")])
    assert isinstance((await ledger.open([ask("r", after=1)]))[0], Granted)
