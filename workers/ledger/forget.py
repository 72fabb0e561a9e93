"""Erasure: stored answers and responses go, and in the books a user's id gives way to its digest (`schemas.types.user_digest`).

Money, counts and body hashes stay, so the books still add up, and an id that was used stays used. What a repeat erases as well is told as
left: requests under way, whose answers are still owed, and counters and alerts of windows that run, which guard the limits. Transactions of
a bounded number of rows, each of which may be repeated; one that is cut off is finished by the next run.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import sqlalchemy as sa

from schemas import CostRecord
from schemas.types import user_digest
from workers.ledger.alerts import scope_text
from workers.ledger.connection import Connection
from workers.ledger.database import Database
from workers.ledger.given import given, pack_ids, read_clock
from workers.ledger.queries import plan_by_values, plan_for_many
from workers.ledger.sweep import CHUNK, LOCK_BY_ID
from workers.ledger.tables import alert, attempt, budget_usage, request

OVER = {
    "minute": timedelta(minutes=1),
    "hour": timedelta(hours=1),
    "day": timedelta(hours=26),
    "month": timedelta(days=31, hours=2),
}
"""After its start a window of any time zone is over, an hour that the clocks repeat included."""
LATE = timedelta(minutes=15)
"""The alerts look at a window a little longer."""

DIGEST_LENGTH = len(user_digest("", ""))


@dataclass(frozen=True, slots=True)
class Person:
    """Whom to forget: a tenant, or one of its users."""

    tenant: str
    user: str | None = None

    @property
    def is_theirs(self) -> sa.ColumnElement[bool]:
        theirs = request.c.tenant == self.tenant
        return theirs if self.user is None else theirs & request.c.user.in_((self.user, user_digest(self.tenant, self.user)))

    @property
    def is_named(self) -> sa.ColumnElement[bool]:
        """Does the row hold a user's id?"""
        if self.user is not None:
            return request.c.user == self.user
        return request.c.user.is_not(None) & ~(request.c.user.like("sha256:%") & (sa.func.length(request.c.user) == DIGEST_LENGTH))

    def named_in(self, scope: dict[str, str], others: Collection[str]) -> bool:
        """Does a counter's scope name the user? `others`: digests of the tenant's users, for a scope that names no tenant."""
        named = scope.get("user")
        if named is None or scope.get("tenant", self.tenant) != self.tenant or (self.user is not None and named != self.user):
            return False
        return "tenant" in scope or user_digest(self.tenant, named) in others

    def is_gone(self, user: str) -> bool:
        """Is it a digest already? Who is asked for by name has an id of whatever shape, and it gives way."""
        return user != self.user and user.startswith("sha256:") and len(user) == DIGEST_LENGTH

    def digested(self, scope: dict[str, str]) -> dict[str, str]:
        return scope | {"user": user_digest(self.tenant, scope["user"])}


@dataclass(frozen=True, slots=True)
class Left:
    """What names them still, and why a repeat will find it."""

    under_way: int
    """Requests that have not ended."""
    running: int
    """Counters and alerts of windows that are not over, whose scope names the user."""
    until: datetime | None
    """When the last of those windows is."""


@dataclass(frozen=True, slots=True)
class Erased:
    requests: int
    counters: int
    """Counters whose scope named the user, and alerts."""
    left: Left


async def count(database: Database, person: Person) -> int:
    """How many requests of theirs the books hold, forgotten ones included."""

    async def read(connection: Connection) -> int:
        await plan_by_values(connection)
        [(number,)] = await connection.execute(sa.select(sa.func.count()).select_from(request).where(person.is_theirs))
        return int(number)

    return await database.transact(read, reads_only=True)


async def forget(database: Database, person: Person) -> Erased:
    """Erase what can be. Raises `Unavailable`: some of it may be done; forget again."""
    requests = counters = 0
    while done := await database.transact(partial(_forget_requests, person=person)):
        requests += done
    under_way = await database.transact(partial(_under_way, person=person), reads_only=True)
    others = await database.transact(partial(_users, person=person), reads_only=True)
    after, running, until = 0, 0, None
    while True:
        chunk = await database.transact(partial(_forget_counters, person=person, others=others, after=after))
        counters, running = counters + chunk.renamed, running + len(chunk.running)
        until = max([*chunk.running, *([until] if until else [])], default=None)
        if chunk.last is None:
            break
        after = chunk.last
    deleted, ends = await database.transact(partial(_forget_alerts, person=person, others=others))
    until = max([*ends, *([until] if until else [])], default=None)
    return Erased(requests, counters + deleted, Left(under_way, running + len(ends), until))


# ---- requests

_ids = given(id=sa.BigInteger)
_ROWS = sa.select(request.c.id, request.c.tenant, request.c.user, request.c.revision, request.c.cost_record).join(
    _ids, request.c.id == _ids.c.id
)
_FORGET = (
    sa.update(request)
    .where(request.c.id == sa.bindparam("of_request"))
    .values(
        response=None, **{name: sa.bindparam(f"new_{name}", type_=request.c[name].type) for name in ("user", "revision", "cost_record")}
    )
)
_FORGET_ANSWERS = sa.update(attempt).where(attempt.c.request == _ids.c.id, attempt.c.answer.is_not(None)).values(answer=None)


