"""From the bytes of a request record to `Asked`, or to the outcome that says why not. Pure; runs once for every request.

A record whose `request_id` cannot be read becomes `Dead` (its bytes go to the dead letters). One that has an id but does not fit
ends as `rejected` / `invalid_request` or `too_large`, with a message that names the field and what would be right. Messages carry
field names and positions, never values: a prompt or a key must not reach a log through an error text.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from schemas import MAX_REQUEST_BYTES, Facts, Params, Request
from schemas.types import Lane, ReasonCode, check_id, check_tenant
from workers.outcomes import Dead, End, Outcome, end

DEFAULT_DEADLINE: dict[Lane, timedelta] = {"interactive": timedelta(seconds=120), "bulk": timedelta(hours=24)}
"""Time from arrival to the deadline where the request names none; promised in the public contract."""

MAX_DEPTH = 100
"""Levels of nesting. The events that carry a request add three, and pydantic's JSON parser stops at 200."""

MAX_INTEGER_DIGITS = 4300
"""What Python and pydantic read as one integer (CPython's `sys.int_info.default_max_str_digits`)."""

MAX_TOLD = 3
"""Faults named in one message."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that fits its schema, and the facts of its arrival."""

    facts: Facts
    request: Request


class _Uncarried(ValueError):
    """A number that is valid JSON and cannot travel on: too large for a float, or too many digits."""


class _Constant(ValueError):
    """NaN and the infinities, which Python's parser would take."""


def _no_constant(name: str) -> NoReturn:
    raise _Constant(f"{name} is no JSON value")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise _Uncarried("a number is too large for a 64-bit float; send it as a string")
    return number


def _integer(digits: str) -> int:
    if len(digits.lstrip("-")) > MAX_INTEGER_DIGITS:
        raise _Uncarried(f"an integer has more than {MAX_INTEGER_DIGITS} digits; send it as a string")
    return int(digits)


_decoder = json.JSONDecoder(parse_float=_finite, parse_int=_integer, parse_constant=_no_constant)
_id_decoder = json.JSONDecoder(parse_float=str, parse_int=str, parse_constant=_no_constant)
_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


def body_hash(parsed: Any, lane: Lane) -> str:
    """What "the same body" means for the idempotency key: SHA-256, hex, of the parsed record as JSON with sorted keys, no spaces
    and ASCII escapes (fields we do not know included), a newline, and the lane."""
    return hashlib.sha256(f"{_canonical.encode(parsed)}\n{lane}".encode()).hexdigest()


def read(value: bytes | None, *, lane: Lane, timestamp_ms: int | None, now: datetime, trace_id: str) -> Asked | Outcome:
    """Read one record of `llm.requests` or `llm.requests.bulk`.

    `timestamp_ms` is the Kafka record's timestamp in milliseconds since 1970 (None, 0 or -1: missing). Never raises on any bytes.
    """
    if value is None:
        return Dead("null_value", "the record has no value; a request is a JSON object")
    if not value:
        return Dead("empty_value", "the record's value is empty; a request is a JSON object")
    uncarried: str | None = None
    try:
        text = value.decode()
        try:
            parsed = _decoder.decode(text)
        except _Uncarried as e:
            uncarried, parsed = str(e), _id_decoder.decode(text)
    except UnicodeDecodeError as e:
        return Dead("invalid_utf8", f"byte {e.start} is not UTF-8")
    except json.JSONDecodeError as e:
        return Dead("invalid_json", f"{e.msg} at line {e.lineno} column {e.colno}")
    except _Constant as e:
        return Dead("invalid_json", str(e))
    except RecursionError:
        return Dead("invalid_json", f"nested too deep; at most {MAX_DEPTH} levels")
    if not isinstance(parsed, dict):
        return Dead("not_an_object", "a request is a JSON object")
    if not _fits(check_id, parsed.get("request_id")):
        return Dead("no_request_id", "request_id must be a string of 1 to 128 characters, none of them a control character")

    created_at = _arrival(timestamp_ms, now)
    too_deep = text.count("[") + text.count("{") > MAX_DEPTH and _depth(parsed) > MAX_DEPTH

    def facts(digest: str, metadata: dict[str, Any] | None, deadline_at: datetime | None = None) -> Facts:
        return Facts(
            request_id=parsed["request_id"],
            tenant=_fits(check_tenant, parsed.get("tenant")),
            feature=_fits(check_id, parsed.get("feature")),
            user=_fits(check_id, parsed.get("user")),
            experiment=_fits(check_id, parsed.get("experiment")),
            lane=lane,
            body_hash=digest,
            created_at=created_at,
            deadline_at=deadline_at or created_at + DEFAULT_DEADLINE[lane],
            trace_id=trace_id,
            metadata=metadata,
        )

    def reject(code: ReasonCode, message: str, metadata: dict[str, Any] | None = None) -> End:
        # Such an ending claims no id, so its hash is compared with nothing: the bytes will do, whatever they hold.
        return end(facts(hashlib.sha256(value).hexdigest(), metadata or {}), "rejected", code, message)

    if len(value) > MAX_REQUEST_BYTES:
        return reject("too_large", f"the record has {len(value)} bytes; at most {MAX_REQUEST_BYTES}")
    if uncarried:
        return reject("invalid_request", uncarried)
    if too_deep:
        return reject("invalid_request", f"nested too deep; at most {MAX_DEPTH} levels")
    try:
        request = Request.model_validate_json(value)
    except ValidationError as e:
        faults = e.errors(include_url=False, include_input=False)
        # Text that pydantic could not parse (half a surrogate pair) cannot be sent back either.
        given = parsed.get("metadata") if faults[0]["type"] != "json_invalid" else None
        return reject("invalid_request", _told(faults, parsed), given if isinstance(given, dict) else None)
    return Asked(facts(body_hash(parsed, lane), request.metadata, request.deadline_at), request)


