"""`Response`: the one ending of a request, on `llm.responses`. Every field is always present."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from pydantic import Field

from schemas.types import Event, Flag, Lane, ReasonCode, SchemaVersion, Source, Status, Tier, Time, Usd

ZERO = Decimal(0)

UNCLAIMED: frozenset[ReasonCode] = frozenset(
    {"invalid_request", "too_large", "unknown_tenant", "bad_signature", "request_id_conflict", "request_id_used"}
)
"""Endings that do not claim the id: not stored, no CostRecord, and a corrected request may use the same id."""


class Usage(Event):
    """Billed tokens. `input_tokens` counts every input token, cached ones included; `output_tokens` includes reasoning."""

    input_tokens: int = Field(0, ge=0)
    cached_input_tokens: int = Field(0, ge=0)
    cache_write_tokens: int = Field(0, ge=0)
    output_tokens: int = Field(0, ge=0)
    reasoning_tokens: int = Field(0, ge=0)

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            cached_input_tokens=self.cached_input_tokens + other.cached_input_tokens,
            cache_write_tokens=self.cache_write_tokens + other.cache_write_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            reasoning_tokens=self.reasoning_tokens + other.reasoning_tokens,
        )


class Saved(Event):
    """Dollars saved by lever, against the reference model. A lever can be negative."""

    routing: Usd = ZERO
    cache: Usd = ZERO
    compression: Usd = ZERO
    batch: Usd = ZERO

    @property
    def total(self) -> Decimal:
        return self.routing + self.cache + self.compression + self.batch


def _absent(value: object) -> bool:
    return value is None


class Reason(Event):
    """Why there is no answer. The last four stand only beside `budget_exceeded` (dollars) and `quota_exceeded` (tokens)."""

    code: ReasonCode
    message: str
    scope: dict[str, str] | None = Field(None, exclude_if=_absent)
    limit: str | int | None = Field(None, exclude_if=_absent)
    used: str | int | None = Field(None, exclude_if=_absent)
    resets_at: Time | None = Field(None, exclude_if=_absent)


class Response(Event):
    schema_version: SchemaVersion = 1
    request_id: str
    tenant: str | None
    feature: str | None
    user: str | None
    experiment: str | None
    lane: Lane
    status: Status
    reason: Reason | None = None
    content: str | None = Field(None, repr=False)
    tool_calls: tuple[dict[str, Any], ...] | None = Field(None, repr=False)
    finish_reason: str | None = None
    source: Source | None = None
    tier: Tier | None = None
    model: str | None = None
    attempts: int = 0
    flags: tuple[Flag, ...] = ()
    usage: Usage = Usage()
    cost_usd: Usd = ZERO
    unconfirmed_usd: Usd = ZERO
    baseline_usd: Usd = ZERO
    saved_usd: Saved = Saved()
    created_at: Time
    finished_at: Time
    trace_id: str
    metadata: dict[str, Any] | None = Field(default_factory=dict, repr=False)
