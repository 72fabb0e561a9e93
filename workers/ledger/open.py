"""`open`: may these calls be made? All asks of a batch in one transaction, after one for what is ordinary in it (`ordinary.py`), are
answered as if one after another in the caller's order. Where the second fails, the first stands: the same asks get the same grants.

A grant is an attempt row with its reservation in every counter, written before the call is made; all scopes have room or none is touched.
A reserved attempt whose owner is lost is first written off as unconfirmed, in a transaction of its own; then the asks are asked again.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import ROUND_FLOOR, Decimal
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.types import TypeEngine

from workers.ledger.budgets import window
from workers.ledger.connection import Connection
from workers.ledger.given import Together, given, pack, pack_ids
from workers.ledger.rates import price_row
from workers.ledger.rows import (
    MOVE,
    Amount,
    Key,
    Transfer,
    claim,
    is_lost,
    key_of,
    lives_until,
    lock,
    pack_moves,
    read_attempts,
    to_attempt,
)
from workers.ledger.tables import Ids, Instant, attempt, budget_usage, price
from workers.ledger.types import (
    UNIT,
    Answered,
    Ask,
    Attempt,
    Conflict,
    Ended,
    Exhausted,
    Granted,
    Held,
    Hold,
    Late,
    Opened,
    Refused,
    to_dollars,
    to_units,
)

HELD_S = (0.05, 2.0)
"""Bounds of `Held.seconds`: a waiter learns soon of an owner that just finishes, and does not ask in a tight loop."""

CounterKey = tuple[str, str, str, datetime]
"""(scope, kind, window, start)"""


class Lost(Exception):
    """Attempts of these requests must be written off before their asks can be answered."""

    def __init__(self, requests: list[int]) -> None:
        super().__init__(f"{len(requests)} requests with lost attempts")
        self.requests = requests


class Forgotten(Exception):
    """A counter that this process saw committed is not there, or is another (the database was restored): `Seen` must be dropped."""


@dataclass(slots=True)
class Seen:
    """Rows this process knows to be committed, so that it need not insert them or look for them. Only a shortcut."""

    counters: dict[CounterKey, int] = field(default_factory=dict)
    """Their ids."""
    prices: set[str] = field(default_factory=set)

    def add(self, counters: Mapping[CounterKey, int], prices: set[str]) -> None:
        if len(self.counters) > 100_000:
            self.counters.clear()
        if len(self.prices) > 100_000:
            self.prices.clear()
        self.counters.update(counters)
        self.prices.update(prices)


@dataclass(slots=True)
class _Reserved:
    n: int
    asker: tuple[str, int]
    until: datetime


@dataclass(slots=True)
class _Request:
    """A request's row as this transaction sees and changes it."""

    id: int
    body_hash: str
    ended: bool = False
    attempts: list[Attempt] = field(default_factory=list)
    """Without the reserved one."""
    reserved: _Reserved | None = None


@dataclass(slots=True)
class _Counter:
    id: int
    used: int
    """What this transaction has granted so far included."""


@dataclass(slots=True)
class _Place:
    """A hold where it counts, in the units of its counter."""

    hold: Hold
    key: CounterKey
    amount: int
    limit: int


async def open_batch(
    connection: Connection, asks: list[Ask], *, owner: str, stale_s: float, seen: Seen
) -> tuple[list[Opened], dict[CounterKey, int], set[str]]:
    """The answers, and the counters (with their ids) and prices that exist once this is committed.

    Raises:
        Lost, Forgotten: see there; the caller acts on it and calls again.
    """
    requests, now = await _load(connection, asks, stale_s)
    prices = await add_prices(connection, asks, seen)
    places = [_places(ask, now) for ask in asks]
    counters = await _lock_counters(connection, {place.key for of_one in places for place in of_one}, seen)
    answers: list[Opened] = []
    granted: list[dict[str, Any]] = []
    transfers: list[Transfer] = []
    for ask, of_one, price_id in zip(asks, places, prices, strict=True):
        row = requests[key_of(ask.facts)]
        answer = _answer(ask, row, of_one, counters, now, owner)
        answers.append(answer)
        if isinstance(answer, Granted) and row.reserved is None:
            until = now + timedelta(seconds=min(ask.ttl_s, stale_s))
            row.reserved = _Reserved(answer.n, (owner, ask.seq), until)
            # Once in each counter: two budgets of a policy may share one.
            mine = {place.key: place.amount for place in of_one}
            for key, amount in mine.items():
                counters[key].used += amount
            reserved = attempt_row(ask, n=answer.n, usage_ids=[counters[key].id for key in mine])
            times = {"opened_at": now, "expires_at": now + timedelta(seconds=ask.ttl_s)}
            granted.append(reserved | times | {"request": row.id, "worker": owner, "price_id": price_id})
            transfers.append(Transfer(reserved["usage_ids"], Amount(reserved["reserved_usd"], ask.tokens), Amount()))
    if granted:
        await _RESERVE.execute(connection, pack_moves(transfers), pack(granted))
    return answers, {key: counter.id for key, counter in counters.items()}, {each for each in prices if each is not None}


