"""A list of keys or values as a table inside a statement: `given(tenant=Text, …)` reads one JSON parameter named `given`.

So a statement has one text whatever the size of the batch, both databases keep it prepared, and it is written once for both.
Here too: the database's clock. Nothing here fails; a value that is not JSON is a TypeError of `pack`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeEngine

from workers.ledger.tables import Instant


class clock(FunctionElement[datetime]):  # noqa: N801 - reads as the SQL function it is
    """Now, by the database: on PostgreSQL the start of the transaction, so a lock wait makes nobody stale."""

    type = Instant()
    inherit_cache = True


class _elements(FunctionElement[Any]):  # noqa: N801
    name = "elements"
    inherit_cache = True


class _member(FunctionElement[str]):  # noqa: N801
    type = sa.Text()
    inherit_cache = True


class _instant(FunctionElement[datetime]):  # noqa: N801
    type = Instant()
    inherit_cache = True


@compiles(clock)
def _(_element: clock, _compiler: SQLCompiler, **_: Any) -> str:
    return "now()"


@compiles(clock, "sqlite")
def _(_element: clock, _compiler: SQLCompiler, **_: Any) -> str:
    return "strftime('%Y-%m-%d %H:%M:%f000', 'now')"


@compiles(_elements)
def _(element: _elements, compiler: SQLCompiler, **kw: Any) -> str:
    return f"json_array_elements(CAST({compiler.process(element.clauses, **kw)} AS JSON))"


@compiles(_elements, "sqlite")
def _(element: _elements, compiler: SQLCompiler, **kw: Any) -> str:
    return f"json_each({compiler.process(element.clauses, **kw)})"


@compiles(_member)
def _(element: _member, compiler: SQLCompiler, **kw: Any) -> str:
    value, name = element.clauses
    return f"({compiler.process(value, **kw)} ->> {compiler.process(name, **kw)})"


@compiles(_member, "sqlite")
def _(element: _member, compiler: SQLCompiler, **kw: Any) -> str:
    value, name = element.clauses
    return f"json_extract({compiler.process(value, **kw)}, '$.' || {compiler.process(name, **kw)})"


@compiles(_instant)
def _(element: _instant, compiler: SQLCompiler, **kw: Any) -> str:
    return f"timezone('UTC', CAST({compiler.process(element.clauses, **kw)} AS TIMESTAMP))"


@compiles(_instant, "sqlite")
def _(element: _instant, compiler: SQLCompiler, **kw: Any) -> str:
    return compiler.process(element.clauses, **kw)


def given(**columns: type[TypeEngine[Any]]) -> sa.Subquery:
    """The JSON parameter `given` (see `pack`) as a table with these columns."""
    each = _elements(sa.bindparam("given", type_=sa.Text)).table_valued("value", name="element")

    def column(name: str, kind: type[TypeEngine[Any]]) -> sa.Label[Any]:
        member = _member(each.c.value, sa.literal_column(f"'{name}'"))
        return (_instant(member) if kind is Instant else sa.cast(member, kind)).label(name)

    return sa.select(*(column(name, kind) for name, kind in columns.items())).subquery("given")


def pack(rows: Iterable[dict[str, Any]]) -> dict[str, str]:
    """The parameter of a statement that reads `given`."""
    return {"given": json.dumps(list(rows), ensure_ascii=False, default=_text)}


def pack_ids(ids: Iterable[int]) -> dict[str, str]:
    return pack({"id": each} for each in ids)


def _text(value: Any) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).replace(tzinfo=None).isoformat(" ", "microseconds")
    raise TypeError(f"not a value of a statement: {type(value).__name__}")
