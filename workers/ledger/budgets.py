"""Which budgets a request must fit, and the windows they count in. Pure; an unknown time zone is a ZoneInfoNotFoundError."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Literal
from zoneinfo import ZoneInfo

from schemas import Facts
from workers.ledger.types import Hold
from workers.policy import Budget, Policy

Window = Literal["minute", "hour", "day", "month"]


def holds(policy: Policy, facts: Facts) -> tuple[Hold, ...]:
    """The policy's budgets that apply to a request, in the policy's order. A scope that names a user or experiment leaves requests without
    one alone; `*` counts each value on its own; `{}` is the whole fleet."""
    found = []
    for budget in policy.budgets:
        scope = _scope(budget, facts)
        if scope is None:
            continue
        kind: Literal["usd", "tokens"] = "usd" if budget.limit_usd is not None else "tokens"
        limit = budget.limit_usd if budget.limit_usd is not None else budget.limit_tokens
        assert limit is not None  # the policy demands exactly one
        text = json.dumps(scope, sort_keys=True, ensure_ascii=False)
        found.append(Hold(text, kind, budget.window, policy.timezone, limit, budget.degrade_at, budget.on_exceed == "wait"))
    return tuple(found)


def _scope(budget: Budget, facts: Facts) -> dict[str, str] | None:
    scope: dict[str, str] = {}
    for dimension, wanted in budget.scope.items():
        value: str | None = getattr(facts, dimension)
        if value is None or wanted not in ("*", value):
            return None
        scope[dimension] = value
    return scope


@lru_cache(maxsize=256)
def window(unit: Window, timezone: str, now: datetime) -> tuple[datetime, datetime]:
    """Start and end, in UTC, of the window that `now` (aware) lies in, by the wall clock of `timezone`: `start <= now < end`.

    A day or month is as long as the calendar makes it (23 or 25 hours when the clocks change).
    """
    zone = ZoneInfo(timezone)
    now = now.astimezone(UTC)
    local = now.astimezone(zone)
    if unit in ("minute", "hour"):
        # In elapsed time, not wall time: an hour that the clocks repeat is two windows.
        into = timedelta(minutes=local.minute if unit == "hour" else 0, seconds=local.second, microseconds=local.microsecond)
        start = now - into
        return start, start + timedelta(**{f"{unit}s": 1})
    first = local.date().replace(day=1) if unit == "month" else local.date()
    after = (first + timedelta(days=32)).replace(day=1) if unit == "month" else first + timedelta(days=1)
    return _midnight(first, zone), _midnight(after, zone)


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    # fold=0: the first of two midnights; one that the clocks skip becomes the moment they skip it.
    return datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC)
