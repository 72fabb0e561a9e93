"""`settle`: what calls really cost, and what they said. One transaction a batch; settlements apply one after another in the caller's order.

reserved becomes settled, unconfirmed or abandoned and its reservation is freed; unconfirmed becomes what it turned out to be; anything
else is a repeat and changes nothing. A settlement always lands, also above its reservation and above the limit. When the request has
ended, its CostRecord gets another revision, which the sweep publishes.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from schemas import CostRecord, Usage
from workers.ledger.given import clock, given, pack_ids
from workers.ledger.revision import revise
from workers.ledger.rows import Amount, Transfer, lock, pack_answer, read_attempts, to_attempt, transfer
from workers.ledger.tables import attempt, request
from workers.ledger.types import Settled, Settlement, to_units

_requests = given(id=sa.BigInteger)
_STATES = sa.select(
    attempt.c.request,
    attempt.c.n,
    attempt.c.state,
    attempt.c.reserved_usd,
    attempt.c.reserved_tokens,
    attempt.c.cost,
    attempt.c.used_tokens,
    attempt.c.usage_ids,
).join(_requests, attempt.c.request == _requests.c.id)

_SETTLED = ("state", "cost", "used_tokens", "verdict", "outcome", "answer", "estimated", *Usage.model_fields)
_SETTLE = (
    sa.update(attempt)
    .where(attempt.c.request == sa.bindparam("of_request"), attempt.c.n == sa.bindparam("of_n"))
    .values({name: sa.bindparam(f"new_{name}") for name in _SETTLED} | {"settled_at": clock()})
)


async def settle_batch(connection: AsyncConnection, settlements: list[Settlement]) -> list[Settled]:
    locked = await lock(connection, {(s.tenant, s.request_id) for s in settlements})
    ids = {(r.tenant, r.request_id): r.id for r in locked}
    ended = {r.id for r in locked if r.ended_at is not None}
    rows = {(a.request, a.n): a for a in await connection.execute(_STATES, pack_ids(ids.values()))} if ids else {}
    states = {key: row.state for key, row in rows.items()}
    booked = {key: Amount(row.cost, row.used_tokens) for key, row in rows.items()}
    changed: dict[tuple[int, int], dict[str, Any]] = {}
    transfers: list[Transfer] = []
    answers: list[Settled] = []
    for each in settlements:
        key = (ids.get((each.tenant, each.request_id), 0), each.n)
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
        # Nobody will ask for the answer of an ended request, and the purge has perhaps been here already.
        changed[key] = _values(each, key, amount, keep_answer=key[0] not in ended)
        answers.append(Settled(before, overrun=amount.usd > reserved.usd or amount.tokens > reserved.tokens))
    await transfer(connection, transfers)
    if changed:
        await connection.execute(_SETTLE, list(changed.values()))
    await revise_ended(connection, ended & {request for request, _ in changed})
    return answers


def _amount(settlement: Settlement, reserved: Amount) -> Amount:
    """What it counts for: cut off is the worst case, not sent is nothing."""
    if settlement.state == "unconfirmed":
        return reserved
    if settlement.state == "abandoned":
        return Amount()
    return Amount(to_units(settlement.cost), settlement.usage.input_tokens + settlement.usage.output_tokens)


def _values(settlement: Settlement, key: tuple[int, int], amount: Amount, *, keep_answer: bool) -> dict[str, Any]:
    known = settlement.state == "settled"
    answer = settlement.answer if known and keep_answer else None
    values = {
        "state": settlement.state,
        "cost": amount.usd,
        "used_tokens": amount.tokens,
        "verdict": settlement.verdict,
        "outcome": settlement.outcome,
        "answer": None if answer is None else pack_answer(answer),
        "estimated": settlement.estimated,
        **(settlement.usage if known else Usage()).model_dump(),
    }
    return {"of_request": key[0], "of_n": key[1]} | {f"new_{name}": value for name, value in values.items()}


_RECORDS = sa.select(request.c.id, request.c.cost_record).join(_requests, request.c.id == _requests.c.id)
_REVISE = (
    sa.update(request)
    .where(request.c.id == sa.bindparam("of_request"))
    .values({name: sa.bindparam(f"new_{name}") for name in ("cost_record", "revision", "cost", "unconfirmed", "routing")})
)


async def revise_ended(connection: AsyncConnection, requests: Collection[int]) -> None:
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
