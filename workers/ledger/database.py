"""Engines and transactions of the ledger: one place that knows the two databases apart and says what counts as unreachable.

`Database.transact` runs a function in one transaction. A connection or time-out error becomes `Unavailable("ledger", …)`, whose text holds
the error's kind and no statement or value; a deadlock or serialization failure is tried again; anything else is a bug and passes through.
"""

from __future__ import annotations

import asyncio
import errno
import random
import sqlite3
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import asyncpg  # type: ignore[import-untyped]
import sqlalchemy as sa
from sqlalchemy.engine.interfaces import DBAPIConnection, DBAPICursor
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.util import await_only

from workers.ledger.connection import Connection, SqliteTransactions, Transactions
from workers.ledger.postgres import CLOSE_S, SERVER_SETTINGS, PostgresTransactions
from workers.outcomes import Unavailable

R = TypeVar("R")

TRIES = 6
"""Of a transaction that met a deadlock or a serialization failure."""
TIMEOUT_S = 30.0
"""Of a whole transaction, waiting for a connection included."""

_RETRIED = {"40001", "40P01"}  # serialization_failure, deadlock_detected
_UNREACHABLE = ("08", "28", "3D", "57P", "53", "57014", "55P03", "25006", "42501")
"""Connection, no entry (a changed password), no such database (it is being restored), shutdown, resources, time-outs, a standby, a right
that is missing until somebody gives it."""
_POSTGRES_TOLD = {
    "28P01": "this password is not taken",
    "28": "this user is not let in",
    "3D000": "there is no such database",
    "25006": "the database is read-only",
    "42501": "this user lacks a right on the tables, or to make them",
    "53100": "disk is full",
    "53300": "too many connections",
    "57P03": "the server starts or stops",
}
"""The usual ones in words: the driver's name for them says little, and through SQLAlchemy it is `Error` for all."""
_SQLITE_UNREACHABLE = {
    sqlite3.SQLITE_BUSY: "database is locked",
    sqlite3.SQLITE_LOCKED: "database is locked",
    sqlite3.SQLITE_CANTOPEN: "unable to open database file: can its folder be written?",
    sqlite3.SQLITE_IOERR: "disk I/O error: is the disk full?",
    sqlite3.SQLITE_FULL: "disk is full",
    sqlite3.SQLITE_READONLY: "file is read-only",
    sqlite3.SQLITE_NOTADB: "file is not a database",
    sqlite3.SQLITE_CORRUPT: "file is damaged",
}

REFUSALS = (DBAPIError, asyncpg.PostgresError, asyncpg.InterfaceError)
"""What comes of `transact` when the database is reached and says no. What it says before there is a connection comes unwrapped."""


def make_engine(url: str, pool_size: int, timeout_s: float = TIMEOUT_S) -> AsyncEngine:
    """An engine for `sqlite+aiosqlite:///…` or `postgresql+asyncpg://…`. Opens nothing yet. Nothing it waits for takes `timeout_s`."""
    parsed = sa.make_url(url)
    options: dict[str, Any] = {"hide_parameters": True, "max_overflow": 0, "pool_timeout": timeout_s}
    if parsed.get_backend_name() == "postgresql":
        options["isolation_level"] = "READ COMMITTED"  # after a lock, a new statement must see what the lock waited for
        connect = {"timeout": timeout_s, "server_settings": SERVER_SETTINGS}
        return create_async_engine(parsed, pool_size=pool_size, connect_args=connect, **options)
    # One writer at a time is all SQLite has: a queue of tasks here is fairer than its busy handler's polling.
    engine = create_async_engine(parsed, pool_size=1, poolclass=sa.AsyncAdaptedQueuePool, **options)
    sa.event.listen(engine.sync_engine, "do_connect", partial(_find_place, Path(parsed.database or "scrimp.db")))
    # Shorter than the transaction's time-out, so that "database is locked" is what it says.
    sa.event.listen(engine.sync_engine, "connect", partial(_set_up_sqlite, busy_ms=int(timeout_s * 700)))
    sa.event.listen(engine.sync_engine, "begin", _begin_sqlite)
    return engine


def _find_place(file: Path, *_: object) -> None:
    # The driver would say less, and leave a thread behind that complains when the loop closes.
    if not file.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, f"there is no folder {file.parent}")
    if file.is_dir():
        raise IsADirectoryError(errno.EISDIR, f"{file} is a folder")


