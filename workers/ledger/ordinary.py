"""The ordinary case of each verb on PostgreSQL, in statements that are a transaction each: three round trips are most of a verb's time.

`open`: a new request whose call no budget counts. `settle`: such a call while its request is under way. In both, all that has to be looked
at fits in the conditions of one statement. `end`: a request with an accepted answer, and no call of it open or unconfirmed. Nobody changes
its attempts any more, for `open` grants no other after an accepted one: they are read without a lock, and one statement ends the request if
it has not ended meanwhile. Whatever else is asked is left out, untouched, and the caller asks the verbs in `open.py`, `settle.py` and
`end.py`, where all the rules are. Errors are the database's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from workers.ledger.connection import Connection, Row
from workers.ledger.end import ENDED
from workers.ledger.given import clock, given, pack, piece_of
from workers.ledger.open import RESERVED, attempt_row, price_of
from workers.ledger.rows import FACTS, RATES, Key, facts_row, key_of, to_attempt
from workers.ledger.settle import LOCK, SETTLED, AttemptKey, amount_of, changes_of, pack_changes
from workers.ledger.tables import Instant, attempt, price, request
from workers.ledger.types import Ask, Books, Ending, Settled, Settlement

_asks = given(**dict.fromkeys(FACTS, sa.Text), created_at=Instant, deadline_at=Instant, ttl_s=sa.Float, **RESERVED)
_claimed = (
    insert(request)
    .from_select(
        [*FACTS, "created_at"],
        sa.select(*(_asks.c[name] for name in FACTS), _asks.c.created_at)
        .where(_asks.c.deadline_at > clock())
        .order_by(_asks.c.tenant, _asks.c.request_id),
    )
    .on_conflict_do_nothing(index_elements=["tenant", "request_id"])
    .returning(request.c.id, request.c.tenant, request.c.request_id)
    .cte("claimed")
)
_made = {
    "request": _claimed.c.id,
    "opened_at": clock(),
    "expires_at": clock() + _asks.c.ttl_s * sa.literal_column("interval '1 second'"),
}
_reserved = (
    sa.insert(attempt)
    .from_select(
        list(RESERVED),
        sa.select(*(_made.get(name, _asks.c[name]) for name in RESERVED)).join(
            _claimed, (_claimed.c.tenant == _asks.c.tenant) & (_claimed.c.request_id == _asks.c.request_id)
        ),
    )
    .cte("reserved")
)
_GRANT_NEW = sa.select(_claimed.c.tenant, _claimed.c.request_id).add_cte(_reserved)


def candidates(asks: Iterable[Ask]) -> dict[Key, Ask]:
    """Those that are for the first attempt of a request and that no budget counts; of several of a request the first."""
    first: dict[Key, Ask] = {}
    for ask in asks:
        first.setdefault(key_of(ask.facts), ask)
    return {key: ask for key, ask in first.items() if not (ask.holds or ask.after) and ask.max_attempts > 0}


async def grant_new(connection: Connection, asks: Iterable[Ask], *, owner: str) -> set[Key]:
    """Claim the requests that are new, with their first attempt reserved; which they are. `asks` are `candidates`, and their prices are
    stored."""
    rows = []
    for ask in asks:
        rates = price_of(ask)
        reserved = attempt_row(ask, n=1, usage_ids=[]) | {"worker": owner, "price_id": rates and rates["id"]}
        rows.append(facts_row(ask.facts) | reserved | {"deadline_at": ask.facts.deadline_at, "ttl_s": ask.ttl_s})
    return {(tenant, request_id) for tenant, request_id in await connection.execute(_GRANT_NEW, pack(rows))}


_booked = given(tenant=sa.Text, request_id=sa.Text, n=sa.Integer, **SETTLED, answer_from=sa.Integer, answer_size=sa.Integer)
_locked = LOCK.cte("locked")
_SETTLE_RESERVED = (
    sa.update(attempt)
    .where(
        _locked.c.ended_at.is_(None),
        _locked.c.state == "reserved",
        sa.func.cardinality(_locked.c.usage_ids) == 0,
        _locked.c.tenant == _booked.c.tenant,
        _locked.c.request_id == _booked.c.request_id,
        _locked.c.n == _booked.c.n,
        attempt.c.request == _locked.c.request,
        attempt.c.n == _locked.c.n,
    )
    .values({name: _booked.c[name] for name in SETTLED} | {"answer": piece_of(_booked, "answer", "answers"), "settled_at": clock()})
    .returning(_booked.c.tenant, _booked.c.request_id, _booked.c.n, attempt.c.reserved_usd, attempt.c.reserved_tokens)
)
"""What they are is looked at when they are locked, and is then what another transaction has left. As conditions of the look-up, "under way"
and "reserved" would have PostgreSQL read the indexes of all that are so, when it has not counted lately."""


async def settle_reserved(connection: Connection, settlements: Mapping[AttemptKey, Settlement]) -> dict[AttemptKey, Settled]:
    """Settle those whose attempt is reserved and in no counter, and whose request has not ended. All say what their call cost."""
    amounts = {key: amount_of(each) for key, each in settlements.items()}
    changes = (
        ({"tenant": key[0], "request_id": key[1], "n": key[2]} | changes_of(each, amounts[key]), each.answer)
        for key, each in settlements.items()
    )
    settled = {}
    for tenant, request_id, n, usd, tokens in await connection.execute(_SETTLE_RESERVED, pack_changes(changes)):
        amount = amounts[tenant, request_id, n]
        settled[tenant, request_id, n] = Settled("reserved", overrun=amount.usd > usd or amount.tokens > tokens)
    return settled


_keys = given(tenant=sa.Text, request_id=sa.Text)
_UNDER_WAY = (
    sa.select(attempt, *RATES, request.c.tenant, request.c.request_id, request.c.body_hash, request.c.ended_at, clock().label("now"))
    .select_from(_keys)
    .join(request, (request.c.tenant == _keys.c.tenant) & (request.c.request_id == _keys.c.request_id))
    .join(attempt, attempt.c.request == request.c.id)
    .outerjoin(price, price.c.id == attempt.c.price_id)
    .order_by(attempt.c.request, attempt.c.n)
)


async def read_frozen(connection: Connection, endings: Mapping[Key, Ending]) -> dict[Key, tuple[int, Books]]:
    """Of those requests whose attempts nobody changes any more: the row's id, and the books. All were answered by a model."""
    found: dict[Key, list[Row]] = {}
    for row in await connection.execute(_UNDER_WAY, pack({"tenant": tenant, "request_id": id_} for tenant, id_ in endings)):
        found.setdefault((row.tenant, row.request_id), []).append(row)
    return {
        key: (rows[0].request, Books(tuple(map(to_attempt, rows)), rows[0].now, revision=1))
        for key, rows in found.items()
        if rows[0].ended_at is None
        and rows[0].body_hash == endings[key].facts.body_hash
        and all(row.state in ("settled", "abandoned") for row in rows)
        and any(row.state == "settled" and row.verdict == "accepted" for row in rows)
    }


