"""`end`: this is how requests ended. One transaction a batch, after those for what is ordinary in it (`ordinary.py`); endings of a
request come one after another in the caller's order, and the first wins.

The statement is built from books that nobody changes meanwhile, and its bytes are stored as they will be published, so that every repeat
publishes the same. Attempts whose owner is lost are written off first; those of live owners stay reserved, and their settlement makes a
revision of the CostRecord.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from schemas import Facts
from workers.ledger.connection import Connection, Row
from workers.ledger.rows import Key, claim, is_lost, key_of, lock, read_attempts, to_attempt
from workers.ledger.sweep import write_off
from workers.ledger.tables import request
from workers.ledger.types import Books, Closed, Conflict, Ending, Statement, Stored, Used, to_units

ENDED = (
    *("status", "reason_code", "tier", "model", "source", "response", "cost_record", "ended_at", "revision", "published_revision"),
    *("cost", "unconfirmed", "baseline", "routing", "cache", "compression", "batch"),
)
_END = (
    sa.update(request)
    .where(request.c.id == sa.bindparam("of_request"))
    .values({name: sa.bindparam(f"new_{name}", type_=request.c[name].type) for name in ENDED})
)


@dataclass(frozen=True, slots=True)
class _Request:
    """A request's row, locked."""

    id: int
    body_hash: str
    new: bool = False
    """Claimed just now: there are no attempts."""
    ended: bool = False
    response: bytes | None = None
    cost_record: bytes = b""


async def end_batch(connection: Connection, endings: list[Ending], *, stale_s: float) -> list[Closed]:
    rows, now = await _load(connection, endings)
    attempts = await _attempts(connection, [row.id for row in rows.values() if not (row.new or row.ended)], now, stale_s)
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
        elif row.ended:
            answers.append(Used() if row.response is None else Stored(row.response, row.cost_record, first=False))
        else:
            books = Books(tuple(map(to_attempt, attempts.get(row.id, ()))), now, revision=1)
            statement = ending.state(books)
            values = values_of(ending, statement, books)
            changed.append({"of_request": row.id} | {f"new_{name}": value for name, value in values.items()})
            answers.append(Stored(statement.response, statement.cost_record, first=True))
            stored[key] = Stored(statement.response, statement.cost_record, first=False)
    if changed:
        await connection.execute(_END, changed)
    return answers


async def _load(connection: Connection, endings: list[Ending]) -> tuple[dict[Key, _Request], datetime]:
    """The requests, claimed if they are not there, and locked."""
    facts: dict[Key, Facts] = {}
    for ending in endings:
        facts.setdefault(key_of(ending.facts), ending.facts)
    # What a model answered was opened, so its row is there: in the ordinary case nothing is tried in vain.
    unopened = [each.facts for each in endings if each.source != "model"]
    claimed = await claim(connection, unopened) if unopened else ()
    new = {(r.tenant, r.request_id): r for r in claimed}
    older = facts.keys() - new.keys()
    locked = await lock(connection, older, with_bytes=True) if older else ()
    if len(locked) < len(older):  # it was there once: the database was restored
        await claim(connection, facts.values())
        new, locked = {}, await lock(connection, facts.keys(), with_bytes=True)
    rows = {key: _Request(r.id, facts[key].body_hash, new=True) for key, r in new.items()}
    for r in locked:
        rows[r.tenant, r.request_id] = _Request(
            r.id, r.body_hash, ended=r.ended_at is not None, response=r.response, cost_record=r.cost_record
        )
    return rows, next(r.now for r in (*locked, *new.values()))


async def _attempts(connection: Connection, requests: list[int], now: datetime, stale_s: float) -> dict[int, list[Row]]:
    """Of these requests; those whose owner is lost are written off."""
    attempts = await read_attempts(connection, requests)
    lost = [a for of_one in attempts.values() for a in of_one if is_lost(a, now, stale_s)]
    if lost:
        await write_off(connection, lost)
        attempts |= await read_attempts(connection, {a.request for a in lost})
    return attempts


def values_of(ending: Ending, statement: Statement, books: Books) -> dict[str, Any]:
    """What a request's row becomes, by column."""
    return {
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
