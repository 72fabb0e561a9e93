"""Budgets: what calls really cost is counted once, whatever is repeated, cut off or late."""

from __future__ import annotations

from decimal import Decimal

import pytest

from tests.unit.ledger.conftest import Start
from tests.unit.ledger.scenario import ask, counters, dollars, drift, ending, execute, hold, settlement, silence
from workers.ledger.ledger import Ledger
from workers.ledger.types import Granted, Refused, Settled

ACME = '{"tenant": "acme"}'
BUDGETS = (hold("10"), hold(1000))


async def spent(url: str) -> tuple[tuple[int, int], tuple[int, int]]:
    """(reserved, spent) dollars and tokens."""
    found = await counters(url)
    assert await drift(url) == {}
    return found[ACME, "usd", "month"], found[ACME, "tokens", "month"]


async def test_redelivery_settles_once(start: Start, url: str) -> None:
    """The row and its counters share one transaction and one rule against repeats, also from another worker and with other figures."""
    first, second = await start("first"), await start("second")
    await first.open([ask("r", "1", 100, *BUDGETS)])
    await first.settle([settlement("r", cost="0.25", tokens=60)])
    for ledger in (first, second):
        assert await ledger.settle([settlement("r", cost="0.75", tokens=90)]) == [Settled("settled", overrun=False)]
    assert await spent(url) == ((0, dollars("0.25")), (0, 60))


async def test_duplicate_in_one_batch(ledger: Ledger, url: str) -> None:
    await ledger.open([ask("r", "1", 100, *BUDGETS)])
    answers = await ledger.settle([settlement("r", cost="2", tokens=60)] * 3)
    assert answers == [Settled("reserved", overrun=True), Settled("settled", overrun=False), Settled("settled", overrun=False)]
    assert await spent(url) == ((0, dollars("2")), (0, 60))


async def test_cleanup_failure_does_not_double(start: Start, url: str) -> None:
    """Previous + reserved + actual: a lost owner is written off by many at once, then settles after all, twice."""
    owner, *others = [await start(f"w{i}") for i in range(4)]
    await owner.open([ask("before", "1", 100, *BUDGETS), ask("r", "1", 100, *BUDGETS)])
    await owner.settle([settlement("before", cost="0.5", tokens=50)])
    await silence(url, owner)
    for other in others:
        await other.sweep()
        assert await spent(url) == ((0, dollars("1.5")), (0, 150))
    for _ in range(2):
        await owner.settle([settlement("r", cost="0.25", tokens=20)])
        assert await spent(url) == ((0, dollars("0.75")), (0, 70))


@pytest.mark.parametrize(("state", "counted"), [("unconfirmed", 1), ("abandoned", 0)])
async def test_cancel_and_timeout_release_or_unconfirm(ledger: Ledger, url: str, state: str, counted: int) -> None:
    """reserved is the sum of the open attempts at every moment: what was cut off counts at its worst case, what was not sent at nothing,
    and no phantom stays to refuse others."""
    full = (hold("1"), hold(1000))
    await ledger.open([ask("r", "1", 100, *full)])
    assert await spent(url) == ((dollars("1"), 0), (100, 0))
    await ledger.settle([settlement("r", cost="0", tokens=0, state=state, verdict="error", outcome="timeout", answer=None)])
    assert await spent(url) == ((0, counted * dollars("1")), (0, counted * 100))
    (answer,) = await ledger.open([ask("s", "1", 100, *full)])
    assert isinstance(answer, Refused if counted else Granted)


class TestOverrun:
    @pytest.mark.parametrize(("cost", "tokens"), [("1.01", 100), ("1", 101)])
    async def test_more_than_the_reservation_lands(self, ledger: Ledger, url: str, cost: str, tokens: int) -> None:
        await ledger.open([ask("r", "1", 100, *BUDGETS)])
        assert await ledger.settle([settlement("r", cost=cost, tokens=tokens)]) == [Settled("reserved", overrun=True)]
        assert await spent(url) == ((0, dollars(cost)), (0, tokens))

    async def test_settle_above_reservation_is_booked(self, ledger: Ledger, url: str) -> None:
        """Reserved 0.1 of 1, came to 1.5: all of it is counted, and nothing is granted any more, not even what costs nothing."""
        await ledger.open([ask("a", "0.1", 10, hold("1")), ask("b", "0.1", 10, hold("1"))])
        (settled,) = await ledger.settle([settlement("a", cost="1.5")])
        assert settled.overrun
        assert await counters(url) == {(ACME, "usd", "month"): (dollars("0.1"), dollars("1.5"))}
        (answer,) = await ledger.open([ask("c", "0", 0, hold("1"))])
        assert isinstance(answer, Refused)
        assert answer.used == Decimal("1.6")
        (lands,) = await ledger.settle([settlement("b", cost="0.05", tokens=5)])
        assert lands == Settled("reserved", overrun=False)
        rows = await execute(url, "SELECT count(*) AS overruns FROM attempt WHERE cost > reserved_usd OR used_tokens > reserved_tokens")
        assert [row.overruns for row in rows] == [1]

    async def test_a_zombie_may_overrun_too(self, start: Start, url: str) -> None:
        zombie, other = await start("zombie"), await start("other")
        await zombie.open([ask("r", "1", 100, *BUDGETS)])
        await silence(url, zombie)
        await other.sweep()
        assert await zombie.settle([settlement("r", cost="3", tokens=60)]) == [Settled("unconfirmed", overrun=True)]
        assert await spent(url) == ((0, dollars("3")), (0, 60))


async def test_silent_drop(ledger: Ledger, url: str) -> None:
    """A settlement without an answer, or with nothing in it, is booked like any other; one for no row says so to its caller."""
    await ledger.open([ask("r", "1", 100, *BUDGETS), ask("s", "1", 100, *BUDGETS)])
    nothing = [settlement(i, cost="0", tokens=0, verdict="error", outcome="server_error", answer=None) for i in ("r", "s", "t")]
    assert [s.before for s in await ledger.settle(nothing)] == ["reserved", "reserved", None]
    assert await spent(url) == ((0, 0), (0, 0))
    await ledger.end([ending("r"), ending("s", reason="provider_error")])
    rows = await execute(url, "SELECT a.state FROM attempt a JOIN request r ON r.id = a.request WHERE r.status IS NOT NULL")
    assert [row.state for row in rows] == ["settled", "settled"]