async def _forget_requests(connection: Connection, person: Person) -> int:
    """Up to CHUNK ended requests that hold something; how many those were."""
    await plan_by_values(connection)
    answered = sa.exists().where(attempt.c.request == request.c.id, attempt.c.answer.is_not(None))
    holding = request.c.response.is_not(None) | person.is_named | answered
    due = sa.select(request.c.id).where(person.is_theirs, request.c.ended_at.is_not(None), holding).order_by(request.c.id).limit(CHUNK)
    ids = pack_ids(id_ for (id_,) in await connection.execute(due))
    locked = await connection.execute(LOCK_BY_ID, ids)
    if locked:
        await connection.execute(_FORGET, [_without_user(row, person) for row in await connection.execute(_ROWS, ids)])
        await connection.execute(_FORGET_ANSWERS, ids)
    return len(locked)


def _without_user(row: Any, person: Person) -> dict[str, Any]:
    """The row as it will be. A CostRecord that named the user gets a revision, which the sweep publishes: on the compacted topic it takes
    the place of the one that did."""
    kept = {"of_request": row.id, "new_user": row.user, "new_revision": row.revision, "new_cost_record": row.cost_record}
    if row.user is None or person.is_gone(row.user):
        return kept
    digest = user_digest(row.tenant, row.user)
    record = CostRecord.model_validate_json(row.cost_record).model_copy(update={"user": digest, "revision": row.revision + 1})
    return kept | {"new_user": digest, "new_revision": record.revision, "new_cost_record": record.model_dump_json().encode()}


async def _under_way(connection: Connection, person: Person) -> int:
    still = sa.select(sa.func.count()).select_from(request).where(person.is_theirs, request.c.ended_at.is_(None))
    [(number,)] = await connection.execute(still)
    return int(number)


async def _users(connection: Connection, person: Person) -> set[str]:
    """Digests of the users that the rows name by now."""
    await plan_for_many(connection)
    named = sa.select(request.c.user).where(person.is_theirs, request.c.user.is_not(None)).distinct()
    return {user if person.is_gone(user) else user_digest(person.tenant, user) for (user,) in await connection.execute(named)}


# ---- what counts by user


@dataclass(frozen=True, slots=True)
class _Chunk:
    renamed: int
    running: list[datetime]
    """When the windows of those that were left are over."""
    last: int | None
    """Go on after this id; None: that was all."""


def _names_a_user(column: sa.ColumnElement[str], user: str | None) -> sa.ColumnElement[bool]:
    """A first sieve, by text; what it lets through is read."""
    text = '"user": ' if user is None else json.dumps({"user": user}, ensure_ascii=False)[1:-1]
    return column.contains(text, autoescape=True)


_other = budget_usage.alias("other")
_RENAME = (
    sa.update(budget_usage)
    .where(
        budget_usage.c.id == sa.bindparam("of_counter"),
        ~sa.exists().where(
            _other.c.scope == sa.bindparam("new_scope", type_=sa.Text),
            *(_other.c[name] == budget_usage.c[name] for name in ("kind", "window", "starts_at")),
        ),
    )
    .values(scope=sa.bindparam("new_scope", type_=sa.Text))
)


async def _forget_counters(connection: Connection, person: Person, others: Collection[str], after: int) -> _Chunk:
    now = await read_clock(connection)
    rows = sa.select(budget_usage.c.id, budget_usage.c.scope, budget_usage.c.window, budget_usage.c.starts_at)
    rows = rows.where(budget_usage.c.id > after, _names_a_user(budget_usage.c.scope, person.user)).order_by(budget_usage.c.id).limit(CHUNK)
    found = await connection.execute(rows)
    renamed, running = [], []
    for row in found:
        scope = json.loads(row.scope)
        if not person.named_in(scope, others) or person.is_gone(scope["user"]):
            continue
        ends = row.starts_at + OVER[row.window]
        if ends > now:
            running.append(ends)
        else:
            renamed.append({"of_counter": row.id, "new_scope": scope_text(person.digested(scope))})
    if renamed:
        await connection.execute(_RENAME, renamed)
    return _Chunk(len(renamed), running, found[-1].id if len(found) == CHUNK else None)


async def _forget_alerts(connection: Connection, person: Person, others: Collection[str]) -> tuple[int, list[datetime]]:
    """Alerts of windows that are over were told, and are not needed; the others keep it from being told twice."""
    now = await read_clock(connection)
    rows = sa.select(alert.c.id, alert.c.scope, alert.c.window, alert.c.starts_at, alert.c.published_at)
    gone, running = [], []
    for row in await connection.execute(rows.where(_names_a_user(alert.c.scope, person.user))):
        if person.named_in(json.loads(row.scope), others):
            ends = row.starts_at + OVER[row.window] + LATE
            if ends > now or row.published_at is None:
                running.append(ends)
            else:
                gone.append(row.id)
    for i in range(0, len(gone), CHUNK):  # PostgreSQL takes 32,767 ids in a statement, and a tenant can have more users
        await connection.execute(sa.delete(alert).where(alert.c.id.in_(gone[i : i + CHUNK])))
    return len(gone), running
