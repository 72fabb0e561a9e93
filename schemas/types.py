"""Field types that every event shares: ids, money, times, and the closed sets of words.

Nothing here does I/O. A value that does not fit raises pydantic's ValidationError with the field's name.
"""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, PlainSerializer, WithJsonSchema

Tier = Literal["light", "standard", "heavy"]
TIERS: tuple[Tier, ...] = ("light", "standard", "heavy")
Lane = Literal["interactive", "bulk"]
LANES: tuple[Lane, ...] = ("interactive", "bulk")
Purpose = Literal["request", "audit", "judge", "shadow", "optimise"]
Status = Literal["answered", "rejected", "expired", "failed"]
Source = Literal["model", "cache_exact", "cache_semantic", "batch"]
Flag = Literal["check_failed", "escalation_refused", "degraded", "max_tokens_capped"]
ReasonCode = Literal[
    "invalid_request",
    "too_large",
    "budget_exceeded",
    "quota_exceeded",
    "unknown_tenant",
    "bad_signature",
    "no_model",
    "context_too_long",
    "deadline_passed",
    "provider_error",
    "request_id_conflict",
    "request_id_used",
    "internal",
]

MICRO = Decimal("0.000001")
"""One micro-dollar: what a request's money is rounded to."""


def check_id(value: str) -> str:
    """1-128 characters, none of them a control character or half of a surrogate pair."""
    if not 1 <= len(value) <= 128:
        raise ValueError("must have 1 to 128 characters")
    if any(unicodedata.category(c) in ("Cc", "Cs") for c in value):
        raise ValueError("must not hold control characters")
    return value


def check_request_id(value: str) -> str:
    """An id, not one of the fleet's own (they begin with `~`)."""
    if value.startswith("~"):
        raise ValueError("must not begin with '~': such ids are the fleet's own")
    return check_id(value)


def check_tenant(value: str) -> str:
    """An id without `/`: the key of a response is `tenant/request_id`."""
    if "/" in value:
        raise ValueError("must not hold '/'")
    return check_id(value)


def _only_text(value: Any) -> Any:
    if not isinstance(value, str | Decimal):
        raise ValueError("money is a decimal string, never a number")
    return Decimal(value) if isinstance(value, str) else value


def usd(value: Decimal) -> str:
    """Money as it is published: plain decimal, no exponent, no trailing zeros (`"0.000123"`, `"0"`)."""
    return format(value.normalize(), "f") if value else "0"


def _in_utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError as e:
        raise ValueError("must lie in the years 1 to 9999, in UTC too") from e


Id = Annotated[str, AfterValidator(check_id)]
RequestId = Annotated[str, AfterValidator(check_request_id)]
Tenant = Annotated[str, AfterValidator(check_tenant)]
Usd = Annotated[
    Decimal,
    BeforeValidator(_only_text),
    PlainSerializer(usd, return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]+)?$"}),
]
"""US dollars: a Decimal in Python, a decimal string in JSON."""
Time = Annotated[AwareDatetime, AfterValidator(_in_utc)]
"""RFC 3339; kept in UTC."""


def utc_now() -> datetime:
    return datetime.now(UTC)


class Event(BaseModel):
    """A public event: frozen, strict about types, deaf to fields it does not know."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


class Internal(BaseModel):
    """An event between stages: keeps fields it does not know, so that a rolling upgrade drops nothing."""

    model_config = ConfigDict(frozen=True, strict=True, extra="allow")
