"""One fleet for all outages: six stage processes, and a wire that can fail to the ledger, to Qdrant and to the provider each. Kafka itself
is killed and frozen.

Every outage outlasts every time-out it meets. Those are settings, made short here. `SCRIMP_TEST_LONG=all` runs every case; with
`SCRIMP_TEST_LONG=1` the time-outs are the defaults too, and each outage takes minutes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.kafka.conftest import fleet_of
from tests.kafka.conftest import pytest_runtest_makereport as pytest_runtest_makereport
from tests.kafka.conftest import tenant as tenant
from tests.kafka.conftest import topics as topics
from tests.kafka.fleet import POLICY, Fleet
from tests.outage.link import Background, Link
from tests.servers.kafka import Broker
from tests.servers.qdrant import qdrant_over_rest

EVERY = os.environ.get("SCRIMP_TEST_LONG") in ("1", "all")
LONG = os.environ.get("SCRIMP_TEST_LONG") == "1"
STAGES = ("classify", "cache", "remember", "compress", "call", "attribute")
SETTINGS = {
    "kafka__session_timeout_ms": 30_000 if LONG else 4_000,
    "kafka__heartbeat_interval_ms": 3_000 if LONG else 500,
    "kafka__request_timeout_ms": 40_000 if LONG else 2_000,
    "ledger__heartbeat_s": 5 if LONG else 0.5,
    "ledger__stale_s": 15 if LONG else 4,
    "ledger__timeout_s": 30 if LONG else 2,
    "call__timeout_s": 60 if LONG else 8,
    "call__drain_s": 70 if LONG else 9,
    "http__stall_s": 180 if LONG else 9,
}
OUTAGE_S = 200.0 if LONG else 10.0
"""Longer than any of these."""
IN_HAND_S = 4
"""Latency of the calls that an outage finds under way: long enough to begin it meanwhile, also on a busy machine."""


@dataclass(frozen=True)
class Links:
    ledger: Link
    qdrant: Link
    provider: Link


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == Path(__file__).parent:  # the first one also waits until the fleet is up
            item.add_marker(pytest.mark.timeout(600 + 4 * OUTAGE_S))


def later(seconds: float) -> str:
    """A deadline."""
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


@pytest.fixture(scope="session")
def background() -> Iterator[Background]:
    background = Background()
    yield background
    background.close()


@pytest.fixture(scope="session")
def links(_wired: tuple[Fleet, Links]) -> Iterator[Links]:
    return _wired[1]


@pytest.fixture(scope="session")
def fleet(_wired: tuple[Fleet, Links]) -> Fleet:
    return _wired[0]


@pytest.fixture(scope="session")
def _wired(
    kafka: Broker, background: Background, pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Fleet, Links]]:
    if not kafka.durable:
        pytest.skip(f"{kafka.title} keeps nothing over a restart")
    with ExitStack() as on_exit:
        fleet = on_exit.enter_context(fleet_of(kafka, pytestconfig, tmp_path_factory.mktemp("outage"), ()))
        if not fleet.ledger_url.startswith("postgresql"):
            pytest.skip("a file cannot be away")
        qdrant = AsyncExitStack()
        rest = background.run(qdrant.enter_async_context(qdrant_over_rest()))
        on_exit.callback(lambda: background.run(qdrant.aclose()))
        links = Links(*(_link(background, url, on_exit) for url in (fleet.ledger_url, rest.url, fleet.provider.url)))
        fleet.policy.write_text(POLICY.format(url=f"http://127.0.0.1:{links.provider.port}"))
        at = urlsplit(fleet.ledger_url)
        SETTINGS["ledger__url"] = fleet.ledger_url.replace(f"{at.hostname}:{at.port}", f"127.0.0.1:{links.ledger.port}")
        SETTINGS["qdrant__url"] = f"http://127.0.0.1:{links.qdrant.port}"
        fleet.start(*STAGES, **SETTINGS)
        yield fleet, links


def _link(background: Background, url: str, on_exit: ExitStack) -> Link:
    at = urlsplit(url)
    assert at.hostname is not None
    assert at.port is not None
    link = Link(background, at.hostname, at.port)
    on_exit.callback(link.close)
    return link
