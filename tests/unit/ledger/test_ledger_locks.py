"""What a verb reads after it had to wait for a lock is what is there then; and how many statements a verb takes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from decimal import Decimal
from functools import partial
from typing import Any

import asyncpg  # type: ignore[import-untyped]
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from schemas import CostRecord
from tests.unit.ledger.conftest import Start
from tests.unit.ledger.scenario import ask, counters, dollars, drift, ending, execute, hold, settlement, silence
from workers.ledger.connection import Connection
from workers.ledger.database import Database, make_engine
from workers.ledger.end import end_batch
from workers.ledger.ledger import Ledger
from workers.ledger.open import Seen, open_batch
from workers.ledger.ordinary import read_frozen
from workers.ledger.queries import plan_by_values, plan_for_many
from workers.ledger.rows import key_of, lock
from workers.ledger.settle import settle_batch
from workers.ledger.sweep import write_off_lost
from workers.ledger.tables import attempt, budget_usage, request
from workers.ledger.types import Answer, Answered, Granted, Held, Settled, Stored

ACME = '{"tenant": "acme"}'
BUDGETS = (hold("10"), hold(1000))
Work = Callable[[Connection], Awaitable[Any]]


@pytest.fixture
async def engine(url: str) -> AsyncIterator[AsyncEngine]:
    engine = make_engine(url, 2)
    yield engine
    await engine.dispose()


async def after(engine: AsyncEngine, first: Work, then: Awaitable[Any]) -> Any:
    """What `then` gives when it has begun, and had to wait, while the transaction of `first` was not yet committed."""
    database = Database(engine.url.render_as_string(hide_password=False), 1)

    async def hold(connection: Connection) -> asyncio.Future[Any]:
        await first(connection)
        waiting = asyncio.ensure_future(then)
        if connection.on_postgres:
            await waits(engine)
        else:  # one writer at a time: it can do nothing but wait
            await asyncio.sleep(0.05)
        assert not waiting.done()
        return waiting

    try:
        return await (await database.transact(hold))
    finally:
        await database.close()


async def waits(engine: AsyncEngine) -> None:
    """Returns when a session of this database waits for a lock."""
    blocked = sa.text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'")
    async with asyncio.timeout(60), engine.connect() as connection:
        while (await connection.execute(blocked)).scalar_one() == 0:
            await connection.rollback()
            await asyncio.sleep(0.01)


async def request_id(engine: AsyncEngine, named: str) -> int:
    (row,) = await execute(engine, sa.select(request.c.id).where(request.c.request_id == named))
    found: int = row.id
    return found


async def test_a_settlement_sees_that_its_attempt_was_written_off_meanwhile(ledger: Ledger, url: str, engine: AsyncEngine) -> None:
    await ledger.open([ask("r", "1", 100, *BUDGETS)])
    await silence(url, ledger)
    lost = await request_id(engine, "r")
    settled = await after(engine, lambda c: write_off_lost(c, [lost], 600.0), ledger.settle([settlement("r", cost="0.25", tokens=60)]))
    assert settled == [Settled("unconfirmed", overrun=False)]
    assert await drift(url) == {}
    assert (await counters(url))[ACME, "usd", "month"] == (0, dollars("0.25"))


async def test_a_settlement_that_waited_for_another_of_its_attempt_is_a_repeat(ledger: Ledger, url: str, engine: AsyncEngine) -> None:
    await ledger.open([ask("r", "1", 100, *BUDGETS)])
    first, second = settlement("r", cost="0.25"), settlement("r", cost="0.75")
    assert await after(engine, lambda c: settle_batch(c, [first]), ledger.settle([second])) == [Settled("settled", overrun=False)]
    assert (await counters(url))[ACME, "usd", "month"] == (0, dollars("0.25"))


async def test_a_settlement_that_no_budget_counts_sees_the_same(ledger: Ledger, url: str, engine: AsyncEngine) -> None:
    await ledger.open([ask("written off", "1"), ask("repeated")])
    await silence(url, ledger)
    lost = await request_id(engine, "written off")
    late = settlement("written off", cost="0.25")
    settled = await after(engine, lambda c: write_off_lost(c, [lost], 600.0), ledger.settle([late]))
    assert settled == [Settled("unconfirmed", overrun=False)]
    first, second = settlement("repeated", cost="0.25"), settlement("repeated", cost="0.75")
    assert await after(engine, lambda c: settle_batch(c, [first]), ledger.settle([second])) == [Settled("settled", overrun=False)]
    rows = await execute(engine, sa.select(attempt.c.cost, attempt.c.state))
    assert [(row.cost, row.state) for row in rows] == [(dollars("0.25"), "settled")] * 2


async def test_settlements_of_a_batch_apply_in_the_order_of_the_caller(ledger: Ledger, engine: AsyncEngine) -> None:
    await ledger.open([ask("r")])
    not_sent = settlement("r", state="abandoned", verdict="error", answer=None)
    assert await ledger.settle([not_sent, settlement("r", cost="0.5")]) == [Settled("reserved", False), Settled("abandoned", False)]
    (row,) = await execute(engine, sa.select(attempt.c.cost, attempt.c.state))
    assert (row.cost, row.state) == (0, "abandoned")


async def test_a_settlement_of_a_request_that_ended_meanwhile_is_revised(ledger: Ledger, engine: AsyncEngine) -> None:
    await ledger.open([ask("r", "1")])
    late = ledger.settle([settlement("r", cost="0.25")])
    settled = await after(engine, lambda c: end_batch(c, [ending("r")], stale_s=600.0), late)
    assert settled == [Settled("reserved", overrun=False)]
    (revised,) = await ledger.sweep()
    assert CostRecord.model_validate_json(revised.cost_record).cost_usd == Decimal("0.25")


async def test_who_ends_a_request_that_another_ends_meanwhile_gives_what_that_one_stored(ledger: Ledger, engine: AsyncEngine) -> None:
    await ledger.open([ask("r", "1")])
    await ledger.settle([settlement("r", cost="0.25")])
    (stored,) = await after(engine, lambda c: end_batch(c, [ending("r", "one")], stale_s=600.0), ledger.end([ending("r", "two")]))
    assert isinstance(stored, Stored)
    assert (stored.response, stored.first) == (b"one", False)


async def test_only_a_request_whose_attempts_nobody_changes_any_more_is_read_without_a_lock(start: Start, url: str) -> None:
    if url.startswith("sqlite"):
        pytest.skip("SQLite has one writer at a time, and every verb is that")
    ledger = await start()
    await ledger.open([ask(each) for each in ("accepted", "also cut off", "failed", "open", "of another body")])
    cut_off = settlement("also cut off", state="unconfirmed", verdict="error", answer=None)
    failed = settlement("failed", verdict="error", answer=None)
    await ledger.settle([settlement("accepted"), cut_off, failed, settlement("of another body")])
    await ledger.open([ask("also cut off", after=1)])
    await ledger.settle([settlement("also cut off", n=2)])
    asked = [*(ending(each) for each in ("accepted", "also cut off", "failed", "open", "unknown")), ending("of another body", body="x")]
    database = Database(url, 1)
    found = await database.single(partial(read_frozen, endings={key_of(each.facts): each for each in asked}))
    await database.close()
    assert list(found) == [("acme", "accepted")]


async def test_who_claims_a_request_that_another_is_claiming_is_held(start: Start, url: str, engine: AsyncEngine) -> None:
    one, other = await start("one"), await start("other")
    claimed = partial(open_batch, asks=[ask("r")], owner=one.owner, stale_s=600.0, seen=Seen())
    held, granted = await after(engine, claimed, other.open([ask("r"), ask("mine")]))
    assert isinstance(held, Held)
    assert granted == Granted(1, ())
    assert len(await execute(url, sa.select(attempt))) == 2


async def test_a_counter_that_was_moved_meanwhile_is_added_to(ledger: Ledger, url: str, engine: AsyncEngine) -> None:
    await ledger.open([ask("a", "1", 100, *BUDGETS), ask("b", "2", 100, *BUDGETS)])
    one, other = settlement("a", cost="0.25", tokens=60), settlement("b", cost="0.5", tokens=30)
    assert await after(engine, lambda c: settle_batch(c, [one]), ledger.settle([other])) == [Settled("reserved", overrun=False)]
    assert await drift(url) == {}
    assert (await counters(url))[ACME, "usd", "month"] == (0, dollars("0.75"))
    assert (await counters(url))[ACME, "tokens", "month"] == (0, 90)


async def test_a_grant_sees_what_was_spent_meanwhile(start: Start, url: str, engine: AsyncEngine) -> None:
    ledger = await start()
    await ledger.open([ask("a", "1", 100, *BUDGETS)])
    over = settlement("a", cost="9.5")
    (refused,) = await after(engine, lambda c: settle_batch(c, [over]), ledger.open([ask("b", "1", 100, *BUDGETS)]))
    assert refused.kind == "usd"
    assert refused.used == dollars("9.5") / 10**10


async def test_counters_of_a_restored_database_are_found_again(ledger: Ledger, url: str) -> None:
    """Where the ids that this process knows are now those of others."""
    of = (hold("10"), hold("10", {"user": "u"}))
    await ledger.open([ask("a", "1", 100, *of)])
    known = {row.scope: row.id for row in await execute(url, sa.select(budget_usage))}
    await execute(url, "DELETE FROM attempt")
    mine, other = sorted(known)
    for scope, becomes in ((mine, "x"), (other, mine), ("x", other)):
        await execute(url, sa.update(budget_usage).where(budget_usage.c.scope == scope).values(scope=becomes, reserved=0, spent=0))
    await ledger.open([ask("b", "3", 100, hold("10"))])
    found = await counters(url)
    assert found[ACME, "usd", "month"] == (dollars("3"), 0)
    assert found['{"user": "u"}', "usd", "month"] == (0, 0)
    assert await drift(url) == {}


async def test_the_answers_of_a_batch_stay_apart(ledger: Ledger) -> None:
    """They are sent in one piece."""
    said = [Answer(text, None, "stop") for text in ("ä" * 300, "", "half of a pair: \ud83d", "😀")] + [
        None,
        Answer(None, ({"id": "1"},), "x"),
    ]
    ids = [f"r{n}" for n in range(len(said))]
    await ledger.open([ask(each) for each in ids])
    verdicts = ["error" if answer is None else "accepted" for answer in said]
    await ledger.settle([settlement(i, answer=a, verdict=v) for i, a, v in zip(ids, said, verdicts, strict=True)])
    for each, answer in zip(ids, said, strict=True):
        (opened,) = await ledger.open([ask(each)])
        assert isinstance(opened, Answered | Granted)
        assert opened.attempts[0].answer == answer


async def test_nobody_deadlocks_over_the_counters_that_are_shared(start: Start, url: str) -> None:
    """It would be tried again, and nobody would see it but in the delay."""
    workers = [await start(f"w{i}", pool_size=1) for i in range(4)]
    scopes = [{"user": f"u{n}"} for n in range(24)]

    async def work(me: int, ledger: Ledger) -> None:
        rnd = random.Random(me)
        for turn in range(12):
            ids = [f"{me}-{turn}-{n}" for n in range(3)]
            await ledger.open([ask(each, "0.01", 1, *(hold("100", scope) for scope in rnd.sample(scopes, 12))) for each in ids])
            await ledger.settle([settlement(each, cost="0.001", tokens=1) for each in ids])

    with statements() as sent:
        await asyncio.gather(*(work(n, ledger) for n, ledger in enumerate(workers)))
    assert len(sent) > 4 * 12
    assert not [each for each in sent if each.startswith("ROLLBACK")]
    assert await drift(url) == {}


@contextmanager
def statements(beside: tuple[str, ...] = ("BEGIN", "COMMIT")) -> Iterator[list[str]]:
    """Those that are sent meanwhile, by anybody, beside these. PostgreSQL's are seen at the driver, SQLite's at the engine."""
    sent: list[str] = []

    def note(text: str) -> None:
        if not text.startswith(beside):
            sent.append(text)

    def noted(method: Any) -> Any:
        async def call(self: Any, text: str, *args: Any, **kwargs: Any) -> Any:
            note(text)
            return await method(self, text, *args, **kwargs)

        return call

    def cursor(*about: Any) -> None:
        note(about[2])

    sa.event.listen(sa.Engine, "before_cursor_execute", cursor)
    try:
        with pytest.MonkeyPatch.context() as patch:
            for name in ("execute", "executemany", "fetch"):
                patch.setattr(asyncpg.Connection, name, noted(getattr(asyncpg.Connection, name)))
            yield sent
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", cursor)


@asynccontextmanager
async def at_most(trips: int) -> AsyncIterator[None]:
    with statements() as sent:
        yield
    assert len(sent) <= trips, sent


@pytest.mark.parametrize("size", [1, 64])
async def test_a_verb_takes_few_round_trips_whatever_the_size_of_its_batch(ledger: Ledger, url: str, size: int) -> None:
    """Beside BEGIN and COMMIT. A counter or price that the process has not seen costs more, once; SQLite has one more, and no trips."""
    more = 1 if url.startswith("sqlite") else 0
    await ledger.open([ask("first", "0.01", 1, hold("10"), hold(100_000))])
    ids = [f"r{n}" for n in range(size)]
    async with at_most(3 + more):
        opened = await ledger.open([ask(each, "0.01", 1, hold("10"), hold(100_000)) for each in ids])
    assert all(isinstance(each, Granted) for each in opened)
    async with at_most(2 + more):
        await ledger.settle([settlement(each, cost="0.001", tokens=1) for each in ids])
    async with at_most(3):
        ended = await ledger.end([ending(each) for each in ids])
    assert all(isinstance(each, Stored) for each in ended)


@pytest.mark.postgres
async def test_without_budgets_a_request_takes_four_statements_and_no_more(start: Start, url: str) -> None:
    """One before the call, one after it, and two for its ending, of which none waits for a COMMIT."""
    if url.startswith("sqlite"):
        pytest.skip("SQLite has no round trips to save")
    ledger = await start()
    await ledger.open([ask("first")])
    with statements(beside=()) as sent:
        assert await ledger.open([ask("r")]) == [Granted(1, ())]
        assert await ledger.settle([settlement("r")]) == [Settled("reserved", overrun=False)]
        assert isinstance((await ledger.end([ending("r")]))[0], Stored)
    assert len(sent) == 4, sent


@pytest.mark.postgres
async def test_a_statement_is_planned_once_and_a_report_anew(url: str) -> None:
    if url.startswith("sqlite"):
        pytest.skip("SQLite tells of no plans")

    async def plans(connection: Connection) -> tuple[int, int]:
        """Made once for all values, and for the values at hand, of a statement that was done three times."""
        keys = [("acme", str(n)) for n in range(3)]
        for key in keys:
            await lock(connection, [key])
        made = "SELECT generic_plans, custom_plans FROM pg_prepared_statements WHERE statement LIKE '%FOR NO KEY ' || 'UPDATE%'"
        [found] = await connection.execute(sa.text(made))
        return found.generic_plans, found.custom_plans

    async def of_a_report(connection: Connection) -> tuple[int, int]:
        await plan_for_many(connection)
        return await plans(connection)

    async def by_values(connection: Connection) -> tuple[int, int]:
        await plan_by_values(connection)
        return await plans(connection)

    for work, expected in ((plans, (3, 0)), (of_a_report, (0, 3)), (by_values, (0, 3))):
        database = Database(url, 1)
        assert await database.transact(work) == expected
        await database.close()
