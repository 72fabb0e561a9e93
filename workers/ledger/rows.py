"""What the verbs share: claim and lock request rows, read attempts, move the counters.

Lock order everywhere: missing request rows in key order, request rows by id, missing counters in key order, counters by id. An attempt is
guarded by its request's row. What a lock had to wait for is read by a *new* statement, or is itself locked by the one that reads it: of
such rows, and of no others, PostgreSQL gives the version that the wait was for. All errors are the database's own.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert  # renders the same ON CONFLICT for SQLite

from schemas import Facts, Usage
from workers.ledger.connection import Connection, Row
from workers.ledger.given import clock, given, pack, pack_ids
from workers.ledger.rates import rates_of
from workers.ledger.tables import Instant, attempt, budget_usage, price, request, worker
from workers.ledger.types import Answer, Attempt, to_dollars

Key = tuple[str, str]
"""(tenant, request_id)"""


def key_of(facts: Facts) -> Key:
    """The row's key.

    Raises:
        ValueError: no tenant; such a request claims no row.
    """
    if facts.tenant is None:
        raise ValueError("a request without a tenant has no place in the ledger")
    return facts.tenant, facts.request_id


# ---- requests

FACTS = ("tenant", "request_id", "body_hash", "feature", "user", "experiment", "lane", "purpose")
_claims = given(**dict.fromkeys(FACTS, sa.Text), created_at=Instant)
_CLAIM = (
    insert(request)
    .from_select([*FACTS, "created_at"], sa.select(_claims).order_by(_claims.c.tenant, _claims.c.request_id))
    .on_conflict_do_nothing(index_elements=["tenant", "request_id"])
    .returning(request.c.id, request.c.tenant, request.c.request_id, clock().label("now"))
)
_keys = given(tenant=sa.Text, request_id=sa.Text)
_lock = (
    sa.select(request.c.id, request.c.tenant, request.c.request_id, request.c.body_hash, request.c.ended_at, clock().label("now"))
    .join(_keys, (request.c.tenant == _keys.c.tenant) & (request.c.request_id == _keys.c.request_id))
    .order_by(request.c.id)
    .with_for_update(of=request, key_share=True)
)
_LOCK_WITH_BYTES = _lock.add_columns(request.c.response, request.c.cost_record)


async def claim(connection: Connection, facts: Iterable[Facts]) -> Sequence[Row]:
    """Insert the rows that are missing, with the first of several facts of a key. Returns those inserted: id, tenant, request_id, now."""
    first: dict[Key, Facts] = {}
    for each in facts:
        first.setdefault(key_of(each), each)
    return await connection.execute(_CLAIM, pack(facts_row(f) for _, f in sorted(first.items())))


def facts_row(facts: Facts) -> dict[str, Any]:
    """What a request's row begins with."""
    return {name: getattr(facts, name) for name in FACTS} | {"created_at": facts.created_at}


async def lock(connection: Connection, keys: Collection[Key], *, with_bytes: bool = False) -> Sequence[Row]:
    """Lock the rows that exist, in the order of their ids, and read them as they are then."""
    rows = [{"tenant": tenant, "request_id": request_id} for tenant, request_id in keys]
    return await connection.execute(_LOCK_WITH_BYTES if with_bytes else _lock, pack(rows))


# ---- attempts

_requests = given(id=sa.BigInteger)
RATES = tuple(column for column in price.c if column.name not in ("id", "model", "provider"))
_ATTEMPTS = (
    sa.select(attempt, worker.c.beat, *RATES)
    .select_from(_requests)
    .join(attempt, attempt.c.request == _requests.c.id)
    .outerjoin(worker, worker.c.id == attempt.c.worker)
    .outerjoin(price, price.c.id == attempt.c.price_id)
    .order_by(attempt.c.request, attempt.c.n)
)


async def read_attempts(connection: Connection, requests: Collection[int]) -> dict[int, list[Row]]:
    """The attempts of these requests in order, each with its owner's last heartbeat and its rates."""
    found: dict[int, list[Row]] = {request_id: [] for request_id in requests}
    if requests:
        for row in await connection.execute(_ATTEMPTS, pack_ids(requests)):
            found[row.request].append(row)
    return found


