"""`settle`: counters and rows move together, once, and late settlements make revisions."""

from __future__ import annotations

from decimal import Decimal

import pytest

from schemas import CostRecord, Usage
from tests.unit.ledger.conftest import Start
from tests.unit.ledger.scenario import ask, counters, dollars, drift, ending, execute, hold, settlement, silence
from workers.ledger.ledger import Ledger
from workers.ledger.types import Answered, Granted, Settled, Stored

ACME = '{"tenant": "acme"}'
BUDGETS = (hold("10"), hold(1000))


async def spent(url: str) -> tuple[tuple[int, int], tuple[int, int]]:
    """(reserved, spent) dollars and tokens."""
    found = await counters(url)
    assert await drift(url) == {}
    return found[ACME, "usd", "month"], found[ACME, "tokens", "month"]


async def test_the_rest_of_the_reservation_is_freed(ledger: Ledger, url: str) -> None:
    await ledger.open([ask("r", "1", 100, *BUDGETS)])
    assert await ledger.settle([settlement("r", cost="0.25", tokens=60)]) == [Settled("reserved", overrun=False)]
    assert await spent(url) == ((0, dollars("0.25")), (0, 60))


async def test_cut_off_is_booked_at_the_worst_case(ledger: Ledger, url: str) -> None:
    await ledger.open([ask("r", "1", 100, *BUDGETS)])
    cut = settlement("r", cost="0", tokens=0, state="unconfirmed", verdict="error", outcome="timeout", answer=None)
    assert await ledger.settle([cut]) == [Settled("reserved", overrun=False)]
    assert await spent(url) == ((0, dollars("1")), (0, 100))
    assert await ledger.settle([cut]) == [Settled("unconfirmed", overrun=False)]
    assert await spent(url) == ((0, dollars("1")), (0, 100))


async def test_what_was_unconfirmed_is_corrected(ledger: Ledger, url: str) -> None:
    await ledger.open([ask("r", "1", 100, *BUDGETS)])
    cut = settlement("r", state="unconfirmed", verdict="error", answer=None)
    (first, second, third) = await ledger.settle([cut, settlement("r", cost="0.25", tokens=60), cut])
    assert (first.before, second.before, third.before) == ("reserved", "unconfirmed", "settled")
    assert await spent(url) == ((0, dollars("0.25")), (0, 60))


async def test_never_sent_is_free(ledger: Ledger, url: str) -> None:
    await ledger.open([ask("r", "1", 100, *BUDGETS)])
    unsent = settlement("r", cost="0.5", tokens=50, state="abandoned", verdict="error", answer=None)
    assert await ledger.settle([unsent]) == [Settled("reserved", overrun=False)]
    assert await ledger.settle([settlement("r")]) == [Settled("abandoned", overrun=False)]
    assert await spent(url) == ((0, 0), (0, 0))


async def test_the_zombie_settles_what_others_wrote_off(start: Start, url: str) -> None:
    zombie, other = await start("zombie"), await start("other")
    await zombie.open([ask("r", "1", 100, *BUDGETS)])
    await silence(url, zombie)
    await other.open([ask("r", "1", 100, *BUDGETS)])
    assert await zombie.settle([settlement("r", 1, cost="0.3", tokens=30)]) == [Settled("unconfirmed", overrun=False)]
    assert await spent(url) == ((dollars("1"), dollars("0.3")), (100, 30))


async def test_an_accepted_zombie_answer_is_answered(start: Start, url: str) -> None:
    zombie, other = await start("zombie"), await start("other")
    await zombie.open([ask("r")])
    await silence(url, zombie)
    await other.open([ask("r")])
    await zombie.settle([settlement("r", 1)])
    await other.settle([settlement("r", 2, verdict="error", answer=None)])
    (answer,) = await other.open([ask("r", after=2)])
    assert isinstance(answer, Answered)


async def test_an_attempt_that_does_not_exist(ledger: Ledger) -> None:
    await ledger.open([ask("r")])
    assert await ledger.settle([settlement("r", 2), settlement("no such"), settlement("r", 1)]) == [
        Settled(None, overrun=False),
        Settled(None, overrun=False),
        Settled("reserved", overrun=False),
    ]


@pytest.mark.parametrize("cost", ["-0.01", "NaN", "Infinity"])
async def test_a_cost_that_is_none_is_refused(ledger: Ledger, url: str, cost: str) -> None:
    await ledger.open([ask("r", "1", 100, *BUDGETS)])
    with pytest.raises(ValueError, match="cost"):
        await ledger.settle([settlement("r", cost=cost)])
    assert await spent(url) == ((dollars("1"), 0), (100, 0))


