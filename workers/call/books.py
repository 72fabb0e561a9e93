"""From what a call came to, to what the ledger is told of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Literal

from schemas import Facts, Params, Usage
from workers.call.cascade import Try
from workers.call.check import check
from workers.call.failures import Failure, Sent
from workers.call.provider import Reply
from workers.call.reserve import Worst
from workers.ledger.types import Attempt, Rates, Settlement
from workers.policy import Model

_STATES: Mapping[Sent, Literal["settled", "unconfirmed", "abandoned"]] = {
    "no": "abandoned",
    "answered": "settled",
    "unknown": "unconfirmed",
}


def settlement(facts: Facts, n: int, params: Params, step: Try, reserved: Worst, price: Rates | None, got: Reply | Failure) -> Settlement:
    """The settlement of attempt `n`. An error answer costs nothing; what may have been served without our seeing it, its worst case."""
    tenant = facts.tenant or ""  # a request without one never gets here
    if isinstance(got, Failure):
        cost = reserved.usd if got.sent == "unknown" else Decimal(0)
        return Settlement(tenant, facts.request_id, n, Usage(), cost, got.verdict, got.outcome, answer=None, state=_STATES[got.sent])
    verdict, outcome = check(got.answer, params, limit=step.max_tokens, written=got.usage.output_tokens)
    cost = price.cost(got.usage) if price else Decimal(0)
    return Settlement(tenant, facts.request_id, n, got.usage, cost, verdict, outcome, got.answer, got.estimated)


def overrun(booked: Settlement, step: Try, reserved: Worst) -> Literal["output", "input", "price"] | None:
    """Why a call came to more than its reservation; None where it did not. output: the model wrote more than `max_tokens`. input: the
    provider counts the prompt otherwise than we do. price: something was billed that is in no rate."""
    usage = booked.usage
    if booked.cost <= reserved.usd and usage.input_tokens + usage.output_tokens <= reserved.tokens:
        return None
    if usage.output_tokens > step.max_tokens:
        return "output"
    return "input" if usage.input_tokens > reserved.tokens - step.max_tokens else "price"


def row(booked: Settlement, step: Try, model: Model, price: Rates | None) -> Attempt:
    """The attempt as the ledger will show it."""
    return Attempt(
        n=booked.n,
        tier=step.tier,
        model=step.model,
        provider=model.provider,
        state=booked.state,
        usage=booked.usage,
        cost=booked.cost,
        rates=price,
        verdict=booked.verdict,
        outcome=booked.outcome,
        answer=booked.answer,
        estimated=booked.estimated,
    )
