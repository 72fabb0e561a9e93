"""`settle`: what calls really cost, and what they said. One transaction a batch, after one for what is ordinary in it (`ordinary.py`); an
attempt's settlements apply one after another in the caller's order.

reserved becomes settled, unconfirmed or abandoned and its reservation is freed; unconfirmed becomes what it turned out to be; anything
else is a repeat and changes nothing. A settlement always lands, also above its reservation and above the limit. When the request has
ended, its CostRecord gets another revision, which the sweep publishes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.types import TypeEngine

from schemas import CostRecord, Usage
from schemas.cost import AttemptState
from workers.ledger.connection import Connection, Row
from workers.ledger.given import Together, clock, given, pack, pack_ids, piece_of
from workers.ledger.revision import revise
from workers.ledger.rows import LOCK_AND_MOVE, Amount, Transfer, pack_answer, pack_moves, read_attempts, to_attempt
from workers.ledger.tables import attempt, request
from workers.ledger.types import Answer, Settled, Settlement, to_units

AttemptKey = tuple[str, str, int]
"""(tenant, request_id, n)"""
_Change = tuple[Row, Settlement, Amount]
"""An attempt as it was, and what it becomes."""

_booked = given(tenant=sa.Text, request_id=sa.Text, n=sa.Integer)
LOCK: sa.Select[Any] = (
    sa.select(
        request.c.tenant,
        request.c.request_id,
        request.c.ended_at,
        attempt.c.request,
        attempt.c.n,
        attempt.c.state,
        attempt.c.reserved_usd,
        attempt.c.reserved_tokens,
        attempt.c.cost,
        attempt.c.used_tokens,
        attempt.c.usage_ids,
    )
    .select_from(_booked)
    .join(request, (request.c.tenant == _booked.c.tenant) & (request.c.request_id == _booked.c.request_id))
    .join(attempt, (attempt.c.request == request.c.id) & (attempt.c.n == _booked.c.n))
    .order_by(request.c.id, attempt.c.n)
    .with_for_update(of=[request, attempt], key_share=True)
)
"""Locks the requests by id and reads the attempts that are settled. They were granted before, so they are here; and each is locked as well,
after its request, so that a lock that had to wait gives its newest version."""

SETTLED: dict[str, type[TypeEngine[Any]]] = {
    "state": sa.Text,
    "cost": sa.BigInteger,
    "used_tokens": sa.BigInteger,
    "verdict": sa.Text,
    "outcome": sa.Text,
    "estimated": sa.Boolean,
    **dict.fromkeys(Usage.model_fields, sa.BigInteger),
}
_changes = given(request=sa.BigInteger, n=sa.Integer, **SETTLED, answer_from=sa.Integer, answer_size=sa.Integer)
_BOOK = Together(
    LOCK_AND_MOVE,
    sa.update(attempt)
    .where(attempt.c.request == _changes.c.request, attempt.c.n == _changes.c.n)
    .values({name: _changes.c[name] for name in SETTLED} | {"answer": piece_of(_changes, "answer", "answers"), "settled_at": clock()}),
)


async def settle_batch(connection: Connection, settlements: list[Settlement]) -> list[Settled]:
    keys = {(s.tenant, s.request_id, s.n) for s in settlements}
    found = await connection.execute(LOCK, pack({"tenant": t, "request_id": r, "n": n} for t, r, n in keys))
    rows = {(row.tenant, row.request_id, row.n): row for row in found}
    states: dict[AttemptKey, AttemptState] = {key: row.state for key, row in rows.items()}
    booked = {key: Amount(row.cost, row.used_tokens) for key, row in rows.items()}
    changed: dict[AttemptKey, _Change] = {}
    transfers: list[Transfer] = []
    answers: list[Settled] = []
    for each in settlements:
        key = (each.tenant, each.request_id, each.n)
        before = states.get(key)
        row = rows.get(key)
        if row is None or before not in ("reserved", "unconfirmed") or (before == each.state == "unconfirmed"):
            answers.append(Settled(before, overrun=False))
            continue
        reserved = Amount(row.reserved_usd, row.reserved_tokens)
        amount = _amount(each, reserved)
        freed = Amount(-reserved.usd, -reserved.tokens) if before == "reserved" else Amount()
        more = Amount(amount.usd - booked[key].usd, amount.tokens - booked[key].tokens)
        transfers.append(Transfer(row.usage_ids, freed, more))
        states[key], booked[key] = each.state, amount
        changed[key] = (row, each, amount)
        answers.append(Settled(before, overrun=amount.usd > reserved.usd or amount.tokens > reserved.tokens))
    if changed:
        changes = pack_changes(
            ({"request": row.request, "n": row.n} | changes_of(each, amount), _kept(each, row)) for row, each, amount in changed.values()
        )
        await _BOOK.execute(connection, pack_moves(transfers), changes)
    await revise_ended(connection, {row.request for row, _, _ in changed.values() if row.ended_at is not None})
    return answers


def _amount(settlement: Settlement, reserved: Amount) -> Amount:
    """What it counts for: cut off is the worst case, not sent is nothing."""
    if settlement.state == "unconfirmed":
        return reserved
    return Amount() if settlement.state == "abandoned" else amount_of(settlement)


def _kept(settlement: Settlement, row: Row) -> Answer | None:
    """Nobody will ask for the answer of an ended request, and the purge has perhaps been here already."""
    return settlement.answer if settlement.state == "settled" and row.ended_at is None else None


def amount_of(settlement: Settlement) -> Amount:
    """What a call counts for whose cost is known."""
    return Amount(to_units(settlement.cost), settlement.usage.input_tokens + settlement.usage.output_tokens)


def changes_of(settlement: Settlement, amount: Amount) -> dict[str, Any]:
    """The attempt's new values, by column; without the answer, which is bytes."""
    usage = settlement.usage if settlement.state == "settled" else Usage()
    return {
        "state": settlement.state,
        "cost": amount.usd,
        "used_tokens": amount.tokens,
        "verdict": settlement.verdict,
        "outcome": settlement.outcome,
        "estimated": settlement.estimated,
        **{name: getattr(usage, name) for name in Usage.model_fields},
    }