async def test_usage_is_kept_by_kind(ledger: Ledger) -> None:
    usage = Usage(input_tokens=50, cached_input_tokens=20, cache_write_tokens=5, output_tokens=30, reasoning_tokens=10)
    await ledger.open([ask("r")])
    await ledger.settle([settlement("r", usage=usage)])
    (answer,) = await ledger.open([ask("r")])
    assert isinstance(answer, Answered)
    assert answer.attempts[0].usage == usage


class TestAfterTheEnding:
    async def ended(self, start: Start, url: str) -> tuple[Ledger, CostRecord]:
        """A request that ended while attempt 1 was unconfirmed; attempt 2 gave the answer."""
        zombie, other = await start("zombie"), await start("other")
        await zombie.open([ask("r", "0.004", 100, *BUDGETS)])
        await silence(url, zombie)
        assert isinstance((await other.open([ask("r", "0.002", 100, *BUDGETS)]))[0], Granted)
        await other.settle([settlement("r", 2, cost="0.001", tokens=40)])
        (stored,) = await other.end([ending("r")])
        assert isinstance(stored, Stored)
        return zombie, CostRecord.model_validate_json(stored.cost_record)

    async def test_a_settlement_raises_the_revision(self, start: Start, url: str) -> None:
        zombie, first = await self.ended(start, url)
        assert (first.revision, first.cost_usd, first.unconfirmed_usd) == (1, Decimal("0.001"), Decimal("0.004"))
        await zombie.settle([settlement("r", 1, cost="0.0030000004", tokens=30, estimated=True)])
        (revised,) = await zombie.sweep()
        record = CostRecord.model_validate_json(revised.cost_record)
        assert (revised.tenant, revised.request_id, revised.revision, record.revision) == ("acme", "r", 2, 2)
        assert (record.cost_usd, record.unconfirmed_usd, record.estimated) == (Decimal("0.004"), Decimal(0), True)
        assert [(a.n, a.state, a.cost_usd) for a in record.attempts] == [
            (1, "settled", Decimal("0.0030000004")),
            (2, "settled", Decimal("0.001")),
        ]
        assert record.baseline_usd - record.cost_usd == record.saved_usd.total
        assert (record.usage.input_tokens + record.usage.output_tokens, record.occurred_at) == (70, first.occurred_at)
        (row,) = await execute(url, "SELECT cost, unconfirmed, routing, cache, compression, batch, baseline, revision FROM request")
        assert (row.cost, row.unconfirmed, row.revision) == (dollars("0.004"), 0, 2)
        assert row.baseline - row.cost == row.routing + row.cache + row.compression + row.batch
        assert await drift(url) == {}

    async def test_the_response_stays_as_it_was(self, start: Start, url: str) -> None:
        zombie, _ = await self.ended(start, url)
        await zombie.settle([settlement("r", 1, cost="0.003")])
        (again,) = await zombie.end([ending("r", "another response")])
        assert isinstance(again, Stored)
        assert (again.response, again.first) == (b"response", False)

    async def test_a_repeat_makes_no_further_revision(self, start: Start, url: str) -> None:
        zombie, _ = await self.ended(start, url)
        await zombie.settle([settlement("r", 1, cost="0.003")] * 2)
        await zombie.settle([settlement("r", 1, cost="0.002")])
        assert [r.revision for r in await zombie.sweep()] == [2]

    async def test_to_be_cut_off_once_more_makes_no_revision(self, start: Start, url: str) -> None:
        zombie, _ = await self.ended(start, url)
        cut = settlement("r", 1, state="unconfirmed", verdict="error", outcome="timeout", answer=None)
        assert await zombie.settle([cut]) == [Settled("unconfirmed", overrun=False)]
        assert await zombie.sweep() == []

    async def test_its_answer_is_not_kept(self, start: Start, url: str) -> None:
        zombie, _ = await self.ended(start, url)
        await zombie.settle([settlement("r", 1)])
        assert [r.answer is None for r in await execute(url, "SELECT answer FROM attempt ORDER BY n")] == [True, False]

    async def test_a_live_owner_settles_after_the_ending(self, start: Start, url: str) -> None:
        owner, ender = await start("owner"), await start("ender")
        await owner.open([ask("r", "0.004", 100, *BUDGETS)])
        (stored,) = await ender.end([ending("r", reason="deadline_passed")])
        assert isinstance(stored, Stored)
        assert [a.state for a in CostRecord.model_validate_json(stored.cost_record).attempts] == ["reserved"]
        assert await owner.settle([settlement("r", 1, cost="0.003")]) == [Settled("reserved", overrun=False)]
        (revised,) = await ender.sweep()
        assert CostRecord.model_validate_json(revised.cost_record).cost_usd == Decimal("0.003")