def _places(ask: Ask, now: datetime) -> list[_Place]:
    usd = to_units(ask.usd)
    return [
        _Place(hold, _counter_key(hold, now), usd if hold.kind == "usd" else ask.tokens, _limit(hold.kind, hold.limit))
        for hold in ask.holds
    ]


def _counter_key(hold: Hold, now: datetime) -> CounterKey:
    return hold.scope, hold.kind, hold.window, window(hold.window, hold.timezone, now)[0]


@lru_cache(maxsize=4096)
def _limit(kind: str, limit: Decimal | int) -> int:
    return int((Decimal(limit) / UNIT).to_integral_value(ROUND_FLOOR)) if kind == "usd" else int(limit)


async def _load(connection: Connection, asks: list[Ask], stale_s: float) -> tuple[dict[Key, _Request], datetime]:
    hashes: dict[Key, str] = {}
    for ask in asks:
        hashes.setdefault(key_of(ask.facts), ask.facts.body_hash)
    inserted = await claim(connection, (ask.facts for ask in asks))
    requests = {(r.tenant, r.request_id): _Request(r.id, hashes[r.tenant, r.request_id]) for r in inserted}
    older = hashes.keys() - requests.keys()
    if not older:
        return requests, inserted[0].now
    locked = await lock(connection, older)
    now: datetime = locked[0].now
    attempts = await read_attempts(connection, [r.id for r in locked if r.ended_at is None])
    lost = []
    for row in locked:
        request = _Request(row.id, row.body_hash, row.ended_at is not None)
        for each in attempts.get(row.id, ()):
            if each.state != "reserved":
                request.attempts.append(to_attempt(each))
            elif is_lost(each, now, stale_s):
                lost.append(row.id)
            else:
                request.reserved = _Reserved(each.n, (each.worker, each.seq), lives_until(each, stale_s) or now)
        requests[row.tenant, row.request_id] = request
    if lost:
        raise Lost(lost)
    return requests, now


def _answer(
    ask: Ask, row: _Request, places: Sequence[_Place], counters: Mapping[CounterKey, _Counter], now: datetime, owner: str
) -> Opened:
    known = tuple(row.attempts)
    if row.body_hash != ask.facts.body_hash:
        return Conflict()
    if row.ended:
        return Ended()
    if row.reserved is not None:
        if row.reserved.asker == (owner, ask.seq):
            return Granted(row.reserved.n, known)
        return Held(min(max((row.reserved.until - now).total_seconds(), HELD_S[0]), HELD_S[1]))
    sent = [a for a in known if a.state != "abandoned" and a.verdict is not None]
    if any(a.verdict == "accepted" or a.n > ask.after for a in sent):  # `ordinary.read_frozen` counts on it: after this, nothing is granted
        return Answered(known)
    if sum(a.state != "abandoned" for a in known) >= ask.max_attempts:
        return Exhausted(known)
    if refused := _refusal(ask, places, known, counters, now):
        return refused
    if now >= ask.facts.deadline_at:
        return Late(known)
    return Granted(len(known) + 1, known)


def _refusal(
    ask: Ask, places: Sequence[_Place], known: tuple[Attempt, ...], counters: Mapping[CounterKey, _Counter], now: datetime
) -> Refused | None:
    """The first budget that is full, else the first that wants a cheaper tier."""
    degraded = None
    for place in places:
        hold, limit = place.hold, place.limit
        used = counters[place.key].used
        full = used + place.amount > limit or limit <= 0
        dearer = hold.degrade_at is not None and ask.tier != "light" and used < limit  # a cheaper tier may still fit
        if full and not dearer:
            return _refused(place, used, now, known, degrade=False)
        if dearer and (full or used >= Decimal(str(hold.degrade_at)) * limit):
            degraded = degraded or _refused(place, used, now, known, degrade=True)
    return degraded


def _refused(place: _Place, used: int, now: datetime, known: tuple[Attempt, ...], *, degrade: bool) -> Refused:
    hold = place.hold
    return Refused(
        kind=hold.kind,
        scope=json.loads(hold.scope),
        limit=hold.limit,
        used=to_dollars(used) if hold.kind == "usd" else used,
        resets_at=window(hold.window, hold.timezone, now)[1],
        degrade=degrade,
        attempts=known,
        waits=hold.waits and place.amount <= place.limit > 0,
    )


