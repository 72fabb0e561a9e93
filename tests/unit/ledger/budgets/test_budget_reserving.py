"""Budgets: what is granted. The failures that other gateways have had, each as a test."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from decimal import Decimal

import pytest
import sqlalchemy as sa

from tests.unit.ledger.conftest import Start
from tests.unit.ledger.scenario import ask, counters, dollars, drift, execute, facts, hold, settlement
from workers.ledger.budgets import holds
from workers.ledger.connection import Connection
from workers.ledger.ledger import Ledger
from workers.ledger.tables import metadata
from workers.ledger.types import Ask, Granted, Refused
from workers.outcomes import Unavailable
from workers.policy import Policy, PolicyError, parse

ACME = '{"tenant": "acme"}'
POLICY = """
models: {mini: {litellm: openai/mini, context: 1000, price: {input: 1, output: 2}}}
tiers: {light: [mini], standard: [mini], heavy: [mini]}
reference: mini
"""


def policy(budgets: str) -> Policy:
    return parse(f"{POLICY}budgets: {budgets}\n", "the test")


async def in_batches(ledger: Ledger, asks: list[Ask], rnd: random.Random) -> int:
    granted = 0
    while asks:
        size = rnd.randint(1, 16)
        batch, asks = asks[:size], asks[size:]
        granted += sum(isinstance(a, Granted) for a in await ledger.open(batch))
    return granted


async def test_concurrent_reserve_never_overshoots(start: Start, url: str) -> None:
    """16 workers, none of whose counters exists yet, ask 400 times for what fits 73 times. In processes: test_budget_processes.py."""
    workers = [await start(f"w{i}", pool_size=1) for i in range(16)]
    budget = hold("73")
    asks = [[ask(f"{w}-{i}", "1", 1, budget, hold(10**6, {"user": f"u{i}"})) for i in range(25)] for w in range(16)]
    granted = await asyncio.gather(
        *(in_batches(ledger, mine, random.Random(i)) for i, (ledger, mine) in enumerate(zip(workers, asks, strict=True)))
    )
    assert sum(granted) == 73
    assert (await counters(url))[ACME, "usd", "month"] == (dollars("73"), 0)
    assert await drift(url) == {}


async def test_first_asks_of_a_scope_without_a_row_meet(start: Start, url: str) -> None:
    workers = [await start(f"w{i}", pool_size=1) for i in range(8)]
    answers = await asyncio.gather(*(w.open([ask(w.owner, "1", 1, hold("3", {"user": "new"}))]) for w in workers))
    assert sum(isinstance(a, Granted) for (a,) in answers) == 3
    assert await counters(url) == {('{"user": "new"}', "usd", "month"): (dollars("3"), 0)}


async def test_last_slice_is_refused_not_shrunk(ledger: Ledger, url: str) -> None:
    answers = await ledger.open([ask("a", "0.7", 1, hold("1")), ask("b", "0.4", 1, hold("1")), ask("c", "0.3", 1, hold("1"))])
    assert [type(a) for a in answers] == [Granted, Refused, Granted]
    rows = await execute(url, "SELECT reserved_usd FROM attempt ORDER BY reserved_usd")
    assert [row.reserved_usd for row in rows] == [dollars("0.3"), dollars("0.7")]


async def test_reserve_is_all_or_nothing_over_scopes(ledger: Ledger, url: str) -> None:
    scopes = [hold("1", {"tenant": t}) for t in ("a", "b", "c", "d")]
    await ledger.open([ask("fills", "1", 1, scopes[2])])
    before = await counters(url)
    (answer,) = await ledger.open([ask("r", "0.5", 1, *scopes)])
    assert isinstance(answer, Refused)
    assert answer.scope == {"tenant": "c"}
    assert {k: v for k, v in (await counters(url)).items() if v != (0, 0)} == before


async def test_reseed_is_idempotent(start: Start, url: str) -> None:
    """Workers that start again, or lose all they remember, rebuild no counter: there is one store, and no other table has sums."""
    first = await start("first")
    await first.open([ask("a", "1", 10, hold("5"), hold(100)), ask("b", "1", 10, hold("5"), hold(100))])
    await first.settle([settlement("a", cost="0.25", tokens=6)])
    before = await counters(url)
    await first.close()
    workers = [await start(f"w{i}") for i in range(4)]
    nothing = ask("c", "0", 0, hold("5"), hold(100))
    await asyncio.gather(*(w.open([replace(nothing, facts=facts(w.owner))]) for w in workers))
    assert await counters(url) == before
    assert await drift(url) == {}
    kept = {f"{table.name}.{c.name}" for table in metadata.tables.values() for c in table.c if c.name in ("reserved", "spent", "used")}
    assert kept == {"budget_usage.reserved", "budget_usage.spent"}


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
async def test_deadlock_free(start: Start, url: str) -> None:
    """Keys in any order never deadlock (see also test_budget_processes.py), and a deadlock that is forced is tried again, not dropped."""
    deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    (before,) = await execute(url, deadlocks)
    workers = [await start(f"w{i}", pool_size=2) for i in range(8)]
    scopes = [{"tenant": "acme"}, {}, {"user": "u1"}, {"user": "u2"}, {"feature": "support"}]

    async def work(me: int, ledger: Ledger) -> None:
        rnd = random.Random(me)
        for batch in range(6):
            asks = [ask(f"{me}-{batch}-{i}", "1", 1, *(hold("9999", s) for s in rnd.sample(scopes, 5))) for i in range(12)]
            await ledger.open(asks)
            settlements = [settlement(a.facts.request_id, cost="0.5") for a in asks]
            rnd.shuffle(settlements)
            await asyncio.gather(ledger.settle(settlements[:6]), ledger.settle(settlements[6:]))

    await asyncio.gather(*(work(i, w) for i, w in enumerate(workers)))
    (after,) = await execute(url, deadlocks)
    assert after == before
    await execute(url, "CREATE SEQUENCE met")
    await execute(
        url,
        """CREATE FUNCTION meet() RETURNS trigger LANGUAGE plpgsql AS $$
           BEGIN
             IF nextval('met') <= 2 THEN RAISE EXCEPTION 'met' USING ERRCODE = '40P01'; END IF;
             RETURN NEW;
           END $$""",
    )
    await execute(url, "CREATE TRIGGER meets BEFORE UPDATE ON budget_usage FOR EACH ROW EXECUTE FUNCTION meet()")
    try:
        assert await workers[0].open([ask("r", "1", 1, hold("9999"))]) == [Granted(1, ())]
        await workers[0].settle([settlement("r", cost="0.25")])
    finally:
        for thing in ("TRIGGER meets ON budget_usage", "FUNCTION meet", "SEQUENCE met"):
            await execute(url, f"DROP {thing}")
    assert (await counters(url))[ACME, "usd", "month"] == (0, dollars(f"{8 * 6 * 12 * 0.5 + 0.25}"))
    assert await drift(url) == {}


async def test_window_rollover_during_flight(ledger: Ledger, url: str) -> None:
    """A settlement lands in the window of its reservation, and the new window begins at nothing."""
    await ledger.open([ask("a", "1", 10, hold("1"))])
    long_ago = "2020-01-01 00:00:00.000000" + ("" if "sqlite" in url else "+00")
    await execute(url, f"UPDATE budget_usage SET starts_at = '{long_ago}'")  # the month has passed meanwhile
    assert isinstance((await ledger.open([ask("b", "0.4", 10, hold("1"))]))[0], Granted)
    await ledger.settle([settlement("a", cost="0.9")])
    rows = await execute(url, "SELECT reserved, spent FROM budget_usage ORDER BY starts_at")
    assert [tuple(r) for r in rows] == [(0, dollars("0.9")), (dollars("0.4"), 0)]


async def test_config_reload_keeps_usage(start: Start, url: str) -> None:
    """A limit lowered, raised, left out and named again, by a worker that starts anew with it: what is used stays."""
    await (await start("old")).open([ask("a", "1", 1, hold("1"))])
    ledger = await start("new")
    (answer,) = await ledger.open([ask("b", "1", 1, hold("1.5"))])
    assert isinstance(answer, Refused)
    assert (answer.used, answer.limit) == (Decimal(1), Decimal("1.5"))
    assert isinstance((await ledger.open([ask("c", "1", 1, hold("2"))]))[0], Granted)
    await ledger.open([ask("d", "1", 1)])  # nobody counts while no budget says so
    (answer,) = await ledger.open([ask("e", "1", 1, hold("2", degrade_at=0.5))])
    assert isinstance(answer, Refused)
    assert answer.used == Decimal(2)
    assert await drift(url) == {}


class TestLimits:
    @pytest.mark.parametrize("limit", ["limit_usd: 0", "limit_usd: 0.00000000001", "limit_tokens: 0"])
    async def test_limit_zero_none_negative_nan(self, ledger: Ledger, url: str, limit: str) -> None:
        """Zero is zero, also for what costs nothing. Left out is no limit. What is not a limit is refused with one line."""
        nothing = holds(policy(f"[{{scope: {{tenant: acme}}, window: day, {limit}}}]"), facts())
        assert isinstance((await ledger.open([ask("r", "0", 0, *nothing)]))[0], Refused)
        assert (await counters(url)).popitem()[1] == (0, 0)
        assert holds(policy("[]"), facts()) == ()
        assert isinstance((await ledger.open([ask("s", "1000000", 10**9)]))[0], Granted)

    @pytest.mark.parametrize("value", ["-1", ".nan", ".inf", "-.inf", "1e400", "'NaN'", "null", "''", "[]"])
    @pytest.mark.parametrize("kind", ["limit_usd", "limit_tokens"])
    def test_what_is_no_limit_is_refused_by_its_name(self, kind: str, value: str) -> None:
        with pytest.raises(PolicyError, match=r"^the test: budgets\.0") as told:
            policy(f"[{{scope: {{}}, window: day, {kind}: {value}}}]")
        assert kind in str(told.value)
        assert "\n" not in str(told.value)

    @pytest.mark.parametrize("scope", ["{team: a}", "{tenant: 5}", "{tenant: }", "{tenant: ''}", "[tenant]", "acme", "null"])
    def test_a_scope_that_is_none_is_refused_by_its_name(self, scope: str) -> None:
        with pytest.raises(PolicyError, match=r"^the test: budgets\.0\.scope"):
            policy(f"[{{scope: {scope}, window: day, limit_usd: 1}}]")

    @pytest.mark.parametrize("wrong", [{"usd": Decimal("-1")}, {"usd": Decimal("NaN")}, {"usd": Decimal("Infinity")}, {"tokens": -1}])
    async def test_an_amount_that_is_none_reserves_nothing(self, ledger: Ledger, url: str, wrong: dict[str, object]) -> None:
        with pytest.raises(ValueError, match="zero or more"):
            await ledger.open([replace(ask("r", "1", 1, hold("5")), **wrong)])  # type: ignore[arg-type]
        assert await execute(url, "SELECT 1 FROM budget_usage") == []


async def test_only_windows_that_the_policy_names_are_counted(ledger: Ledger, url: str) -> None:
    named = policy("[{scope: {tenant: '*'}, window: day, limit_usd: 5}, {scope: {}, window: hour, limit_tokens: 500}]")
    await ledger.open([ask("r", "1", 10, *holds(named, facts()))])
    assert await counters(url) == {(ACME, "usd", "day"): (dollars("1"), 0), ("{}", "tokens", "hour"): (10, 0)}


async def test_ledger_unreachable_is_fail_closed(start: Start, url: str) -> None:
    """Not "skip the reservation": without the ledger there is no grant, and the money is counted when it is back."""
    ledger = await start()
    broken = Ledger("postgresql+asyncpg://scrimp@127.0.0.1:1/none", heartbeat_s=5, stale_s=15, keep_days=7, pool_size=1)
    with pytest.raises(Unavailable, match="ledger"):
        await broken.start()
    with pytest.raises(RuntimeError, match="not started"):
        await broken.open([ask("r", "1", 10, hold("5"))])
    await broken.close()
    one = ask("r", "1", 10, hold("5"))
    assert await ledger.open([one]) == await ledger.open([one]) == [Granted(1, ())]  # whoever lost the answer asks again
    assert await counters(url) == {(ACME, "usd", "month"): (dollars("1"), 0)}


class TestFullDisk:
    async def test_nothing_is_granted_and_nothing_lost(self, start: Start, url: str) -> None:
        ledger = await start()
        await ledger.open([ask("before", "1", 10, hold("5000"))])
        await self.fill(ledger, url)
        with pytest.raises(Unavailable, match=r"disk is full|53100"):
            await ledger.open([ask(f"r{i}", "1", 10, hold("5000")) for i in range(1000)])
        assert await drift(url) == {}
        with pytest.raises(Unavailable, match=r"disk is full|53100"):
            await ledger.settle([settlement("before", answer=replace(settlement().answer, content="x" * 10**6))])  # type: ignore[type-var]
        await self.free(ledger, url)
        (settled,) = await ledger.settle([settlement("before")])
        assert settled.before == "reserved"
        assert isinstance((await ledger.open([ask("after", "1", 10, hold("5000"))]))[0], Granted)
        assert await drift(url) == {}

    async def fill(self, ledger: Ledger, url: str) -> None:
        if "sqlite" in url:  # a limit of the connection, so it is set on the ledger's own
            await self.pragma(ledger, "max_page_count=1")  # what there is, and no page more
            return
        await execute(
            url,
            """CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$
               BEGIN RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100'; END $$""",
        )
        await execute(url, "CREATE TRIGGER full_disk BEFORE INSERT OR UPDATE ON attempt FOR EACH ROW EXECUTE FUNCTION full_disk()")

    async def free(self, ledger: Ledger, url: str) -> None:
        if "sqlite" in url:
            await self.pragma(ledger, "max_page_count=1000000")
            return
        await execute(url, "DROP TRIGGER full_disk ON attempt")
        await execute(url, "DROP FUNCTION full_disk")

    async def pragma(self, ledger: Ledger, text: str) -> None:
        async def set_it(connection: Connection) -> None:
            await connection.execute(sa.text(f"PRAGMA {text}"))

        await ledger._database.transact(set_it)
