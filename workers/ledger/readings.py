"""What the alerts look at: counters of budgets, money of calls that were cut off, calls without a price, what features spent a day.

Reads only; each reading is bounded by an index on time, the last one by the attempts of the days it is asked for.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Literal

import sqlalchemy as sa

from workers.ledger.budgets import Window
from workers.ledger.connection import Connection
from workers.ledger.given import read_clock
from workers.ledger.queries import plan_for_many
from workers.ledger.tables import attempt, budget_usage, request
from workers.ledger.types import to_dollars

Span = tuple[datetime, datetime]
"""`start <= time < end`, in UTC."""


@dataclass(frozen=True, slots=True)
class Usage:
    """A counter of a budget. `used`, spent and reserved, is dollars or tokens by its `kind`."""

    scope: str
    kind: Literal["usd", "tokens"]
    window: Window
    starts_at: datetime
    used: Decimal | int


@dataclass(frozen=True, slots=True)
class CutOff:
    """Calls that were cut off: how many, and what they cost at the worst."""

    attempts: int
    cost: Decimal


async def now(connection: Connection) -> datetime:
    """By the database's clock, as the windows are."""
    return await read_clock(connection)


async def usage(connection: Connection, windows: Collection[tuple[Window, datetime]]) -> list[Usage]:
    """The counters of these windows (unit, start) that count anything."""
    used = (budget_usage.c.reserved + budget_usage.c.spent).label("used")
    counters = sa.select(budget_usage.c.scope, budget_usage.c.kind, budget_usage.c.window, budget_usage.c.starts_at, used)
    found = await connection.execute(counters.where(budget_usage.c.starts_at.in_({start for _, start in windows}), used > 0))
    return [
        Usage(r.scope, r.kind, r.window, r.starts_at, to_dollars(r.used) if r.kind == "usd" else r.used)
        for r in found
        if (r.window, r.starts_at) in windows
    ]


async def cut_off(connection: Connection, day: Span) -> dict[str, CutOff]:
    """The unconfirmed attempts of a day, by tenant."""
    lost = (
        sa.select(request.c.tenant, sa.func.count().label("attempts"), sa.func.sum(attempt.c.cost).label("cost"))
        .join_from(attempt, request)
        .where(attempt.c.state == sa.literal_column("'unconfirmed'"), *_within(day))  # a literal, so that the partial index fits
        .group_by(request.c.tenant)
    )
    return {r.tenant: CutOff(r.attempts, to_dollars(int(r.cost))) for r in await connection.execute(lost)}


async def unpriced(connection: Connection, day: Span) -> dict[str, int]:
    """How many attempts of a day were made without a price, by model."""
    calls = (
        sa.select(attempt.c.model, sa.func.count().label("attempts"))
        .where(attempt.c.price_id.is_(None), attempt.c.state != "abandoned", *_within(day))
        .group_by(attempt.c.model)
    )
    return {r.model: r.attempts for r in await connection.execute(calls)}


async def spent_by_feature(connection: Connection, day: Span) -> dict[str, Decimal]:
    """What a day's attempts cost, those that were cut off at their worst case included, by feature; only what cost anything."""
    await plan_for_many(connection)
    spent = (
        sa.select(request.c.feature, sa.func.sum(attempt.c.cost).label("cost"))
        .join_from(attempt, request)
        .where(attempt.c.cost > 0, request.c.feature.is_not(None), *_within(day))
        .group_by(request.c.feature)
    )
    return {r.feature: to_dollars(int(r.cost)) for r in await connection.execute(spent)}


def _within(span: Span) -> tuple[sa.ColumnElement[bool], sa.ColumnElement[bool]]:
    return attempt.c.opened_at >= span[0], attempt.c.opened_at < span[1]