# ---- attempts

RESERVED: dict[str, type[TypeEngine[Any]] | TypeEngine[Any]] = {
    "request": sa.BigInteger,
    "n": sa.Integer,
    **dict.fromkeys(("worker", "tier", "model", "provider", "state", "price_id"), sa.Text),
    **dict.fromkeys(("seq", "reserved_usd", "reserved_tokens"), sa.BigInteger),
    "usage_ids": Ids,
    **dict.fromkeys(("opened_at", "expires_at"), Instant),
}
_RESERVE = Together(MOVE, sa.insert(attempt).from_select(list(RESERVED), sa.select(given(**RESERVED))))


def attempt_row(ask: Ask, *, n: int, usage_ids: list[int]) -> dict[str, Any]:
    """The row of a reserved attempt, without whose it is, its price and its times."""
    return {
        "n": n,
        "seq": ask.seq,
        "tier": ask.tier,
        "model": ask.model,
        "provider": ask.provider,
        "state": "reserved",
        "reserved_usd": to_units(ask.usd),
        "reserved_tokens": ask.tokens,
        "usage_ids": usage_ids,
    }


# ---- counters

_keys = given(scope=sa.Text, kind=sa.Text, window=sa.Text, starts_at=Instant)
_ADD_COUNTERS = (
    insert(budget_usage)
    .from_select(
        ["scope", "kind", "window", "starts_at"],
        sa.select(_keys).order_by(_keys.c.scope, _keys.c.kind, _keys.c.window, _keys.c.starts_at),
    )
    .on_conflict_do_nothing(index_elements=["scope", "kind", "window", "starts_at"])
)
_counters = budget_usage.c
_FIND_COUNTERS = sa.select(_counters.id, _keys).join(
    _keys,
    (_counters.scope == _keys.c.scope)
    & (_counters.kind == _keys.c.kind)
    & (_counters.window == _keys.c.window)
    & (_counters.starts_at == _keys.c.starts_at),
)
_ids = given(id=sa.BigInteger)
_LOCK_COUNTERS = (
    sa.select(
        _counters.id,
        _counters.scope,
        _counters.kind,
        _counters.window,
        _counters.starts_at,
        (_counters.reserved + _counters.spent).label("used"),
    )
    .join(_ids, _counters.id == _ids.c.id)
    .order_by(_counters.id)
    .with_for_update(of=budget_usage, key_share=True)
)


async def _lock_counters(connection: Connection, keys: set[CounterKey], seen: Seen) -> dict[CounterKey, _Counter]:
    if not keys:
        return {}
    ids = {key: known for key in keys if (known := seen.counters.get(key)) is not None}
    if missing := keys - ids.keys():
        rows = pack({"scope": s, "kind": k, "window": w, "starts_at": t} for s, k, w, t in missing)
        await connection.execute(_ADD_COUNTERS, rows)
        ids |= {(c.scope, c.kind, c.window, c.starts_at): c.id for c in await connection.execute(_FIND_COUNTERS, rows)}
    found = await connection.execute(_LOCK_COUNTERS, pack_ids(ids.values()))
    counters = {(scope, kind, window, start): _Counter(id_, used) for id_, scope, kind, window, start, used in found}
    if counters.keys() != keys:
        raise Forgotten
    return counters


# ---- prices

_prices = given(**dict.fromkeys(price.c.keys(), sa.Text))
_ADD_PRICES = (
    insert(price).from_select(price.c.keys(), sa.select(_prices).order_by(_prices.c.id)).on_conflict_do_nothing(index_elements=["id"])
)


def price_of(ask: Ask) -> Mapping[str, Any] | None:
    """The row of the price that it is asked at; None: nobody knows one."""
    return None if ask.rates is None else price_row(ask.model, ask.provider, ask.rates)


async def add_prices(connection: Connection, asks: Collection[Ask], seen: Seen) -> list[str | None]:
    """The id of the price that each is asked at, which is stored then."""
    if missing := unseen_prices(asks, seen):
        await connection.execute(_ADD_PRICES, pack(missing.values()))
    rows = [price_of(ask) for ask in asks]
    return [None if row is None else row["id"] for row in rows]


def unseen_prices(asks: Iterable[Ask], seen: Seen) -> dict[str, Mapping[str, Any]]:
    """The rows, by id, that may not be stored yet."""
    rows = map(price_of, asks)
    return {row["id"]: row for row in rows if row is not None and row["id"] not in seen.prices}
