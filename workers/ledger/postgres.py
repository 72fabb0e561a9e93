"""Transactions on PostgreSQL by the driver itself, and the few connections they take turns on.

A statement is compiled once, to a text that the driver keeps prepared. Values go in and come out as the driver has them: for the types of
`tables.py` those are the Python values that SQLAlchemy would give, times in UTC.

A connection is used again only after a COMMIT or ROLLBACK that the server has confirmed, or its answer to a statement that is a transaction
by itself. Whatever else ends a transaction (it is cancelled, times out, the server goes away) closes the connection: a statement under way
is called off, and the server rolls back. Once one is lost, the idle ones are closed as well, for they were probably lost with it. No error
says a value: the server's details quote rows, and the driver's words about a value quote that.
"""

from __future__ import annotations

import asyncio
import errno
from collections import namedtuple
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import asyncpg  # type: ignore[import-untyped]
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
from sqlalchemy.sql.compiler import SQLCompiler

from workers.ledger.connection import Connection, Row, Values

R = TypeVar("R")

SERVER_SETTINGS = {
    "application_name": "scrimp",
    "default_transaction_isolation": "read committed",  # after a lock, a new statement must see what the lock waited for
    # The verbs find every row by a key. Plans made while the tables were empty would scan them until the next ANALYZE.
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    # The verbs' values are JSON, of which a plan learns nothing; made anew each time it takes as long as what it plans.
    "plan_cache_mode": "force_generic_plan",
}
CLOSE_S = 2.0
"""To take leave of a server, or to call off a statement. One that hangs is left without a word."""

_FAILURES = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, RuntimeError)
"""Of the driver, and of the event loop below it: uvloop raises `RuntimeError` at a write to a connection that was just reset."""

_DIALECT = PGDialect_asyncpg()  # type: ignore[no-untyped-call]
_BEGIN = "BEGIN"


# ---- statements


@dataclass(frozen=True, slots=True)
class _Text:
    """A statement as the driver takes it."""

    sql: str
    names: tuple[str, ...]
    """Of `$1` and what follows."""
    fixed: dict[str, Any]
    """The values that stand in the statement itself."""

    def arguments(self, values: Values) -> list[Any]:
        fixed = self.fixed
        return [fixed[name] if name in fixed else values[name] for name in self.names]


_texts: WeakKeyDictionary[sa.Executable, _Text] = WeakKeyDictionary()
"""By the statement object: one made anew for each call is compiled for each call."""


def _text(statement: sa.Executable) -> _Text:
    known = _texts.get(statement)
    if known is None:
        compiled = statement.compile(dialect=_DIALECT, compile_kwargs={"render_postcompile": True})  # type: ignore[attr-defined]
        assert isinstance(compiled, SQLCompiler)
        wanted = {bind.key for bind in compiled.binds.values() if bind.required}
        fixed = {name: value for name, value in compiled.params.items() if name not in wanted}
        known = _texts[statement] = _Text(compiled.string, tuple(compiled.positiontup or ()), fixed)
    return known


@cache
def _row(columns: tuple[str, ...]) -> Callable[[Any], Row]:
    named: Any = namedtuple("Row", columns, rename=True)  # type: ignore[misc]
    make: Callable[[Any], Row] = named._make
    return make


class OnPostgres:
    def __init__(self, raw: asyncpg.Connection) -> None:
        self.on_postgres = True
        self._raw = raw

    async def execute(self, statement: sa.Executable, values: Values | Sequence[Values] | None = None) -> list[Row]:
        text = _text(statement)
        try:
            if isinstance(values, Sequence):
                await self._raw.executemany(text.sql, [text.arguments(each) for each in values])
                return []
            records = await self._raw.fetch(text.sql, *text.arguments(values or {}))
        except asyncpg.PostgresError as error:
            if isinstance(error, asyncpg.DataError) and error.severity is None:  # the driver's, not the server's
                raise asyncpg.DataError("a value that its parameter does not take") from None
            error.detail = None
            raise
        return list(map(_row(tuple(records[0].keys())), records)) if records else []


# ---- connections


class PostgresTransactions:
    """`size` connections to `url` at most, made when they are needed."""

    def __init__(self, url: sa.URL, size: int, timeout_s: float) -> None:
        self._options = _options(url, timeout_s)
        self._places = asyncio.Semaphore(size)
        self._idle: list[asyncpg.Connection] = []
        self._closed = False

    async def run(self, work: Callable[[Connection], Awaitable[R]], *, reads_only: bool, single: bool) -> R:  # noqa: ARG002 - readers lock nobody here
        async with self._places:
            raw = await self._take()
            usable = False
            try:
                if single:  # the server begins and commits it
                    try:
                        result = await work(OnPostgres(raw))
                    except asyncpg.PostgresError:
                        usable = True
                        raise
                    usable = True
                    return result
                await raw.execute(_BEGIN)
                try:
                    result = await work(OnPostgres(raw))
                except Exception:
                    with suppress(*_FAILURES):  # the error to tell is the first
                        await raw.execute("ROLLBACK")
                        usable = True
                    raise
                if await raw.execute("COMMIT") != "COMMIT":  # a statement failed, and `work` went on
                    usable = True
                    raise RuntimeError("the transaction had failed and was rolled back")
                usable = True
                return result
            except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
                # Told to go while it was idle, the driver is out of step first and closed later.
                if raw.is_closed() or isinstance(error, asyncpg.InternalClientError):
                    raise ConnectionResetError(errno.ECONNRESET, "connection lost") from error
                raise
            finally:
                await self._give_back(raw, usable)

    async def close(self) -> None:
        """Take leave of the server; connections in use do so after their transaction."""
        self._closed = True
        await self._leave_idle()

    async def _take(self) -> asyncpg.Connection:
        while self._idle:
            raw = self._idle.pop()
            if not raw.is_closed():
                return raw
        return await asyncpg.connect(**self._options)

    async def _give_back(self, raw: asyncpg.Connection, usable: bool) -> None:
        if raw.is_closed():
            await self._leave_idle()
        elif usable and not self._closed:
            self._idle.append(raw)
        else:
            await _leave(raw)

    async def _leave_idle(self) -> None:
        idle, self._idle = self._idle, []
        await asyncio.gather(*map(_leave, idle))


async def _leave(raw: asyncpg.Connection) -> None:
    with suppress(*_FAILURES):  # the driver has dropped it then
        await raw.close(timeout=CLOSE_S)


def _options(url: sa.URL, timeout_s: float) -> dict[str, Any]:
    """What the URL says, as SQLAlchemy reads it, in the driver's words."""
    _, options = _DIALECT.create_connect_args(url)  # type: ignore[no-untyped-call]
    kept: dict[str, Any] = {name: value for name, value in options.items() if not name.startswith("prepared_statement")}
    if "prepared_statement_cache_size" in options:
        kept["statement_cache_size"] = options["prepared_statement_cache_size"]
    return {**kept, "timeout": timeout_s, "server_settings": SERVER_SETTINGS}  # ours, whatever the URL says: its values are texts