def pack_changes(changes: Iterable[tuple[dict[str, Any], Answer | None]]) -> dict[str, Any]:
    """The rows, and their answers one after another: JSON holds no bytes."""
    rows, answers, size = [], [], 0
    for row, answer in changes:
        if answer is not None:
            answers.append(pack_answer(answer))
            row |= {"answer_from": size + 1, "answer_size": len(answers[-1])}
            size += len(answers[-1])
        rows.append(row)
    return pack(rows) | {"answers": b"".join(answers)}


_requests = given(id=sa.BigInteger)
_RECORDS = sa.select(request.c.id, request.c.cost_record).join(_requests, request.c.id == _requests.c.id)
_REVISE = (
    sa.update(request)
    .where(request.c.id == sa.bindparam("of_request"))
    .values({name: sa.bindparam(f"new_{name}") for name in ("cost_record", "revision", "cost", "unconfirmed", "routing")})
)


async def revise_ended(connection: Connection, requests: Collection[int]) -> None:
    """The next revision of these ended requests, from their attempts as they are now. The request rows are locked."""
    if not requests:
        return
    attempts = await read_attempts(connection, requests)
    revised = []
    for row in await connection.execute(_RECORDS, pack_ids(requests)):
        record = revise(CostRecord.model_validate_json(row.cost_record), [to_attempt(a) for a in attempts[row.id]])
        revised.append(
            {
                "of_request": row.id,
                "new_cost_record": record.model_dump_json().encode(),
                "new_revision": record.revision,
                "new_cost": to_units(record.cost_usd),
                "new_unconfirmed": to_units(record.unconfirmed_usd),
                "new_routing": to_units(record.saved_usd.routing),
            }
        )
    await connection.execute(_REVISE, revised)
