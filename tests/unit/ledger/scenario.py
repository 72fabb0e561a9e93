"""What the ledger's tests ask, settle and end, and the books recomputed from the rows."""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from schemas import AttemptRecord, CostRecord, Facts, Saved, Usage
from workers.ledger.database import make_engine
from workers.ledger.ledger import Ledger
from workers.ledger.tables import attempt, budget_usage, worker
from workers.ledger.types import Answer, Ask, Books, Ending, Hold, Rates, Settlement, Statement

RATES = Rates(Decimal("0.15"), Decimal("0.075"), Decimal("0.15"), Decimal("0.60"), "policy")
HELLO = Answer("hello", None, "stop")
BASELINE = Decimal("0.01")
_seq = itertools.count(1)


def facts(request_id: str = "r", *, tenant: str = "acme", body: str = "body", user: str | None = None, seconds_left: float = 3600) -> Facts:
    now = datetime.now(UTC)
    return Facts(
        request_id=request_id,
        tenant=tenant,
        feature="support",
        user=user,
        experiment=None,
        lane="interactive",
        body_hash=body,
        created_at=now,
        deadline_at=now + timedelta(seconds=seconds_left),
        trace_id="trace",
    )


def hold(limit: str | int, scope: dict[str, str] | None = None, window: str = "month", degrade_at: float | None = None) -> Hold:
    """Dollars when the limit is text, tokens when it is a number."""
    text = json.dumps({"tenant": "acme"} if scope is None else scope)
    kind: Any = "usd" if isinstance(limit, str) else "tokens"
    unit: Any = window
    return Hold(text, kind, unit, "UTC", Decimal(limit) if isinstance(limit, str) else limit, degrade_at)


def ask(request_id: str = "r", usd: str = "1", tokens: int = 100, *holds: Hold, **changes: Any) -> Ask:
    about = {key: changes.pop(key) for key in ("tenant", "body", "user", "seconds_left") if key in changes}
    given: dict[str, Any] = {
        "facts": facts(request_id, **about),
        "tier": "light",
        "model": "mini",
        "provider": "openai",
        "rates": RATES,
        "usd": Decimal(usd),
        "tokens": tokens,
        "holds": holds,
        "after": 0,
        "max_attempts": 6,
        "ttl_s": 300.0,
        "seq": next(_seq),
    }
    return Ask(**given | changes)


def settlement(request_id: str = "r", n: int = 1, cost: str = "0.5", tokens: int = 60, **changes: Any) -> Settlement:
    given: dict[str, Any] = {
        "tenant": "acme",
        "request_id": request_id,
        "n": n,
        "usage": Usage(input_tokens=tokens - tokens // 3, output_tokens=tokens // 3),
        "cost": Decimal(cost),
        "verdict": "accepted",
        "outcome": "accepted",
        "answer": HELLO,
    }
    return Settlement(**given | changes)


def ending(request_id: str = "r", text: str = "response", reason: str | None = None, **about: Any) -> Ending:
    """An ending whose response is `text` and whose record is priced from the books."""
    of = facts(request_id, **about)
    return Ending(
        of, "failed" if reason else "answered", reason, "light", "mini", None if reason else "model", lambda b: state(of, b, text)
    )


def state(of: Facts, books: Books, text: str) -> Statement:
    settled = [a for a in books.attempts if a.state == "settled"]
    cost = sum((a.cost for a in settled), Decimal(0))
    unconfirmed = sum((a.cost for a in books.attempts if a.state == "unconfirmed"), Decimal(0))
    saved = Saved(routing=BASELINE - cost - Decimal("0.001"), cache=Decimal("0.002"), compression=Decimal("-0.001"))
    record = CostRecord(
        request_id=of.request_id,
        tenant=of.tenant or "",
        feature=of.feature or "",
        user=of.user,
        experiment=of.experiment,
        purpose=of.purpose,
        revision=books.revision,
        lane=of.lane,
        status="answered",
        tier="light",
        model="mini",
        provider="openai",
        source="model",
        usage=sum((a.usage for a in settled), Usage()),
        cost_usd=cost,
        unconfirmed_usd=unconfirmed,
        baseline_usd=BASELINE,
        saved_usd=saved,
        price_unknown=False,
        estimated=False,
        price_map="policy",
        occurred_at=books.ended_at,
        trace_id=of.trace_id,
        attempts=tuple(
            AttemptRecord(n=a.n, model=a.model, provider=a.provider, state=a.state, usage=a.usage, cost_usd=a.cost) for a in books.attempts
        ),
    )
    return Statement(text.encode(), record.model_dump_json().encode(), cost, unconfirmed, BASELINE, saved)


async def execute(on: str | AsyncEngine, statement: str | sa.Executable, **values: Any) -> Sequence[sa.Row[Any]]:
    """The rows of a statement on an engine, or on a connection of its own to a URL."""
    engine = make_engine(on, 1) if isinstance(on, str) else on
    try:
        async with engine.begin() as connection:
            result = await connection.execute(sa.text(statement) if isinstance(statement, str) else statement, values)
            return result.all() if result.returns_rows else []
    finally:
        if isinstance(on, str):
            await engine.dispose()


async def silence(url: str | AsyncEngine, *ledgers: Ledger) -> None:
    """These workers have not been heard of for a day."""
    long_ago = datetime.now(UTC) - timedelta(days=1)
    await execute(url, sa.update(worker).where(worker.c.id.in_([ledger.owner for ledger in ledgers])).values(beat=long_ago))


async def counters(url: str) -> dict[tuple[str, str, str], tuple[int, int]]:
    """(reserved, spent) by scope, kind and window: dollars as whole units of 1e-10, tokens as they are; the newest window of each."""
    rows = await execute(url, sa.select(budget_usage).order_by(budget_usage.c.starts_at))
    return {(row.scope, row.kind, row.window): (row.reserved, row.spent) for row in rows}


async def drift(url: str | AsyncEngine) -> dict[int, tuple[tuple[int, int], tuple[int, int]]]:
    """Counters that do not say what the rows say: id to (counter, rows). Empty when the books are right."""
    kinds = {row.id: row for row in await execute(url, sa.select(budget_usage))}
    sums: dict[int, list[int]] = defaultdict(lambda: [0, 0])
    for row in await execute(url, sa.select(attempt)):
        for counter in row.usage_ids:
            usd = kinds[counter].kind == "usd"
            if row.state == "reserved":
                sums[counter][0] += row.reserved_usd if usd else row.reserved_tokens
            else:
                sums[counter][1] += row.cost if usd else row.used_tokens
    found = {counter: ((row.reserved, row.spent), (sums[counter][0], sums[counter][1])) for counter, row in kinds.items()}
    return {counter: both for counter, both in found.items() if both[0] != both[1]}


def dollars(text: str) -> int:
    """Units of 1e-10 dollars."""
    return int(Decimal(text) * 10**10)
