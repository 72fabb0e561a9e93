"""`open`: may these calls be made? All asks of a batch in one transaction, answered in the caller's order, as if one after another.

A grant is an attempt row with its reservation in every counter, written before the call is made; all scopes have room or none is touched.
A reserved attempt whose owner is lost is first written off as unconfirmed, in a transaction of its own; then the asks are asked again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import ROUND_FLOOR, Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from workers.ledger.budgets import window
from workers.ledger.given import given, pack
from workers.ledger.rates import price_row
from workers.ledger.rows import Key, claim, is_lost, key_of, lives_until, lock, move, read_attempts, to_attempt
from workers.ledger.tables import Instant, attempt, budget_usage, price
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
    Rates,
    Refused,
    to_dollars,
    to_units,
)

HELD_S = (0.05, 2.0)
"""Bounds of `Held.seconds`: a waiter learns soon of an owner that just finishes, and does not ask in a tight loop."""

CounterKey = tuple[str, str, str, datetime]
"""(scope, kind, window, start)"""
PriceKey = tuple[str, str, Rates]
"""(model, provider, rates)"""


class Lost(Exception):
    """Attempts of these requests must be written off before their asks can be answered."""

    def __init__(self, requests: list[int]) -> None:
        super().__init__(f"{len(requests)} requests with lost attempts")
        self.requests = requests


class Forgotten(Exception):
    """A counter that this process saw committed is not there (the database was restored): `Seen` must be dropped."""


@dataclass(slots=True)
class Seen:
    """Rows this process knows to be committed, so that it need not insert them. Only a shortcut."""

    counters: set[CounterKey] = field(default_factory=set)
    prices: set[str] = field(default_factory=set)

    def add(self, counters: set[CounterKey], prices: set[str]) -> None:
        for known, more in ((self.counters, counters), (self.prices, prices)):
            if len(known) > 100_000:
                known.clear()
            known.update(more)  # type: ignore[arg-type]


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
    added: int = 0


async def open_batch(
    connection: AsyncConnection, asks: list[Ask], *, owner: str, stale_s: float, seen: Seen
) -> tuple[list[Opened], set[CounterKey], set[str]]:
    """The answers, and the counters and prices that exist once this is committed.

    Raises:
        Lost, Forgotten: see there; the caller acts on it and calls again.
    """
    requests, now = await _load(connection, asks, stale_s)
    prices = await _add_prices(connection, asks, seen)
    counters = await _lock_counters(connection, asks, now, seen)
    answers: list[Opened] = []
    granted: list[dict[str, Any]] = []
    for ask in asks:
        row = requests[key_of(ask.facts)]
        answer = _answer(ask, row, counters, now, owner)
        answers.append(answer)
        if isinstance(answer, Granted) and row.reserved is None:
            until = now + timedelta(seconds=min(ask.ttl_s, stale_s))
            row.reserved = _Reserved(answer.n, (owner, ask.seq), until)
            price_id = None if ask.rates is None else prices[ask.model, ask.provider, ask.rates]
            granted.append(_reserve(ask, row.id, answer.n, counters, now) | {"worker": owner, "price_id": price_id})
    await move(connection, ((c.id, c.added, 0) for c in counters.values()))
    if granted:
        await connection.execute(sa.insert(attempt), granted)
    return answers, set(counters), set(prices.values())


async def _load(connection: AsyncConnection, asks: list[Ask], stale_s: float) -> tuple[dict[Key, _Request], datetime]:
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


def _answer(ask: Ask, row: _Request, counters: Mapping[CounterKey, _Counter], now: datetime, owner: str) -> Opened:
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
    if any(a.verdict == "accepted" or a.n > ask.after for a in sent):
        return Answered(known)
    if sum(a.state != "abandoned" for a in known) >= ask.max_attempts:
        return Exhausted(known)
    if refused := _refusal(ask, known, counters, now):
        return refused
    if now >= ask.facts.deadline_at:
        return Late(known)
    return Granted(len(known) + 1, known)


def _refusal(ask: Ask, known: tuple[Attempt, ...], counters: Mapping[CounterKey, _Counter], now: datetime) -> Refused | None:
    """The first budget that is full, else the first that wants a cheaper tier."""
    degraded = None
    for hold in ask.holds:
        counter = counters[_counter_key(hold, now)]
        used = counter.used + counter.added
        after = used + _amount(ask, hold)
        limit = _limit(hold)
        full = after > limit or limit <= 0
        dearer = hold.degrade_at is not None and ask.tier != "light" and used < limit  # a cheaper tier may still fit
        if full and not dearer:
            return _refused(ask, hold, used, now, known, degrade=False)
        if dearer and (full or used >= Decimal(str(hold.degrade_at)) * limit):
            degraded = degraded or _refused(ask, hold, used, now, known, degrade=True)
    return degraded


def _refused(ask: Ask, hold: Hold, used: int, now: datetime, known: tuple[Attempt, ...], *, degrade: bool) -> Refused:
    return Refused(
        kind=hold.kind,
        scope=json.loads(hold.scope),
        limit=hold.limit,
        used=to_dollars(used) if hold.kind == "usd" else used,
        resets_at=window(hold.window, hold.timezone, now)[1],
        degrade=degrade,
        attempts=known,
        waits=hold.waits and _amount(ask, hold) <= _limit(hold) > 0,
    )


def _amount(ask: Ask, hold: Hold) -> int:
    return to_units(ask.usd) if hold.kind == "usd" else ask.tokens


def _limit(hold: Hold) -> int:
    return int((Decimal(hold.limit) / UNIT).to_integral_value(ROUND_FLOOR)) if hold.kind == "usd" else int(hold.limit)


def _reserve(ask: Ask, request: int, n: int, counters: Mapping[CounterKey, _Counter], now: datetime) -> dict[str, Any]:
    """The attempt's row; its amounts are added to the counters, once in each (two budgets of a policy may share one)."""
    mine = {_counter_key(hold, now): _amount(ask, hold) for hold in ask.holds}
    for key, amount in mine.items():
        counters[key].added += amount
    return {
        "request": request,
        "n": n,
        "seq": ask.seq,
        "tier": ask.tier,
        "model": ask.model,
        "provider": ask.provider,
        "state": "reserved",
        "reserved_usd": to_units(ask.usd),
        "reserved_tokens": ask.tokens,
        "usage_ids": [counters[key].id for key in mine],
        "opened_at": now,
        "expires_at": now + timedelta(seconds=ask.ttl_s),
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
_LOCK_COUNTERS = (
    sa.select(
        budget_usage.c.id,
        budget_usage.c.scope,
        budget_usage.c.kind,
        budget_usage.c.window,
        budget_usage.c.starts_at,
        (budget_usage.c.reserved + budget_usage.c.spent).label("used"),
    )
    .join(
        _keys,
        (budget_usage.c.scope == _keys.c.scope)
        & (budget_usage.c.kind == _keys.c.kind)
        & (budget_usage.c.window == _keys.c.window)
        & (budget_usage.c.starts_at == _keys.c.starts_at),
    )
    .order_by(budget_usage.c.id)
    .with_for_update(of=budget_usage, key_share=True)
)


def _counter_key(hold: Hold, now: datetime) -> CounterKey:
    return hold.scope, hold.kind, hold.window, window(hold.window, hold.timezone, now)[0]


async def _lock_counters(connection: AsyncConnection, asks: list[Ask], now: datetime, seen: Seen) -> dict[CounterKey, _Counter]:
    keys = {_counter_key(hold, now) for ask in asks for hold in ask.holds}
    if not keys:
        return {}
    if missing := keys - seen.counters:
        await connection.execute(_ADD_COUNTERS, _pack_counters(missing))
    found = await connection.execute(_LOCK_COUNTERS, _pack_counters(keys))
    counters = {(c.scope, c.kind, c.window, c.starts_at): _Counter(c.id, c.used) for c in found}
    if len(counters) < len(keys):
        raise Forgotten
    return counters


def _pack_counters(keys: set[CounterKey]) -> dict[str, str]:
    return pack({"scope": s, "kind": k, "window": w, "starts_at": t} for s, k, w, t in keys)


# ---- prices

_ADD_PRICES = insert(price).on_conflict_do_nothing(index_elements=["id"])


async def _add_prices(connection: AsyncConnection, asks: list[Ask], seen: Seen) -> dict[PriceKey, str]:
    """The id of each price that is asked at."""
    rows = {(ask.model, ask.provider, ask.rates): None for ask in asks if ask.rates is not None}
    priced = {key: price_row(*key) for key in rows}
    missing = {row["id"]: row for row in priced.values() if row["id"] not in seen.prices}
    if missing:
        await connection.execute(_ADD_PRICES, [missing[digest] for digest in sorted(missing)])
    return {key: row["id"] for key, row in priced.items()}