def lives_until(row: Row, stale_s: float) -> datetime | None:
    """When a reserved attempt will have lost its owner, if nothing is heard of it again; None: the owner is not known."""
    if row.beat is None:
        return None
    heard: datetime = row.beat + timedelta(seconds=stale_s)
    expires: datetime = row.expires_at
    return min(heard, expires)


def is_lost(row: Row, now: datetime, stale_s: float) -> bool:
    """Reserved, and its owner is stale or has forgotten it."""
    until = lives_until(row, stale_s)
    return row.state == "reserved" and (until is None or until <= now)


def to_attempt(row: Row) -> Attempt:
    return Attempt(
        n=row.n,
        tier=row.tier,
        model=row.model,
        provider=row.provider,
        state=row.state,
        usage=Usage(
            input_tokens=row.input_tokens,
            cached_input_tokens=row.cached_input_tokens,
            cache_write_tokens=row.cache_write_tokens,
            output_tokens=row.output_tokens,
            reasoning_tokens=row.reasoning_tokens,
        ),
        cost=to_dollars(row.cost),
        rates=rates_of(row),
        verdict=row.verdict,
        outcome=row.outcome,
        answer=_unpack_answer(row.answer) if row.answer is not None else None,
        estimated=row.estimated,
    )


def pack_answer(answer: Answer) -> bytes:
    # surrogatepass: a model cut off inside an emoji leaves half of a pair, and the answer must come back as it was.
    fields = {"content": answer.content, "tool_calls": answer.tool_calls, "finish_reason": answer.finish_reason}
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def _unpack_answer(stored: bytes) -> Answer:
    fields = json.loads(stored.decode("utf-8", "surrogatepass"))
    calls = fields["tool_calls"]
    return Answer(fields["content"], None if calls is None else tuple(calls), fields["finish_reason"])


# ---- counters


@dataclass(frozen=True, slots=True)
class Amount:
    """Units of money, and tokens: a counter takes the one of its kind."""

    usd: int = 0
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Transfer:
    """What an attempt's change means for each of its counters."""

    usage_ids: Sequence[int]
    reserved: Amount
    spent: Amount


_moves = given("moves", **dict.fromkeys(("id", "reserved_usd", "reserved_tokens", "spent_usd", "spent_tokens"), sa.BigInteger))
_in_order = (
    sa.select(_moves)
    .join(budget_usage, budget_usage.c.id == _moves.c.id)
    .order_by(budget_usage.c.id)
    .with_for_update(of=budget_usage, key_share=True)
    .subquery("in_order")
)


def _add(moves: sa.FromClause) -> sa.Update:
    def more(column: str) -> sa.ColumnElement[int]:
        usd, tokens = moves.c[f"{column}_usd"], moves.c[f"{column}_tokens"]
        return budget_usage.c[column] + sa.case((budget_usage.c.kind == sa.literal_column("'usd'"), usd), else_=tokens)

    return sa.update(budget_usage).where(budget_usage.c.id == moves.c.id).values(reserved=more("reserved"), spent=more("spent"))


MOVE = _add(_moves)
"""Add what the transfers say to counters that are locked already."""
LOCK_AND_MOVE = _add(_in_order)
"""The same to counters that are not: the inner select locks them by id. What a counter had meanwhile is added to, for an update reads the
newest version of the row it changes."""


def pack_moves(transfers: Iterable[Transfer]) -> dict[str, str]:
    """The parameter of both: what the transfers come to, a row a counter. There may be none."""
    sums: dict[int, list[int]] = {}
    for each in transfers:
        amounts = each.reserved.usd, each.reserved.tokens, each.spent.usd, each.spent.tokens
        for counter in each.usage_ids:
            if known := sums.get(counter):
                known[:] = map(operator.add, known, amounts)
            else:
                sums[counter] = list(amounts)
    columns = _moves.c.keys()
    return pack((dict(zip(columns, (counter, *sums[counter]), strict=True)) for counter in sorted(sums)), "moves")


async def transfer(connection: Connection, transfers: Sequence[Transfer]) -> None:
    """Lock the counters by id and add what the transfers say."""
    if any(each.usage_ids for each in transfers):
        await connection.execute(LOCK_AND_MOVE, pack_moves(transfers))
