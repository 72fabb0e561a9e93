"""The ordinary case of `open` and of `settle` on PostgreSQL, in one statement each, which is a transaction by itself.

Ordinary is a new request whose call no budget counts, and the settlement of such a call while its request is under way: what has to be
looked at fits in one statement's conditions, and three round trips less is most of a verb's time. Whatever else is asked is left out of the
answer, untouched, and the caller asks the verbs in `open.py` and `settle.py`, where all the rules are. Errors are the database's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from workers.ledger.connection import Connection
from workers.ledger.given import clock, given, pack
from workers.ledger.open import RESERVED, attempt_row, price_of
from workers.ledger.rows import FACTS, Key, facts_row, key_of
from workers.ledger.settle import SETTLED, AttemptKey, amount_of, answer_of, changes_of, pack_changes
from workers.ledger.tables import Instant, attempt, request
from workers.ledger.types import Ask, Settled, Settlement

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
        price = price_of(ask)
        reserved = attempt_row(ask, n=1, usage_ids=[]) | {"worker": owner, "price_id": price and price["id"]}
        rows.append(facts_row(ask.facts) | reserved | {"deadline_at": ask.facts.deadline_at, "ttl_s": ask.ttl_s})
    return {(tenant, request_id) for tenant, request_id in await connection.execute(_GRANT_NEW, pack(rows))}


_booked = given(tenant=sa.Text, request_id=sa.Text, n=sa.Integer, **SETTLED, answer_from=sa.Integer, answer_size=sa.Integer)
_locked = (
    sa.select(request.c.id, request.c.tenant, request.c.request_id)
    .join(_booked, (request.c.tenant == _booked.c.tenant) & (request.c.request_id == _booked.c.request_id))
    .where(request.c.ended_at.is_(None))
    .order_by(request.c.id)
    .with_for_update(of=request, key_share=True)
    .cte("locked")
)
_SETTLE_RESERVED = (
    sa.update(attempt)
    .where(
        _locked.c.tenant == _booked.c.tenant,
        _locked.c.request_id == _booked.c.request_id,
        attempt.c.request == _locked.c.id,
        attempt.c.n == _booked.c.n,
        attempt.c.state == "reserved",
        sa.func.cardinality(attempt.c.usage_ids) == 0,
    )
    .values({name: _booked.c[name] for name in SETTLED} | {"answer": answer_of(_booked), "settled_at": clock()})
    .returning(_booked.c.tenant, _booked.c.request_id, _booked.c.n, attempt.c.reserved_usd, attempt.c.reserved_tokens)
)
"""A request that ends meanwhile is locked by who ends it, and has ended when the lock is ours: then it is left out. The same for an attempt
that was written off."""


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
