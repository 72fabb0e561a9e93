"""Where the money went: sums over the rows, by what they have in common. Reads only, in one snapshot, so that parts equal their whole.

A request counts with all its attempts, at the time that its CostRecord names: when it ended; one that is under way, when it arrived.
By tier and by model an attempt counts for the one that was called, a request for the one that answered: calls are what the provider's
invoice lists. A database that cannot be reached is `Unavailable`; one that answers nothing for `TIMEOUT_S` too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from typing import Any, Literal, get_args

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from workers.ledger.budgets import Window, window
from workers.ledger.connection import Connection, Row
from workers.ledger.database import Database
from workers.ledger.tables import attempt, request
from workers.ledger.types import to_dollars

Dimension = Literal["tenant", "feature", "user", "experiment", "tier", "model", "purpose", "window"]
DIMENSIONS: tuple[Dimension, ...] = get_args(Dimension)
Group = str | datetime | None
"""What the rows of a group have in common; a window by its start; None: they name none."""

TIMEOUT_S = 600.0
"""Of a whole report: it may read every row there is."""
QUARTER_S = 900
"""Every time zone's days and hours begin on a quarter of an hour in UTC."""
LEVERS = ("routing", "cache", "compression", "batch")
_NONE = Decimal(0)


@dataclass(frozen=True, slots=True)
class Figures:
    """The sums of some rows. Counts are exact, and so is money."""

    requests: int = 0
    answered: int = 0
    rejected: int = 0
    expired: int = 0
    failed: int = 0
    under_way: int = 0
    cache_hits: int = 0
    attempts: int = 0
    """Provider calls that were granted and not given back."""
    unpriced: int = 0
    """Attempts whose price nobody knows: they cost something, and count 0."""
    input_tokens: int = 0
    output_tokens: int = 0
    """Of settled attempts."""
    spent_usd: Decimal = _NONE
    """Settled attempts, unrounded, also of requests under way."""
    unconfirmed_usd: Decimal = _NONE
    """Attempts that were cut off, at their worst case."""
    cost_usd: Decimal = _NONE
    """As the CostRecords have it: ended requests, each rounded to the micro-dollar."""
    baseline_usd: Decimal = _NONE
    """The same requests on the reference model."""
    routing_usd: Decimal = _NONE
    cache_usd: Decimal = _NONE
    compression_usd: Decimal = _NONE
    batch_usd: Decimal = _NONE

    def __add__(self, other: Figures) -> Figures:
        return Figures(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @property
    def saved_usd(self) -> Decimal:
        """`baseline - cost`, which the levers add up to."""
        return self.routing_usd + self.cache_usd + self.compression_usd + self.batch_usd


@dataclass(frozen=True, slots=True)
class Question:
    """What a report is about. `since <= time < until`; None: no bound. `timezone` and `unit` are those of the windows."""

    by: tuple[Dimension, ...] = DIMENSIONS
    since: datetime | None = None
    until: datetime | None = None
    unit: Window = "day"
    timezone: str = "UTC"


@dataclass(frozen=True, slots=True)
class Report:
    total: Figures
    by: Mapping[Dimension, Mapping[Group, Figures]] = field(default_factory=dict)


async def report(url: str, question: Question) -> Report:
    """The sums that `question` asks for.

    Raises:
        Unavailable: the database cannot be reached.
    """
    database = Database(url, 1, timeout_s=TIMEOUT_S)
    try:
        return await database.transact(partial(_report, question=question), reads_only=True)
    finally:
        await database.close()


async def _report(connection: Connection, question: Question) -> Report:
    await one_snapshot(connection)
    total = (await _sums(connection, question, None)).get(None, Figures())
    return Report(total, {dimension: await _sums(connection, question, dimension) for dimension in question.by})


async def one_snapshot(connection: Connection) -> None:
    """All statements of this transaction see the same rows, and may be planned for many of them. SQLite gives the first for nothing."""
    if connection.on_postgres:
        await connection.execute(sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"))
        await plan_for_many(connection)


async def plan_for_many(connection: Connection) -> None:
    """The verbs look rows up by their keys and forbid all other plans (`postgres.SERVER_SETTINGS`). This transaction reads many."""
    if connection.on_postgres:
        for allowed in ("enable_seqscan", "enable_hashjoin", "enable_mergejoin"):
            await connection.execute(sa.text(f"SET LOCAL {allowed} = on"))
    await plan_by_values(connection)


async def plan_by_values(connection: Connection) -> None:
    """The verbs' values are JSON, of which a plan learns nothing, and they are planned once. How many rows this transaction finds depends
    on its values: a tenant's, or those since some time."""
    if connection.on_postgres:
        await connection.execute(sa.text("SET LOCAL plan_cache_mode = auto"))


class _slot(FunctionElement[int]):  # noqa: N801 - reads as the SQL function it is
    """How many times `seconds` have passed since 1970."""

    type = sa.BigInteger()
    inherit_cache = True


@compiles(_slot)
def _(element: _slot, compiler: SQLCompiler, **kw: Any) -> str:
    time, seconds = element.clauses
    return f"CAST(floor(extract(epoch FROM {compiler.process(time, **kw)}) / {compiler.process(seconds, **kw)}) AS BIGINT)"


@compiles(_slot, "sqlite")
def _(element: _slot, compiler: SQLCompiler, **kw: Any) -> str:
    time, seconds = element.clauses
    return f"CAST(strftime('%s', {compiler.process(time, **kw)}) AS INTEGER) / {compiler.process(seconds, **kw)}"


_COUNTED_AT = sa.func.coalesce(request.c.ended_at, request.c.created_at, type_=request.c.ended_at.type)


def _counted(condition: sa.ColumnElement[bool]) -> sa.ColumnElement[int]:
    return sa.func.coalesce(sa.func.sum(sa.case((condition, 1), else_=0)), 0)


def _summed(column: sa.ColumnElement[int], condition: sa.ColumnElement[bool] | None = None) -> sa.ColumnElement[int]:
    return sa.func.coalesce(sa.func.sum(column if condition is None else sa.case((condition, column), else_=0)), 0)


_OF_REQUESTS = {
    "requests": sa.func.count(),
    **{status: _counted(request.c.status == status) for status in ("answered", "rejected", "expired", "failed")},
    "under_way": _counted(request.c.ended_at.is_(None)),
    "cache_hits": _counted(request.c.source.in_(("cache_exact", "cache_semantic"))),
    "cost_usd": _summed(request.c.cost),
    "baseline_usd": _summed(request.c.baseline),
    **{f"{lever}_usd": _summed(request.c[lever]) for lever in LEVERS},
}
_SETTLED = attempt.c.state == "settled"
_OF_ATTEMPTS = {
    "attempts": _counted(attempt.c.state != "abandoned"),
    "unpriced": _counted((attempt.c.state != "abandoned") & attempt.c.price_id.is_(None)),
    "input_tokens": _summed(attempt.c.input_tokens, _SETTLED),
    "output_tokens": _summed(attempt.c.output_tokens, _SETTLED),
    "spent_usd": _summed(attempt.c.cost, _SETTLED),
    "unconfirmed_usd": _summed(attempt.c.cost, attempt.c.state == "unconfirmed"),
}


async def _sums(connection: Connection, question: Question, dimension: Dimension | None) -> dict[Group, Figures]:
    slot_s = 60 if question.unit == "minute" else QUARTER_S
    requests = sa.select(*(sums.label(name) for name, sums in _OF_REQUESTS.items())).select_from(request)
    attempts = sa.select(*(sums.label(name) for name, sums in _OF_ATTEMPTS.items())).select_from(attempt).join(request)
    when, found = _COUNTED_AT, dict[Group, Figures]()
    for statement, of_call in ((requests, False), (attempts, True)):
        if question.since is not None:
            statement = statement.where(when >= question.since)
        if question.until is not None:
            statement = statement.where(when < question.until)
        if dimension is not None:
            key = _key(dimension, slot_s, of_call=of_call).label("group_key")
            statement = statement.add_columns(key).group_by(key)
        for group, figures in _read(await connection.execute(statement), question, dimension, slot_s):
            found[group] = found.get(group, Figures()) + figures
    return found


def _key(dimension: Dimension, slot_s: int, *, of_call: bool) -> sa.ColumnElement[Any]:
    if dimension == "window":
        return _slot(_COUNTED_AT, sa.literal_column(str(slot_s)))
    table = attempt if of_call and dimension in ("tier", "model") else request
    return table.c[dimension]


def _read(rows: Iterable[Row], question: Question, dimension: Dimension | None, slot_s: int) -> Iterable[tuple[Group, Figures]]:
    for row in rows:
        values = {name: _value(name, value) for name, value in row._asdict().items() if name != "group_key"}
        yield _group(row.group_key, question, dimension, slot_s) if dimension else None, Figures(**values)


def _group(key: Any, question: Question, dimension: Dimension, slot_s: int) -> Group:
    if dimension != "window":
        return None if key is None else str(key)
    return window(question.unit, question.timezone, datetime.fromtimestamp(key * slot_s, UTC))[0]


def _value(name: str, value: Any) -> Any:
    return to_dollars(int(value)) if name.endswith("_usd") else int(value)
