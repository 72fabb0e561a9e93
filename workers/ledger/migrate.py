"""The ledger's schema: bring it up to date, or check that it is.

Only `scrimp ledger upgrade`, `up`, `demo` and `run all` upgrade; everything else checks. Several processes may upgrade at once: they queue
at a lock. `LedgerNotReady` says in one line what to do; a database that cannot be reached is `Unavailable`.
"""

from __future__ import annotations

import asyncio
import os.path
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from workers.ledger.database import Reaching, make_engine

_LOCK = 0x73637269  # one number for "scrimp", among the advisory locks of the database


class LedgerNotReady(Exception):
    """The ledger is missing, or older or newer than this program."""


async def upgrade(url: str) -> str:
    """Make the ledger at `url`, or bring it up to date; returns its revision. Does nothing when it is.

    Raises:
        LedgerNotReady: it is newer than this program.
        Unavailable: the database cannot be reached.
    """
    engine = make_engine(url, 1)
    try:
        with Reaching():
            async with engine.begin() as connection:  # on SQLite this waits for the write lock
                if connection.dialect.name == "postgresql":
                    await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
                return await connection.run_sync(_upgrade)
    finally:
        await engine.dispose()


async def check(url: str) -> None:
    """Returns when the ledger at `url` fits this program.

    Raises:
        LedgerNotReady: it does not.
        Unavailable: the database cannot be reached.
    """
    file = sa.make_url(url).database or ""
    if url.startswith("sqlite") and not await asyncio.to_thread(os.path.exists, file):  # to connect would make the file
        raise LedgerNotReady(f"there is no ledger at {file}; `scrimp ledger upgrade` makes one")
    engine = make_engine(url, 1)
    try:
        with Reaching():
            async with engine.connect() as connection:
                found = await connection.run_sync(_revision)
    finally:
        await engine.dispose()
    head = _scripts().get_current_head()
    if found is None:
        raise LedgerNotReady("the database holds no ledger; `scrimp ledger upgrade` makes one")
    if found not in _known():
        raise LedgerNotReady(_newer(found))
    if found != head:
        raise LedgerNotReady(f"the ledger is older ({found}) than this program ({head}); run `scrimp ledger upgrade`")


def _config() -> Config:
    config = Config()
    here = Path(__file__).parent / "migrations"
    config.set_main_option("script_location", str(here).replace("%", "%%"))
    return config


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())


def _known() -> set[str]:
    return {script.revision for script in _scripts().walk_revisions()}


def _revision(connection: sa.Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _newer(found: str) -> str:
    return f"the ledger is newer ({found}) than this program; install the scrimp that ran `scrimp ledger upgrade` on it"


def _upgrade(connection: sa.Connection) -> str:
    found = _revision(connection)
    if found is not None and found not in _known():
        raise LedgerNotReady(_newer(found))
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
    revision = _revision(connection)
    assert revision is not None
    return revision
