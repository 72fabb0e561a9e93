"""What nobody asks for: attempts whose owner is lost, revisions that were not published, answers kept long enough.

Each part is a transaction of its own on a bounded number of rows and may run in several processes at once: whoever comes second finds
nothing to do. A sweep that is cut off is finished by the next one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import timedelta

import sqlalchemy as sa

from workers.ledger import alerts
from workers.ledger.connection import Connection, Row
from workers.ledger.given import clock, given, pack, pack_ids, read_clock
from workers.ledger.queries import plan_by_values
from workers.ledger.rows import Amount, Transfer, is_lost, read_attempts, transfer
from workers.ledger.settle import revise_ended
from workers.ledger.tables import attempt, request, worker
from workers.ledger.types import Revised

CHUNK = 500
"""Rows a transaction of the sweep or the purge touches at most."""
WORKER_KEPT = timedelta(days=1)
"""A worker's row outlives its last heartbeat by this much, for people who look; its absence means stale too."""

_requests = given(id=sa.BigInteger)
LOCK_BY_ID = (
    sa.select(request.c.id, request.c.ended_at, clock().label("now"))
    .join(_requests, request.c.id == _requests.c.id)
    .order_by(request.c.id)
    .with_for_update(of=request, key_share=True)
)
_WRITE_OFF = (
    sa.update(attempt)
    .where(attempt.c.request == sa.bindparam("of_request"), attempt.c.n == sa.bindparam("of_n"))
    .values(
        state="unconfirmed",
        outcome="lost",
        cost=attempt.c.reserved_usd,
        used_tokens=attempt.c.reserved_tokens,
        settled_at=clock(),
    )
)


async def write_off(connection: Connection, attempts: Iterable[Row]) -> None:
    """Reserved attempts become unconfirmed: spent at their worst case. Their request rows are locked."""
    lost = list(attempts)
    if not lost:
        return
    transfers = []
    for row in lost:
        worst = Amount(row.reserved_usd, row.reserved_tokens)
        transfers.append(Transfer(row.usage_ids, Amount(-worst.usd, -worst.tokens), worst))
    await transfer(connection, transfers)
    await connection.execute(_WRITE_OFF, [{"of_request": row.request, "of_n": row.n} for row in lost])


async def write_off_lost(connection: Connection, requests: Collection[int], stale_s: float) -> None:
    """Write off what is lost among the attempts of these requests, and revise those that have ended."""
    locked = await connection.execute(LOCK_BY_ID, pack_ids(requests))
    attempts = await read_attempts(connection, requests)
    lost = [a for row in locked for a in attempts[row.id] if is_lost(a, row.now, stale_s)]
    await write_off(connection, lost)
    await revise_ended(connection, {row.id for row in locked if row.ended_at is not None} & {a.request for a in lost})


_LOST = (
    sa.select(attempt.c.request)
    .distinct()
    .outerjoin(worker, worker.c.id == attempt.c.worker)
    .where(
        attempt.c.state == sa.literal_column("'reserved'"),  # a literal, so that the partial index fits
        (attempt.c.expires_at <= sa.bindparam("now", type_=attempt.c.expires_at.type))
        | worker.c.beat.is_(None)
        | (worker.c.beat <= sa.bindparam("stale_since", type_=worker.c.beat.type)),
    )
    .limit(CHUNK)
)
_UNPUBLISHED = (
    sa.select(request.c.tenant, request.c.request_id, request.c.revision, request.c.cost_record)
    .where(request.c.revision > request.c.published_revision)
    .order_by(request.c.id)
    .limit(CHUNK)
)


async def find_lost(connection: Connection, stale_s: float) -> list[int]:
    """Requests with a reserved attempt whose owner is lost."""
    now = await read_clock(connection)
    found = await connection.execute(_LOST, {"now": now, "stale_since": now - timedelta(seconds=stale_s)})
    return [id_ for (id_,) in found]


async def find_unpublished(connection: Connection) -> list[Revised]:
    """The newest revisions that no one has published, oldest requests first."""
    found = await connection.execute(_UNPUBLISHED)
    return [Revised(r.tenant, r.request_id, r.revision, r.cost_record) for r in found]


_published = given(tenant=sa.Text, request_id=sa.Text, revision=sa.Integer)
_PUBLISHED = (
    sa.update(request)
    .where(
        request.c.tenant == _published.c.tenant,
        request.c.request_id == _published.c.request_id,
        request.c.published_revision < _published.c.revision,
    )
    .values(published_revision=_published.c.revision)
)


async def mark_published(connection: Connection, revised: Iterable[Revised]) -> None:
    """These revisions are on the topic. A newer one that came meanwhile stays unpublished."""
    newest = {(r.tenant, r.request_id): r.revision for r in sorted(revised, key=lambda r: r.revision)}
    rows = ({"tenant": t, "request_id": i, "revision": revision} for (t, i), revision in sorted(newest.items()))
    await connection.execute(_PUBLISHED, pack(rows))


_FORGET_RESPONSE = sa.update(request).where(request.c.id == _requests.c.id).values(response=None)
_FORGET_ANSWERS = sa.update(attempt).where(attempt.c.request == _requests.c.id, attempt.c.answer.is_not(None)).values(answer=None)


async def purge_chunk(connection: Connection, keep: timedelta) -> int:
    """Forget the responses and answers of up to CHUNK requests older than `keep`; how many those were. Rows and hashes stay, and so
    does the CostRecord: it is the book and holds no text."""
    await plan_by_values(connection)
    now = await read_clock(connection)
    ended = sa.select(request.c.id).where(request.c.response.is_not(None), request.c.ended_at <= now - keep)
    never_ended = sa.select(request.c.id).where(
        request.c.ended_at.is_(None),
        request.c.created_at <= now - keep,
        sa.exists().where(attempt.c.request == request.c.id, attempt.c.answer.is_not(None)),
    )
    due: set[int] = set()
    for which in (ended.order_by(request.c.ended_at), never_ended.order_by(request.c.created_at)):  # as the partial indexes have them
        due.update(id_ for (id_,) in await connection.execute(which.limit(CHUNK)))
    if due:
        rows = pack_ids(due)
        await connection.execute(LOCK_BY_ID, rows)
        await connection.execute(_FORGET_RESPONSE, rows)
        await connection.execute(_FORGET_ANSWERS, rows)
    else:
        await connection.execute(sa.delete(worker).where(worker.c.beat <= now - WORKER_KEPT))
        await alerts.purge(connection, now)
    return len(due)
