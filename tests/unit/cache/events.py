"""Requests and answers for the cache's tests: `ask` makes a classified request, `answer` finishes it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from schemas import CachePlan, Classified, Document, Facts, Finished, Message, Missed, Params, Plan, Prompt, TokensAround, Usage

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)


def ask(
    text: str,
    *,
    tenant: str | None = "acme",
    user: str | None = "ann",
    earlier: tuple[Message, ...] = (),
    last: Message | None = None,
    documents: tuple[Document, ...] = (),
    params: Params | None = None,
    plan: dict[str, Any] | None = None,
    cache: dict[str, Any] | None = None,
) -> Classified:
    facts = Facts(
        request_id="r-1", tenant=tenant, feature="help", user=user, experiment=None, lane="interactive", body_hash="0" * 64,
        created_at=NOON, deadline_at=NOON + timedelta(minutes=2), trace_id="0" * 32,
    )  # fmt: skip
    caching = CachePlan(
        **{
            "verdict": "cacheable", "read": True, "write": True, "semantic": True, "share": "tenant",
            "candidate_threshold": 0.90, "serve_threshold": 0.93, "ttl_s": 3600,
        }
        | (cache or {})
    )  # fmt: skip
    planned = Plan(
        **{
            "tier": "light", "tier_why": "short", "forced": False, "cascade": True, "models": {"light": ("mini",)},
            "max_tokens": {"light": 300, "standard": 800, "heavy": 2000}, "max_attempts": 6, "compress_rate": None, "cache": caching,
        }
        | (plan or {})
    )  # fmt: skip
    prompt = Prompt(messages=(*earlier, last or Message(role="user", content=text)), documents=documents, params=params or Params())
    return Classified(facts=facts, prompt=prompt, plan=planned)


def answer(missed: Missed, content: str | None = "An answer.", **changes: Any) -> Finished:
    return Finished(
        **{
            "facts": missed.facts, "status": "answered", "content": content, "finish_reason": "stop", "source": "model",
            "tier": "light", "model": "mini", "accepted": True, "usage": Usage(input_tokens=20, output_tokens=40),
            "tokens": TokensAround(before=20, after=20), "cache_plan": missed.plan.cache, "cache_key": missed.cache_key,
        }
        | changes
    )  # fmt: skip


class Counted(list[tuple[str, str]]):
    """An `observe` that keeps what it was told."""

    def __call__(self, event: str, reason: str) -> None:
        self.append((event, reason))


class Clock:
    def __init__(self) -> None:
        self.at = NOON

    def __call__(self) -> datetime:
        return self.at

    def forward(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)
