"""Endings of made-up requests, for the tests of what is shown and summed up."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from schemas import AttemptRecord, CostRecord, Reason, Response, Saved, TokensAround, Usage
from workers.cli.show import Seen

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def response(request_id: str, **fields: Any) -> Response:
    base: dict[str, Any] = {
        "request_id": request_id,
        "tenant": "acme",
        "feature": "zoo",
        "user": None,
        "experiment": None,
        "lane": "interactive",
        "status": "answered",
        "content": "Five metres.",
        "finish_reason": "stop",
        "source": "model",
        "tier": "light",
        "model": "mini",
        "attempts": 1,
        "usage": Usage(input_tokens=10, output_tokens=4),
        "cost_usd": Decimal("0.000002"),
        "baseline_usd": Decimal("0.000052"),
        "saved_usd": Saved(routing=Decimal("0.00005")),
        "created_at": AT,
        "finished_at": AT,
        "trace_id": "0" * 32,
    }
    return Response(**base | fields)


def hit(request_id: str, source: str = "cache_semantic") -> Response:
    saved = Saved(routing=Decimal("0.00005"), cache=Decimal("0.000002"))
    return response(request_id, source=source, attempts=0, cost_usd=Decimal(0), usage=Usage(), saved_usd=saved)


def refused(request_id: str, code: str) -> Response:
    nothing: dict[str, Any] = dict.fromkeys(("content", "finish_reason", "source", "tier", "model"))
    money: dict[str, Any] = {"cost_usd": Decimal(0), "baseline_usd": Decimal(0), "saved_usd": Saved(), "usage": Usage(), "attempts": 0}
    return response(request_id, status="rejected", reason=Reason(code=code, message="no"), **nothing, **money)  # type: ignore[arg-type]


def seen(about: str, response: Response) -> Seen:
    return Seen(response, about, TokensAround(before=100, after=60) if response.source == "model" else None)


def record(response: Response) -> CostRecord:
    n = response.attempts
    attempts = tuple(AttemptRecord(n=i + 1, model="mini", provider="openai", state="settled") for i in range(n))
    return CostRecord(
        request_id=response.request_id,
        tenant=response.tenant or "",
        feature="zoo",
        user=None,
        experiment=None,
        purpose="request",
        revision=1,
        lane="interactive",
        status=response.status,
        tier=response.tier,
        model=response.model,
        provider="openai",
        source=response.source,
        usage=response.usage,
        cost_usd=response.cost_usd,
        unconfirmed_usd=Decimal(0),
        baseline_usd=response.baseline_usd,
        saved_usd=response.saved_usd,
        price_unknown=False,
        estimated=False,
        price_map="policy",
        occurred_at=AT,
        trace_id=response.trace_id,
        attempts=attempts,
    )
