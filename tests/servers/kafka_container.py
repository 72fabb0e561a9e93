"""Apache Kafka's own image, where a container engine answers; the port is fixed on 127.0.0.1 and the records live in the container.

`create` raises `NotReady` with the engine's words when it has no image and can get none.
"""

from __future__ import annotations

import gc
import shutil
import subprocess
import time
import warnings
from typing import Any

from docker.errors import DockerException
from testcontainers.core.container import DockerContainer

from tests.servers import apache_kafka
from tests.servers.kafka_ready import coordinates
from tests.servers.process import NotReady

IMAGE = f"apache/kafka:{apache_kafka.VERSION}"
PATIENCE_S = 60


def why_not() -> str | None:
    """What keeps containers from running here; None when nothing."""
    if shutil.which("docker") is None:
        return "no docker"
    try:
        done = subprocess.run(["docker", "info"], capture_output=True, timeout=5, check=False)
    except subprocess.TimeoutExpired:
        return "docker does not answer in 5 s"
    return "no container engine answers" if done.returncode else None


class Container:
    """One broker; `start`, `stop`, `kill`, `freeze` and `thaw` keep its records, `remove` does not."""

    def __init__(self, port: int) -> None:
        properties = apache_kafka.ONE_NODE | {
            "controller.quorum.voters": "1@localhost:9093",
            "listeners": "PLAINTEXT://:9092,CONTROLLER://:9093",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        }
        self._address = f"127.0.0.1:{port}"
        self._properties = {"KAFKA_" + name.upper().replace(".", "_"): value for name, value in properties.items()}
        self._port = port
        self._container: DockerContainer | None = None

    def create(self) -> None:
        try:
            self._container = DockerContainer(IMAGE).with_envs(KAFKA_HEAP_OPTS="-Xmx256m", **self._properties)
            self._container.ports["9092/tcp"] = ("127.0.0.1", self._port)
            self._container.start()
        except DockerException as e:
            refused = str(e)[:200]
        else:
            return self._wait()
        # Docker's client drops its socket unclosed; the warning would be an error in whatever test the collector runs.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()
        raise NotReady(f"container: {refused}")

    def start(self) -> None:
        self._engine.start()
        self._wait()

    def stop(self) -> None:
        self._engine.stop()

    def kill(self) -> None:
        self._engine.kill()

    def freeze(self) -> None:
        self._engine.pause()

    def thaw(self) -> None:
        self._engine.unpause()

    def remove(self) -> None:
        if self._container is not None:
            self._container.stop()

    def _wait(self) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not coordinates(self._address):
            if time.monotonic() > deadline:
                raise NotReady(f"{IMAGE} does not answer at {self._address} after {PATIENCE_S} s")
            time.sleep(0.1)

    @property
    def _engine(self) -> Any:
        if self._container is None:
            raise NotReady("the container was not created")
        return self._container.get_wrapped_container()