_BYTES = ("response", "cost_record")
_ended = given(
    id=sa.BigInteger,
    **{name: request.c[name].type for name in ENDED if name not in _BYTES},
    **{f"{name}_{what}": sa.Integer for name in _BYTES for what in ("from", "size")},
)
_to_end = (
    sa.select(request.c.id, request.c.ended_at)
    .join(_ended, request.c.id == _ended.c.id)
    .order_by(request.c.id)
    .with_for_update(of=request, key_share=True)
    .cte("to_end")
)
_END_FROZEN = (
    sa.update(request)
    .where(request.c.id == _ended.c.id, _to_end.c.id == _ended.c.id, _to_end.c.ended_at.is_(None))
    .values({name: piece_of(_ended, name, "bytes") if name in _BYTES else _ended.c[name] for name in ENDED})
    .returning(request.c.id)
)


async def end_frozen(connection: Connection, values: Iterable[dict[str, Any]]) -> set[int]:
    """End these requests by their rows' ids; which of them had not ended yet."""
    rows, pieces, size = [], [], 0
    for given_to_it in values:
        row = dict(given_to_it)
        for name in _BYTES:
            pieces.append(row.pop(name))
            row |= {f"{name}_from": size + 1, f"{name}_size": len(pieces[-1])}
            size += len(pieces[-1])
        rows.append(row)
    return {id_ for (id_,) in await connection.execute(_END_FROZEN, pack(rows) | {"bytes": b"".join(pieces)})}
