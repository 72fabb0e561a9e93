"""Builders of what the stage reads: a plan, an event, a policy with three tiers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import yaml

from schemas import CachePlan, Compressed, Document, Facts, Message, Params, Plan, Prompt, TokensAround, Usage
from schemas.types import Tier
from workers.ledger.types import Answer, Attempt
from workers.policy import Policy, parse

CACHE = CachePlan(
    verdict="cacheable", read=True, write=True, semantic=True, share="tenant", candidate_threshold=0.9, serve_threshold=0.95, ttl_s=60
)


def plan(
    tier: Tier = "light",
    *,
    forced: bool = False,
    cascade: bool = True,
    models: dict[Tier, tuple[str, ...]] | None = None,
    max_tokens: int = 100,
    max_attempts: int = 6,
    **more: Any,
) -> Plan:
    return Plan(
        tier=tier,
        tier_why="test",
        forced=forced,
        cascade=cascade,
        models={"light": ("mini",), "standard": ("middle",), "heavy": ("large",)} if models is None else models,
        max_tokens={"light": max_tokens, "standard": max_tokens, "heavy": max_tokens},
        max_attempts=max_attempts,
        compress_rate=None,
        cache=CACHE,
        **more,
    )


def event(
    request_id: str = "r-1",
    text: str = "How tall is a heron?",
    *,
    plan: Plan = plan(),  # noqa: B008 -- frozen
    params: dict[str, Any] | None = None,
    documents: tuple[Document, ...] = (),
    lane: str = "interactive",
    deadline_s: float = 120,
    **facts: Any,
) -> Compressed:
    now = datetime.now(UTC)
    fields = {
        "tenant": "acme",
        "feature": "bot",
        "user": None,
        "experiment": None,
        "lane": lane,
        "body_hash": "00",
        "trace_id": "t",
    } | facts
    return Compressed(
        facts=Facts(request_id=request_id, created_at=now, deadline_at=now + timedelta(seconds=deadline_s), **fields),
        prompt=Prompt(messages=(Message(role="user", content=text),), documents=documents, params=Params(**(params or {}))),
        plan=plan,
        tokens=TokensAround(before=12, after=12),
    )


def policy(api_base: str | None = "http://127.0.0.1:9/v1", **more: Any) -> Policy:
    def model(name: str, price: str, **over: Any) -> dict[str, Any]:
        return {"litellm": f"openai/{name}", "api_base": api_base, "context": 8000, "price": {"input": price, "output": price}} | over

    models = {name: model(name, price) for name, price in (("mini", "1"), ("spare", "2"), ("middle", "5"), ("large", "20"))}
    tiers = {"light": ["mini"], "standard": ["middle"], "heavy": ["large"]}
    return parse(yaml.safe_dump({"models": models, "tiers": tiers, "reference": "large"} | more), "test")


def attempt(n: int, tier: Tier, model: str, verdict: str | None, outcome: str | None = None, *, said: str | None = None) -> Attempt:
    answer = None if said is None else Answer(said, None, "stop")
    state = {None: "unconfirmed"}.get(verdict, "settled")
    return Attempt(n, tier, model, "openai", state, Usage(), Decimal(0), None, verdict, outcome or verdict, answer)  # type: ignore[arg-type]