def _arrival(timestamp_ms: int | None, now: datetime) -> datetime:
    """The record's own time, so that a redelivery keeps its deadline; `now` where it is missing or in the future."""
    if timestamp_ms is None or not 0 < timestamp_ms <= now.timestamp() * 1000:
        return now
    return datetime.fromtimestamp(timestamp_ms / 1000, UTC)


def _fits(check: Callable[[str], str], value: Any) -> str | None:
    try:
        return check(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _depth(value: Any) -> int:
    deepest, level = 0, [value]
    while level:
        deepest += 1
        level = [
            child
            for node in level
            for child in (node.values() if isinstance(node, dict) else node if isinstance(node, list) else ())
            if isinstance(child, dict | list)
        ]
    return deepest


def _told(faults: list[ErrorDetails], parsed: dict[str, Any]) -> str:
    """One line a person can act on: `field: what would be right`, the first few fields."""
    by_field: dict[str, list[str]] = {}
    for fault in sorted(faults, key=lambda fault: fault["type"] == "too_short"):
        if fault["type"] == "too_short" and by_field and parsed.get("messages"):
            continue  # pydantic counts the items that fitted; the one that did not has been named
        said = by_field.setdefault(_path(fault, parsed), [])
        if (what := _what(fault)) not in said:
            said.append(what)
    lines = [(f"{field}: " if field else "") + ", or ".join(said) for field, said in list(by_field.items())[:MAX_TOLD]]
    more = len(by_field) - len(lines)
    return "; ".join(lines) + (f"; and {more} more" if more else "")


def _what(fault: ErrorDetails) -> str:
    if fault["type"] == "extra_forbidden":
        return f"unknown; known are {', '.join(Params.model_fields)}"
    if fault["type"] == "missing":
        return "missing"
    if fault["type"] == "too_short":
        return "must hold at least one"
    message = fault["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return message[:1].lower() + message[1:]


def _path(fault: ErrorDetails, parsed: dict[str, Any]) -> str:
    """The field as the user wrote it: pydantic's location without the names of union branches, and with long keys cut."""
    parts: list[str] = []
    node: Any = parsed
    for n, part in enumerate(fault["loc"]):
        last = n == len(fault["loc"]) - 1
        if isinstance(node, dict) and isinstance(part, str) and (part in node or (last and fault["type"] == "missing")):
            parts.append("".join(c for c in part[:40] if c.isprintable()))
            node = node.get(part)
        elif isinstance(node, list) and isinstance(part, int) and part < len(node):
            parts.append(str(part))
            node = node[part]
    return ".".join(parts)
