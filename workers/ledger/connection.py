"""What the verbs do a transaction's statements on: one interface, whichever the database, and SQLite's side of it.

Statements are SQLAlchemy's for both. SQLite's go through its engine; PostgreSQL's go straight to the driver (`postgres.py`), for what
SQLAlchemy does around a statement costs a worker more than the statement does. All errors are the database's own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

R = TypeVar("R")

Row: TypeAlias = Any
"""A tuple whose values have the columns' names as well."""
Values: TypeAlias = Mapping[str, Any]


class Connection(Protocol):
    """Within a transaction."""

    on_postgres: bool

    async def execute(self, statement: sa.Executable, values: Values | Sequence[Values] | None = None) -> list[Row]:
        """The rows that the statement returns. With several `values` it is done once for each, and returns none."""
        ...


class Transactions(Protocol):
    """Where they come from."""

    async def run(self, work: Callable[[Connection], Awaitable[R]], *, reads_only: bool, single: bool) -> R:
        """What `work` returns, once it is committed. After an error, or when cancelled, nothing of it is. `single`: it is one statement, or
        none."""
        ...

    async def close(self) -> None: ...


class OnSqlite:
    def __init__(self, connection: AsyncConnection) -> None:
        self.on_postgres = False
        self._connection = connection

    async def execute(self, statement: sa.Executable, values: Values | Sequence[Values] | None = None) -> list[Row]:
        result = await self._connection.execute(statement, values)
        return list(result) if result.returns_rows else []


class SqliteTransactions:
    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def run(self, work: Callable[[Connection], Awaitable[R]], *, reads_only: bool, single: bool) -> R:  # noqa: ARG002
        async with self._engine.connect() as connection:
            if reads_only:
                await connection.execution_options(reads_only=True)
            async with connection.begin():
                return await work(OnSqlite(connection))

    async def close(self) -> None:
        await self._engine.dispose()
