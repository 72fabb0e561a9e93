"""Endings as `attribute` states them, and costs as `call` books them: what the books look like when nobody makes a mistake."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from functools import partial
from typing import Any

from schemas import Facts, Finished, Reason, Usage
from schemas.internal import CachedFrom, TokensAround
from tests.unit.ledger.scenario import HELLO, ask, settlement
from workers import policy
from workers.attribute.statement import Prices, statement
from workers.ledger.types import Ask, Ending, Rates, Settlement

PLAIN = Rates(Decimal("0.15"), Decimal("0.075"), Decimal("0.1875"), Decimal("0.60"), "policy")
ODD = Rates(Decimal("1.23456789"), Decimal("0.1"), Decimal("2.5"), Decimal("7.0000001"), "map-1", reasoning=Decimal("9.5"))
LONG = replace(ODD, above=((200, replace(PLAIN, source="map-1")), (800, replace(ODD, input=Decimal("3.3")))))
PRICES = (PLAIN, ODD, LONG, None)

POLICY = policy.parse(
    """
models:
  mini:  {litellm: openai/mini, context: 1000, price: {input: 0.15, output: 0.60}}
  large: {litellm: anthropic/large, context: 1000, price: {input: 10, output: 30}}
tiers: {light: [mini], heavy: [large]}
reference: large
""",
    "test",
)
REFERENCE = Rates(Decimal(10), Decimal(1), Decimal(10), Decimal(30), "policy")
STATED = Prices(POLICY, lambda model: PLAIN if model.litellm == "openai/mini" else REFERENCE, "map-1")
ENDINGS = ("model", "batch", "cache_exact", "follower", "failed", "budget_exceeded", "expired")


def settled(asked: Ask, n: int, used: Usage, **changes: Any) -> Settlement:
    """The settlement of attempt `n`, at the price it was asked at."""
    cost = asked.rates.cost(used) if asked.rates else Decimal(0)
    given = {"tenant": asked.facts.tenant, "usage": used, "cost": cost}
    return replace(settlement(asked.facts.request_id, n), **given | changes)


def ended(of: Facts, how: str = "model") -> Ending:
    """One of `ENDINGS`, priced and written as `attribute` does it."""
    given: dict[str, Any] = {"facts": of}
    if how in ("failed", "budget_exceeded", "expired"):
        codes = {"failed": "provider_error", "budget_exceeded": "budget_exceeded", "expired": "deadline_passed"}
        status = {"budget_exceeded": "rejected"}.get(how, how)
        given |= {"status": status, "reason": Reason(code=codes[how], message="why")}  # type: ignore[arg-type]
    else:
        given |= {"status": "answered", "content": HELLO.content, "finish_reason": HELLO.finish_reason, "tier": "light", "model": "mini"}
        given |= {"source": "model" if how == "follower" else how, "tokens": TokensAround(before=900, after=700)}
        if how == "cache_exact":
            given["cached_from"] = CachedFrom(usage=Usage(input_tokens=71, output_tokens=13), tokens=given["tokens"], similarity=1.0)
        if how == "follower":
            given["usage"] = Usage(input_tokens=50, output_tokens=7)
    finished = Finished(**given)
    reason = finished.reason.code if finished.reason else None
    state = partial(statement, finished, prices=STATED)
    return Ending(of, finished.status, reason, finished.tier, finished.model, finished.source, state)


def asked(request_id: str, usd: str, tokens: int, *holds: Any, rates: Rates | None = PLAIN, **changes: Any) -> Ask:
    return replace(ask(request_id, usd, tokens, *holds, **changes), rates=rates)
