"""Every test that asks for `url` runs twice: on a SQLite file and on PostgreSQL, each with an empty ledger of the newest revision."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from tests.servers.postgres import database
from tests.unit.ledger.scenario import execute
from workers.ledger.ledger import Ledger
from workers.ledger.migrate import upgrade

TABLES = "attempt, request, budget_usage, price, worker, alert"

Start = Callable[..., Awaitable[Ledger]]


@pytest.fixture(scope="module")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ledger") / "template.db"
    asyncio.run(upgrade(f"sqlite+aiosqlite:///{path}"))
    return path


@pytest.fixture(scope="module")
def postgres_ledger(postgres: str) -> str:
    asyncio.run(upgrade(postgres))
    return postgres


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        shutil.copy(request.getfixturevalue("sqlite_template"), tmp_path / "ledger.db")
        return f"sqlite+aiosqlite:///{tmp_path / 'ledger.db'}"
    url: str = request.getfixturevalue("postgres_ledger")
    asyncio.run(execute(url, f"TRUNCATE {TABLES}"))
    return url


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
