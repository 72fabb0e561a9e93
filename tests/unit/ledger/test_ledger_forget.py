"""Erasure on both databases: what was said goes, the money stays, and the books still verify."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa

from schemas import CostRecord, Facts, Usage
from schemas.types import user_digest, utc_now
from tests.unit.ledger.conftest import Start
from tests.unit.ledger.history import ENDINGS, asked, ended, settled
from tests.unit.ledger.scenario import BASELINE, RATES, ask, ending, execute, facts, settlement, silence
from tests.unit.ledger.scenario import hold as plain_hold
from workers.ledger.alerts import Finding, scope_text
from workers.ledger.database import Database
from workers.ledger.forget import Person, count, forget
from workers.ledger.ledger import Ledger
from workers.ledger.queries import Question, report
from workers.ledger.tables import alert, attempt, budget_usage, metadata, request
from workers.ledger.types import Conflict, Hold, Used
from workers.ledger.verify import verify

USER = 'Ünal "u" 100%_o\'2'
NAME = "Ünal"
"""In every spelling of the id, escaped or not."""
DIGEST = user_digest("acme", USER)
ME = Person("acme", USER)
BY_USER = {"tenant": "acme", "user": USER}


def hold(limit: str | int, scope: dict[str, str]) -> Hold:
    """Its scope is text as `budgets.holds` writes it."""
    return replace(plain_hold(limit), scope=scope_text(scope))


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    database = Database(url, 1)
    yield database
    await database.close()


async def say(ledger: Ledger, request_id: str, *, end: bool = True, tenant: str = "acme", user: str | None = USER) -> None:
    scope = {"tenant": tenant, **({"user": user} if user else {})}
    told = Usage(input_tokens=40, output_tokens=20)
    await ledger.open([ask(request_id, "0.01", 90, hold("9", scope), hold(9_000, {}), tenant=tenant, user=user)])
    await ledger.settle([settlement(request_id, cost=str(RATES.cost(told)), usage=told, tenant=tenant)])
    if end:
        await ledger.end([ending(request_id, f"answer of {request_id} to {user}", tenant=tenant, user=user)])


async def everything(url: str) -> str:
    """All text that the ledger holds."""
    rows = [row for table in metadata.sorted_tables for row in await execute(url, sa.select(table))]
    return "\n".join(bytes(v).decode() if isinstance(v, bytes | memoryview) else str(v) for row in rows for v in row)


async def last_month(url: str) -> None:
    """Every window that counted anything is over."""
    await execute(url, sa.update(budget_usage).values(starts_at=utc_now() - timedelta(days=40)))


async def row_of(url: str, request_id: str) -> Any:
    (row,) = await execute(url, sa.select(request).where(request.c.request_id == request_id))
    return row


async def test_the_answers_go_and_the_books_stay(ledger: Ledger, database: Database, url: str) -> None:
    for request_id in ("a", "b"):
        await say(ledger, request_id)
    await say(ledger, "other", user="u-2")
    await say(ledger, "nobody", user=None)
    await say(ledger, "elsewhere", tenant="umbrella")
    await last_month(url)
    before = await report(url, Question())
    assert await count(database, ME) == 2

    erased = await forget(database, ME)
    assert (erased.requests, erased.counters, erased.left.under_way, erased.left.running) == (2, 1, 0, 0)
    after = await report(url, Question())
    assert after.total == before.total
    assert after.by["user"][DIGEST].spent_usd == Decimal(2) * RATES.cost(Usage(input_tokens=40, output_tokens=20))
    for request_id in ("a", "b"):
        row = await row_of(url, request_id)
        record = CostRecord.model_validate_json(row.cost_record)
        assert (row.user, row.response, record.user, record.revision, record.baseline_usd) == (DIGEST, None, DIGEST, row.revision, BASELINE)
    for request_id, tenant in (("other", "acme"), ("nobody", "acme"), ("elsewhere", "umbrella")):
        row = await row_of(url, request_id)
        assert (row.response is not None, row.revision) == (True, 1), tenant
    left = await execute(url, sa.select(attempt.c.request).where(attempt.c.answer.is_not(None)))
    assert len(left) == 3
    assert "answer of a" not in await everything(url)
    # Left is another tenant's user of that name: in the row, the response, the CostRecord and a counter's scope.
    assert (await everything(url)).count(NAME) == 4


async def test_an_id_of_the_shape_of_a_digest_gives_way_where_it_is_named(ledger: Ledger, database: Database, url: str) -> None:
    odd = "sha256:" + 64 * "0"
    await say(ledger, "a", user=odd)
    await last_month(url)
    for requests, counters in ((1, 1), (0, 0)):
        erased = await asyncio.wait_for(forget(database, Person("acme", odd)), 60)
        assert (erased.requests, erased.counters) == (requests, counters)
    assert (await row_of(url, "a")).user == user_digest("acme", odd)
    assert odd not in await everything(url)


async def test_the_books_are_right_afterwards(start: Start, database: Database, url: str) -> None:
    """As `ledger verify` sees them, with an ending of every kind, a call that was cut off, and one that is settled later."""
    worker, lost = await start("worker"), await start("lost")
    one = facts("?", user=USER)
    for how in ENDINGS:
        of = replace_facts(one, how)
        if how in ("model", "batch", "failed"):
            call = asked(how, "0.01", 90, hold("9", BY_USER), user=USER)
            await worker.open([call])
            await worker.settle([settled(call, 1, Usage(input_tokens=40, output_tokens=20))])
        await worker.end([ended(of, how)])
    cut_off = asked("cut off", "0.01", 90, hold("9", BY_USER), user=USER)
    await lost.open([cut_off])
    await worker.end([ended(replace_facts(one, "cut off"), "expired")])
    await silence(url, lost)
    await worker.sweep()
    for _ in range(2):
        assert (await verify(url, stale_s=600, grace_s=600, keep_days=7)).problems == []
        erased = await forget(database, ME)
    assert erased.requests == 0
    await lost.settle([settled(cut_off, 1, Usage(input_tokens=10, output_tokens=5))])
    assert (await verify(url, stale_s=600, grace_s=600, keep_days=7)).problems == []


def replace_facts(one: Facts, request_id: str) -> Facts:
    return one.model_copy(update={"request_id": request_id})


async def test_it_is_forgotten_once(ledger: Ledger, database: Database, url: str) -> None:
    await say(ledger, "a")
    await last_month(url)
    await forget(database, ME)
    rows = await everything(url)
    again = await forget(database, ME)
    assert (again.requests, again.counters) == (0, 0)
    assert await everything(url) == rows
    assert await count(database, ME) == 1


async def test_the_new_revision_is_published_and_takes_the_place_of_the_old_one(ledger: Ledger, database: Database, url: str) -> None:
    await say(ledger, "a")
    assert await ledger.sweep() == []
    await forget(database, ME)
    (revised,) = await ledger.sweep()
    record = CostRecord.model_validate_json(revised.cost_record)
    assert (record.revision, record.user, NAME.encode() in revised.cost_record) == (2, DIGEST, False)
    await ledger.published([revised])
    await forget(database, ME)
    assert await ledger.sweep() == []


async def test_an_id_that_was_forgotten_stays_used(ledger: Ledger, database: Database, url: str) -> None:
    await say(ledger, "a")
    await forget(database, ME)
    assert await ledger.end([ending("a", user=USER)]) == [Used()]
    assert await ledger.end([ending("a", user=USER, body="another")]) == [Conflict()]
    await say(ledger, "later")  # the same user asks on, and can be forgotten again
    assert (await row_of(url, "later")).user == USER
    assert (await forget(database, ME)).requests == 1
    assert (await row_of(url, "later")).user == DIGEST


async def test_what_is_under_way_is_left_and_told(ledger: Ledger, database: Database, url: str) -> None:
    await say(ledger, "a")
    await say(ledger, "open", end=False)
    erased = await forget(database, ME)
    assert (erased.requests, erased.left.under_way) == (1, 1)
    assert (await row_of(url, "open")).user == USER
    assert len(await execute(url, sa.select(attempt.c.n).where(attempt.c.answer.is_not(None)))) == 1
    await ledger.end([ending("open", "the answer is owed", user=USER)])
    assert (await row_of(url, "open")).response == b"the answer is owed"
    erased = await forget(database, ME)
    assert (erased.requests, erased.left.under_way) == (1, 0)
    assert "owed" not in await everything(url)


async def test_a_late_settlement_names_nobody(start: Start, database: Database, url: str) -> None:
    """A zombie settles an attempt of a request that ended and was forgotten."""
    owner, other = await start("owner"), await start("other")
    await owner.open([ask("a", "0.01", 90, user=USER)])
    await other.end([ending("a", reason="deadline_passed", user=USER)])
    await silence(url, owner)
    await other.sweep()
    await forget(database, ME)
    await owner.settle([settlement("a", cost="0.002")])
    row = await row_of(url, "a")
    record = CostRecord.model_validate_json(row.cost_record)
    assert (record.user, record.revision, record.cost_usd) == (DIGEST, row.revision, Decimal("0.002"))
    assert await execute(url, sa.select(attempt.c.n).where(attempt.c.answer.is_not(None))) == []


async def test_a_running_budget_is_not_reset(ledger: Ledger, database: Database, url: str) -> None:
    """To be forgotten must not be a way around a limit."""
    await say(ledger, "a")
    erased = await forget(database, ME)
    assert (erased.counters, erased.left.running) == (0, 1)
    assert erased.left.until is not None
    assert erased.left.until > utc_now()
    one = ask("b", "9", 90, hold("9", BY_USER), user=USER)
    (refused,) = await ledger.open([one])
    assert type(refused).__name__ == "Refused"
    await last_month(url)
    assert (await forget(database, ME)).counters == 1
    assert NAME not in "".join(r.scope for r in await execute(url, sa.select(budget_usage.c.scope)))


async def test_a_tenant_with_all_its_users(ledger: Ledger, database: Database, url: str) -> None:
    for request_id, user in (("a", USER), ("b", "u-2"), ("c", None)):
        await say(ledger, request_id, user=user)
    await ledger.open([ask("by user alone", "0.01", 1, hold("9", {"user": "u-2"}), hold("9", {"user": "u-3"}), user="u-2")])
    await ledger.end([ending("by user alone", user="u-2", reason="internal")])
    await say(ledger, "elsewhere", tenant="umbrella", user="u-3")
    await last_month(url)
    erased = await forget(database, Person("acme"))
    assert (erased.requests, erased.counters, erased.left.under_way) == (4, 3, 0)
    users = {row.request_id: row.user for row in await execute(url, sa.select(request.c.request_id, request.c.user))}
    second = user_digest("acme", "u-2")
    assert users == {"a": DIGEST, "b": second, "c": None, "by user alone": second, "elsewhere": "u-3"}
    assert (await row_of(url, "elsewhere")).response is not None
    scopes = {row.scope for row in await execute(url, sa.select(budget_usage.c.scope))}
    assert '{"user": "u-3"}' in scopes
    assert not any("u-2" in scope or NAME in scope for scope in scopes)
    assert (await forget(database, Person("acme"))).requests == 0


async def test_alerts_about_a_user(ledger: Ledger, database: Database, url: str) -> None:
    def about(days: int, user: str) -> Finding:
        scope = {"tenant": "acme", "user": user}
        return Finding("budget_share", scope, "day", utc_now() - timedelta(days=days), f"user {user}", {}, about="usd", level=8000)

    await ledger.watch.store([about(0, USER), about(3, USER), about(4, "u-2")])
    assert (await forget(database, ME)).left.running == 2  # one waits to be published, the other's day is not over
    await ledger.watch.sent(await ledger.watch.unsent())
    erased = await forget(database, ME)
    assert (erased.counters, erased.left.running) == (1, 1)
    assert len(await execute(url, sa.select(alert.c.id))) == 2


async def test_more_alerts_than_a_statement_takes_ids(ledger: Ledger, database: Database, url: str) -> None:
    """PostgreSQL takes 32,767."""
    many = 33_000
    await ledger.watch.store([Finding("budget_share", BY_USER, "day", utc_now() - timedelta(days=3), "full", {})])
    columns = ", ".join(f'"{column.name}"' for column in alert.c if column.name != "id")
    numbers = f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {many})"
    copied = columns.replace('"about"', "CAST(i AS TEXT)")
    await execute(url, f"{numbers} INSERT INTO alert (id, {columns}) SELECT CAST(i AS TEXT), {copied} FROM alert, n")
    await execute(url, sa.update(alert).values(published_at=utc_now()))
    assert (await forget(database, ME)).counters == many + 1


async def test_in_chunks(ledger: Ledger, database: Database, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.ledger.forget.CHUNK", 3)
    await ledger.end([replace(ending(f"r{i}", user=USER), facts=facts(f"r{i}", user=USER)) for i in range(7)])
    await ledger.open([ask("more", "0.01", 1, *(hold("9", BY_USER | {"experiment": str(i)}) for i in range(7)), user="u-2")])
    await last_month(url)
    erased = await forget(database, ME)
    assert (erased.requests, erased.counters, erased.left.running) == (7, 7, 0)
    assert NAME not in await everything(url)


def test_the_form_of_the_digest() -> None:
    """It is documented, and so may not change: `sha256sum` of tenant/user."""
    assert user_digest("acme", "u-42") == f"sha256:{hashlib.sha256(b'acme/u-42').hexdigest()}"
    assert user_digest("acme", "u-42") != user_digest("umbrella", "u-42")
