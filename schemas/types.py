"""Field types that every event shares: ids, money, times, and the closed sets of words.

Nothing here does I/O. A value that does not fit raises pydantic's ValidationError with the field's name.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator
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

_CONTROL_OR_HALF = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
"""Unicode's categories Cc and Cs."""

MICRO = Decimal("0.000001")
"""One micro-dollar: what a request's money is rounded to."""


def check_id(value: str) -> str:
    """1-128 characters, none of them a control character or half of a surrogate pair."""
    if not 1 <= len(value) <= 128:
        raise ValueError("must have 1 to 128 characters")
    if _CONTROL_OR_HALF.search(value):
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


def user_digest(tenant: str, user: str) -> str:
    """What stands for a user who was forgotten: `sha256:` and the hex SHA-256 of `tenant/user` in UTF-8. The same user of the same tenant
    has the same one; whoever can guess an id can check the guess."""
    return f"sha256:{hashlib.sha256(f'{tenant}/{user}'.encode()).hexdigest()}"


_MONEY = re.compile(r"-?[0-9]+(\.[0-9]+)?")
_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII)


def _money(value: Any) -> Any:
    if isinstance(value, str) and _MONEY.fullmatch(value):
        return Decimal(value)
    if not isinstance(value, Decimal):
        raise ValueError('money is a decimal string such as "0.000123", never a number')
    return value


def usd(value: Decimal) -> str:
    """Money as it is published: plain decimal, no exponent, no trailing zeros (`"0.000123"`, `"0"`)."""
    if not value:
        return "0"
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _time(value: Any) -> Any:
    # Left to itself, pydantic takes a string of digits for seconds since 1970.
    if not isinstance(value, str):
        return value
    if not _RFC_3339.fullmatch(text := value.upper()):
        raise ValueError("must be an RFC 3339 time such as 2026-12-01T12:00:00Z")
    return datetime.fromisoformat(text)


def _in_utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError as e:
        raise ValueError("must lie in the years 1 to 9999, in UTC too") from e


def _version(value: Any) -> Any:
    if type(value) is not int:
        raise ValueError("must be the number 1")
    return value


def check_json(value: Any) -> Any:
    """A value that JSON can hold: Python's NaN and infinities would go out as null."""
    left = [value]
    while left:
        item = left.pop()
        if isinstance(item, dict):
            left.extend(item.values())
        elif isinstance(item, list | tuple):
            left.extend(item)
        elif isinstance(item, float) and not math.isfinite(item):
            raise ValueError("numbers must be finite and within the range of a double")
    return value


def _id_schema(pattern: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "minLength": 1, "maxLength": 128, "pattern": pattern})


_CONTROL = r"\u0000-\u001f\u007f-\u009f"
Id = Annotated[str, AfterValidator(check_id), _id_schema(rf"^[^{_CONTROL}]+$")]
RequestId = Annotated[str, AfterValidator(check_request_id), _id_schema(rf"^[^~{_CONTROL}][^{_CONTROL}]*$")]
Tenant = Annotated[str, AfterValidator(check_tenant), _id_schema(rf"^[^/{_CONTROL}]+$")]
Usd = Annotated[
    Decimal,
    BeforeValidator(_money),
    PlainSerializer(usd, return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]+)?$"}),
]
"""US dollars: a Decimal in Python, a decimal string in JSON."""
Time = Annotated[AwareDatetime, BeforeValidator(_time), AfterValidator(_in_utc)]
"""RFC 3339; kept in UTC."""
SchemaVersion = Annotated[Literal[1], BeforeValidator(_version)]
Json = Annotated[Any, AfterValidator(check_json)]
"""Any value that JSON can hold."""
JsonObject = Annotated[dict[str, Any], AfterValidator(check_json)]


def utc_now() -> datetime:
    return datetime.now(UTC)


class Discreet(BaseModel):
    """Tells nothing of what users wrote, neither in its repr (fields of content have `repr=False`, and fields that no model declares are
    left out) nor in the text of its errors: both end up in logs."""

    model_config = ConfigDict(frozen=True, strict=True, hide_input_in_errors=True)

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        return ((name, value) for name, value in super().__repr_args__() if name in type(self).model_fields)


class Event(Discreet):
    """A public event: frozen, strict about types, deaf to fields it does not know."""

    model_config = ConfigDict(extra="ignore", json_schema_serialization_defaults_required=True)


class Internal(Discreet):
    """An event between stages: keeps fields it does not know, so that a rolling upgrade drops nothing."""

    model_config = ConfigDict(extra="allow", json_schema_serialization_defaults_required=True)
