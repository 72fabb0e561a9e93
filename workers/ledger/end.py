"""`end`: this is how requests ended. One transaction a batch, one ending after another in the caller's order; the first of a request wins.

The statement is built from the books inside the transaction and its bytes are stored as they will be published, so that every repeat
publishes the same. Attempts whose owner is lost are written off first; those of live owners stay reserved, and their settlement makes a
revision of the CostRecord.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from workers.ledger.rows import Key, claim, is_lost, key_of, lock, read_attempts, to_attempt
from workers.ledger.sweep import write_off
from workers.ledger.tables import request
from workers.ledger.types import Books, Closed, Conflict, Ending, Statement, Stored, Used, to_units

_ENDED = (
    *("status", "reason_code", "tier", "model", "source", "response", "cost_record", "ended_at", "revision", "published_revision"),
    *("cost", "unconfirmed", "baseline", "routing", "cache", "compression", "batch"),
)
_END = (
    sa.update(request)
    .where(request.c.id == sa.bindparam("of_request"))
    .values({name: sa.bindparam(f"new_{name}", type_=request.c[name].type) for name in _ENDED})
)


async def end_batch(connection: AsyncConnection, endings: list[Ending], *, stale_s: float) -> list[Closed]:
    await claim(connection, (e.facts for e in endings))
    locked = await lock(connection, {key_of(e.facts) for e in endings}, with_bytes=True)
    rows = {(r.tenant, r.request_id): r for r in locked}
    now: datetime = locked[0].now
    attempts = await read_attempts(connection, [r.id for r in locked if r.ended_at is None])
    lost = [a for of_one in attempts.values() for a in of_one if is_lost(a, now, stale_s)]
    if lost:
        await write_off(connection, lost)
        attempts |= await read_attempts(connection, {a.request for a in lost})
    stored: dict[Key, Stored] = {}
    changed: list[dict[str, Any]] = []
    answers: list[Closed] = []
    for ending in endings:
        key = key_of(ending.facts)
        row = rows[key]
        if row.body_hash != ending.facts.body_hash:
            answers.append(Conflict())
        elif key in stored:
            answers.append(stored[key])
        elif row.ended_at is not None:
            answers.append(Used() if row.response is None else Stored(row.response, row.cost_record, first=False))
        else:
            books = Books(tuple(map(to_attempt, attempts[row.id])), now, revision=1)
            statement = ending.state(books)
            changed.append(_values(ending, statement, books, row.id))
            answers.append(Stored(statement.response, statement.cost_record, first=True))
            stored[key] = Stored(statement.response, statement.cost_record, first=False)
    if changed:
        await connection.execute(_END, changed)
    return answers


def _values(ending: Ending, statement: Statement, books: Books, request_id: int) -> dict[str, Any]:
    values = {
        "status": ending.status,
        "reason_code": ending.reason_code,
        "tier": ending.tier,
        "model": ending.model,
        "source": ending.source,
        "response": statement.response,
        "cost_record": statement.cost_record,
        "ended_at": books.ended_at,
        "revision": books.revision,
        "published_revision": books.revision,  # whoever ends a request publishes it, or is redelivered and publishes the stored bytes
        "cost": to_units(statement.cost),
        "unconfirmed": to_units(statement.unconfirmed),
        "baseline": to_units(statement.baseline),
        "routing": to_units(statement.saved.routing),
        "cache": to_units(statement.saved.cache),
        "compression": to_units(statement.saved.compression),
        "batch": to_units(statement.saved.batch),
    }
    return {"of_request": request_id} | {f"new_{name}": value for name, value in values.items()}