def _set_up_sqlite(connection: DBAPIConnection, _record: object, *, busy_ms: int) -> None:
    # The driver would begin late and DEFERRED: two readers that both come to write fail at once, without waiting.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in (f"busy_timeout={busy_ms}", "synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    _to_wal(cursor, busy_ms / 1000)
    cursor.close()


def _to_wal(cursor: DBAPICursor, patience_s: float) -> None:
    # SQLite asks its busy handler for every lock but the one that turns a new file to WAL: of two openers at once one would fail.
    until = time.monotonic() + patience_s
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            await_only(asyncio.sleep(random.uniform(0.001, 0.02)))
        else:
            return


def _begin_sqlite(connection: sa.Connection) -> None:
    reads = connection.get_execution_options().get("reads_only", False)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


def unreachable(error: BaseException) -> str | None:
    """Why the database cannot be reached, in a few words without data; None when the error is of another kind."""
    if isinstance(error, PoolTimeoutError):
        return "no free connection"
    if isinstance(error, TimeoutError):
        return "timed out"
    if isinstance(error, OSError):
        # One without a code is asyncpg's, of a server that will not speak TLS.
        return error.strerror or (str(error) if type(error) is ConnectionError else type(error).__name__)
    if isinstance(error, DBAPIError):
        cause = error.orig
        if isinstance(cause, sqlite3.Error):
            return _SQLITE_UNREACHABLE.get(getattr(cause, "sqlite_errorcode", 0) & 0xFF)
        if error.connection_invalidated:
            return "connection lost"
        return unreachable(cause) if cause is not None and not isinstance(cause, DBAPIError) else None
    code = sqlstate(error)
    if not code or not code.startswith(_UNREACHABLE):
        return None
    return f"{_POSTGRES_TOLD.get(code) or _POSTGRES_TOLD.get(code[:2]) or type(error).__name__} ({code})"


def sqlstate(error: BaseException) -> str | None:
    """PostgreSQL's code of an error, whether it comes from the driver or wrapped."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    return getattr(cause, "sqlstate", None)


class Reaching:
    """`with Reaching():` turns connection and time-out errors into `Unavailable`."""

    def __enter__(self) -> None: ...

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, SQLAlchemyError | OSError | asyncpg.PostgresError) and (why := unreachable(error)) is not None:
            raise Unavailable("ledger", why) from error


def _transactions(url: str, pool_size: int, timeout_s: float) -> Transactions:
    parsed = sa.make_url(url)
    if parsed.get_backend_name() == "postgresql":
        return PostgresTransactions(parsed, pool_size, timeout_s)
    return SqliteTransactions(make_engine(url, pool_size, timeout_s))


class Database:
    """A pool of connections."""

    def __init__(self, url: str, pool_size: int, timeout_s: float = TIMEOUT_S) -> None:
        self.on_postgres = sa.make_url(url).get_backend_name() == "postgresql"
        self._transactions = _transactions(url, pool_size, timeout_s)
        self._timeout_s = timeout_s

    async def single(self, work: Callable[[Connection], Awaitable[R]]) -> R:
        """`transact` for work that is one statement or none: on PostgreSQL without the round trips of BEGIN and COMMIT."""
        return await self.transact(work, single=True)

    async def transact(self, work: Callable[[Connection], Awaitable[R]], *, reads_only: bool = False, single: bool = False) -> R:
        """What `work` returns, once it is committed. `work` may run several times and must have no effect but in the database.

        Raises:
            Unavailable: the database cannot be reached. Whether the transaction took place is unknown; the verbs may be repeated.
        """
        for tries in range(TRIES):
            with Reaching():
                try:
                    async with asyncio.timeout(self._timeout_s):
                        return await self._transactions.run(work, reads_only=reads_only, single=single)
                except REFUSALS as error:
                    if sqlstate(error) not in _RETRIED and not isinstance(error, asyncpg.InvalidCachedStatementError):
                        raise
            await asyncio.sleep(random.uniform(0, 0.02 * 2**tries))
        raise Unavailable("ledger", f"{TRIES} deadlocks or serialization failures in a row")

    async def close(self) -> None:
        """Take leave of the server. One that hangs is not waited for: the process ends, and its connections with it."""
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await self._transactions.close()
