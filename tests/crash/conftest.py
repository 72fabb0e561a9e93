"""The crash table: each row a test on Apache Kafka and PostgreSQL, with the harness of `tests/kafka/`, and one fleet for all of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.crash.crew import QUICK
from tests.kafka.conftest import fleet_of
from tests.kafka.conftest import pytest_runtest_makereport as pytest_runtest_makereport
from tests.kafka.conftest import tenant as tenant
from tests.kafka.conftest import topics as topics
from tests.kafka.fleet import Fleet
from tests.servers.kafka import Broker

BUDGET = 'budgets:\n  - {scope: {tenant: "*"}, window: month, limit_usd: 1000, on_exceed: reject}\n'
"""Nobody comes near it; it counts."""


@pytest.fixture(scope="session")
def fleet(kafka: Broker, pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """No process runs at first; what a test needs it starts by `crew.start`, and leaves running."""
    folder = tmp_path_factory.mktemp("crash")
    with fleet_of(kafka, pytestconfig, folder, (), settings=QUICK | {"qdrant__path": folder / "qdrant"}) as fleet:
        fleet.write_policy(BUDGET)
        yield fleet
