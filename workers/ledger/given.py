"""A list of keys or values as a table inside a statement: `given(tenant=Text, …)` reads one JSON parameter named `given`.

So a statement has one text whatever the size of the batch, both databases keep it prepared, and it is written once for both.
Here too: the database's clock, and two statements in one. Nothing here fails; a value that is not JSON is a TypeError of `pack`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeEngine

from workers.ledger.connection import Connection
from workers.ledger.tables import Instant


class clock(FunctionElement[datetime]):  # noqa: N801 - reads as the SQL function it is
    """Now, by the database: on PostgreSQL the start of the transaction, so a lock wait makes nobody stale."""

    type = Instant()
    inherit_cache = True


_NOW = sa.select(clock())


async def read_clock(connection: Connection) -> datetime:
    [(now,)] = await connection.execute(_NOW)
    return now  # type: ignore[no-any-return]


class _rows(FunctionElement[Any]):  # noqa: N801
    """The JSON parameter, then the columns."""

    name = "given"
    inherit_cache = True


@compiles(clock)
def _(_element: clock, _compiler: SQLCompiler, **_: Any) -> str:
    return "now()"


@compiles(clock, "sqlite")
def _(_element: clock, _compiler: SQLCompiler, **_: Any) -> str:
    return "strftime('%Y-%m-%d %H:%M:%f000', 'now')"


@compiles(_rows)
def _(element: _rows, compiler: SQLCompiler, **kw: Any) -> str:
    parameter, *columns = element.clauses
    typed, read = [], []
    for column in columns:
        name = compiler.preparer.quote(column.name)
        at = isinstance(column.type, Instant)
        kind = sa.TIMESTAMP() if at else column.type  # pack writes UTC, without saying so
        typed.append(f"{name} {compiler.dialect.type_compiler_instance.process(kind)}")
        read.append(f"timezone('UTC', {name}) AS {name}" if at else name)
    rows = f"json_to_recordset(CAST({compiler.process(parameter, **kw)} AS JSON)) AS each ({', '.join(typed)})"
    return f"(SELECT {', '.join(read)} FROM {rows})"


@compiles(_rows, "sqlite")
def _(element: _rows, compiler: SQLCompiler, **kw: Any) -> str:
    parameter, *columns = element.clauses
    names = [column.name for column in columns]
    read = ", ".join(f"json_extract(value, '$.{name}') AS {compiler.preparer.quote(name)}" for name in names)
    return f"(SELECT {read} FROM json_each({compiler.process(parameter, **kw)}))"


def given(parameter: str = "given", /, **columns: type[TypeEngine[Any]] | TypeEngine[Any]) -> sa.TableValuedAlias:
    """The JSON `parameter` (see `pack`) as a table of its name with these columns."""
    each = [sa.column(name, sa.types.to_instance(kind)) for name, kind in columns.items()]
    return _rows(sa.bindparam(parameter, type_=sa.Text), *each).table_valued(*each, name=parameter)


def pack(rows: Iterable[Mapping[str, Any]], parameter: str = "given") -> dict[str, str]:
    """The parameter of a statement that reads `given`."""
    return {parameter: json.dumps(list(rows), ensure_ascii=False, default=_text)}


def piece_of(rows: sa.FromClause, name: str, parameter: str) -> sa.ColumnElement[bytes]:
    """A row's piece of the parameter that holds the bytes of all, for JSON has none: from its `name_from` on, `name_size` bytes."""
    of = sa.bindparam(parameter, type_=sa.LargeBinary)
    return sa.func.substr(of, rows.c[f"{name}_from"], rows.c[f"{name}_size"], type_=sa.LargeBinary)


def pack_ids(ids: Iterable[int]) -> dict[str, str]:
    return pack({"id": each} for each in ids)


def _text(value: Any) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).replace(tzinfo=None).isoformat(" ", "microseconds")
    raise TypeError(f"not a value of a statement: {type(value).__name__}")


class Together:
    """Two statements that write, neither what the other reads. PostgreSQL is sent them as one, which saves a round trip; SQLite knows no
    such thing, and has no round trips."""

    def __init__(self, first: sa.Update, then: sa.Insert | sa.Update) -> None:
        self._apart = first, then
        self._joined = then.add_cte(first.cte("first"))

    async def execute(self, connection: Connection, *parameters: dict[str, Any]) -> None:
        """`parameters` of the first, and of the other."""
        if connection.on_postgres:
            await connection.execute(self._joined, parameters[0] | parameters[1])
        else:
            for statement, given_to_it in zip(self._apart, parameters, strict=True):
                await connection.execute(statement, given_to_it)
