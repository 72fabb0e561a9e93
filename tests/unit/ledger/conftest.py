"""Every test that asks for `url` runs twice: on a SQLite file and on PostgreSQL, each with an empty ledger of the newest revision."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import asyncpg  # type: ignore[import-untyped]
import pytest

from tests.servers.postgres import database
from workers.ledger.ledger import Ledger
from workers.ledger.migrate import upgrade

TABLES = ("attempt", "request", "budget_usage", "price", "worker", "alert")

Start = Callable[..., Awaitable[Ledger]]


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ledger") / "template.db"
    asyncio.run(upgrade(f"sqlite+aiosqlite:///{path}"))
    return path


@pytest.fixture(scope="session")
def postgres_ledger() -> Iterator[str]:
    with database() as url:
        asyncio.run(upgrade(url))
        yield url


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        shutil.copy(request.getfixturevalue("sqlite_template"), tmp_path / "ledger.db")
        return f"sqlite+aiosqlite:///{tmp_path / 'ledger.db'}"
    url: str = request.getfixturevalue("postgres_ledger")
    asyncio.run(_empty(url))
    return url


async def _empty(url: str) -> None:
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    # TRUNCATE would make new files, and take four times as long.
    await connection.execute("".join(f"DELETE FROM {table};" for table in TABLES))
    await connection.close()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database without a ledger."""
    if request.param == "sqlite":
        yield f"sqlite+aiosqlite:///{tmp_path / 'empty.db'}"
        return
    with database() as url:
        yield url


@pytest.fixture
async def start(url: str) -> AsyncIterator[Start]:
    """Starts workers on the ledger. They beat once and then not again, so that a test decides who is stale (`silence`)."""
    started: list[Ledger] = []

    async def _start(name: str = "worker", **settings: float) -> Ledger:
        known = {"heartbeat_s": 3600.0, "stale_s": 600.0, "keep_days": 7.0, "pool_size": 2, **settings}
        ledger = Ledger(url, name=name, **known)  # type: ignore[arg-type]
        started.append(ledger)
        await ledger.start()
        return ledger

    yield _start
    for ledger in started:
        await ledger.close()


@pytest.fixture
async def ledger(start: Start) -> Ledger:
    return await start()
