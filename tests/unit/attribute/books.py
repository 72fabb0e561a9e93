"""Attempts, facts and endings for the tests of `attribute`, with prices that make the arithmetic easy to follow."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from schemas import Facts, Finished, Reason, Usage
from workers.ledger.types import Answer, Attempt, Rates

ARRIVED = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
ENDED = ARRIVED + timedelta(seconds=3)


def rates(input_: str, output: str, *, cached: str | None = None, written: str | None = None, **more: Any) -> Rates:
    """Dollars per million tokens."""
    return Rates(
        input=Decimal(input_),
        cached_input=Decimal(cached or input_),
        cache_write=Decimal(written or input_),
        output=Decimal(output),
        source=more.pop("source", "policy"),
        **more,
    )


MINI = rates("1", "2", cached="0.5")
LARGE = rates("10", "30", cached="1")


def usage(input_: int = 1000, output: int = 100, **more: int) -> Usage:
    return Usage(input_tokens=input_, output_tokens=output, **more)


def attempt(n: int = 1, *, model: str = "mini", rates: Rates | None = MINI, used: Usage | None = None, **more: Any) -> Attempt:
    used = used if used is not None else usage()
    told: dict[str, Any] = {
        "tier": "light",
        "provider": "openai",
        "state": "settled",
        "usage": used,
        "cost": rates.cost(used) if rates else Decimal(0),
        "verdict": "accepted",
        "outcome": "accepted",
        "answer": Answer("Forty-two.", None, "stop"),
    }
    return Attempt(n=n, model=model, rates=rates, **(told | more))


def facts(request_id: str = "r-1", **more: Any) -> Facts:
    told: dict[str, Any] = {
        "tenant": "acme",
        "feature": "support",
        "user": "u-7",
        "experiment": None,
        "lane": "interactive",
        "body_hash": "b" * 64,
        "created_at": ARRIVED,
        "deadline_at": ARRIVED + timedelta(seconds=120),
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
        "metadata": {"order": 2**200},
    }
    return Facts(request_id=request_id, **(told | more))


def answered(**more: Any) -> Finished:
    told: dict[str, Any] = {
        "facts": facts(),
        "status": "answered",
        "content": "Forty-two.",
        "finish_reason": "stop",
        "source": "model",
        "tier": "light",
        "model": "mini",
        "accepted": True,
        "usage": usage(),
    }
    return Finished(**(told | more))


def ended(status: str, code: str, **more: Any) -> Finished:
    told: dict[str, Any] = {"facts": facts(), "status": status, "reason": Reason(code=code, message="why")}  # type: ignore[arg-type]
    return Finished(**(told | more))
