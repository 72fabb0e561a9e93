"""What the process tests share: a fleet for each test module on topics of its own, a provider, a ledger, and the logs when a test fails."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from tests.conftest import SERVERS
from tests.kafka.fleet import Fleet
from tests.kafka.provider import Provider
from tests.kafka.topics import Topics
from tests.servers import postgres as postgres_of_the_session
from tests.servers.kafka import Broker
from tests.servers.required import required
from workers.encoder.bundled import bundled
from workers.ledger.migrate import upgrade
from workers.runtime import provision
from workers.settings import Kafka


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[Any]:
    report = yield
    fleet = getattr(item, "funcargs", {}).get("fleet")
    if report.failed and isinstance(fleet, Fleet):
        report.sections += [(f"the end of {name}", text) for name, text in fleet.logs().items()]
    return report


@pytest.fixture(scope="module")
def fleet(request: pytest.FixtureRequest, kafka: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """The module's own fleet, to be stopped and killed: at first its `STAGES` run, on topics of so many `PARTITIONS`."""
    stages, partitions = getattr(request.module, "STAGES", ()), getattr(request.module, "PARTITIONS", 4)
    with fleet_of(kafka, request.config, tmp_path_factory.mktemp("fleet"), stages, partitions) as fleet:
        yield fleet


@pytest.fixture(scope="session")
def calm_fleet(kafka: Broker, pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """All stages of the interactive lane, started by the command line itself; shared by the tests that stop none of them."""
    stages = ("classify", "cache", "compress", "call", "attribute")
    with fleet_of(kafka, pytestconfig, tmp_path_factory.mktemp("calm"), stages, forked=False) as fleet:
        yield fleet


@contextmanager
def fleet_of(
    kafka: Broker,
    config: pytest.Config,
    folder: Path,
    stages: Sequence[str],
    partitions: int = 4,
    settings: Mapping[str, Any] = MappingProxyType({}),
    *,
    forked: bool = True,
) -> Iterator[Fleet]:
    """Topics, tables and a provider are there, and these stages run. `settings` are of all its processes; for `forked` see `Fleet`."""
    prefix = f"p{uuid.uuid4().hex[:8]}."
    kafka_settings = Kafka(bootstrap_servers=kafka.bootstrap, topic_prefix=prefix, partitions=partitions, idempotence=kafka.idempotence)
    with ExitStack() as on_exit:
        ledger_url = on_exit.enter_context(_ledger(config, folder))
        asyncio.run(upgrade(ledger_url))
        asyncio.run(provision.apply(kafka_settings))
        provider = Provider(folder)
        on_exit.callback(provider.close)
        provider.start()
        fleet = Fleet(kafka, prefix, partitions, ledger_url, provider, bundled(), folder, settings, forked)
        on_exit.callback(fleet.close)
        fleet.start(*stages)
        yield fleet


@contextmanager
def _ledger(config: pytest.Config, folder: Path) -> Iterator[str]:
    """A fresh database: PostgreSQL, as in a fleet, or SQLite where there is none and none is required."""
    try:
        postgres_of_the_session.server()
    except postgres_of_the_session.NoServer as error:
        if required("postgres"):
            pytest.fail(f"SCRIMP_REQUIRE names postgres: {error}")
        line = f"ledger of the process tests: SQLite ({error})"
        if line not in config.stash[SERVERS]:
            config.stash[SERVERS].append(line)
        yield f"sqlite+aiosqlite:///{folder}/scrimp.db"
        return
    with postgres_of_the_session.database() as url:
        yield url


@pytest.fixture
async def topics(fleet: Fleet) -> AsyncIterator[Topics]:
    async with Topics(fleet) as topics:
        yield topics


@pytest.fixture
def tenant() -> str:
    """Whose requests are this test's alone; the fleet is the module's."""
    return f"t{uuid.uuid4().hex[:8]}"
