"""What an operator sees of a stage process while something is down: its pages, its metrics, and how much CPU it takes."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.kafka.fleet import Fleet
from tests.kafka.topics import PATIENCE_S

SHARE_OF_A_CORE = 0.5
"""A stage that waits takes a hundredth of a core, one that spins a whole one. It is CPU time: a busy machine
only makes it less."""
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Pages:
    alive: int
    ready: int
    wrong: list[str]
    degraded: list[str]


def get(fleet: Fleet, name: str, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", fleet.ports[name], timeout=30)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException):
        return 0, b"{}"
    finally:
        connection.close()


def pages(fleet: Fleet, name: str) -> Pages:
    alive, _ = get(fleet, name, "/livez")
    ready, body = get(fleet, name, "/readyz")
    told: dict[str, Any] = json.loads(body)
    return Pages(alive, ready, told.get("wrong", []), told.get("degraded", []))


def metric(fleet: Fleet, name: str, sample: str, **labels: str) -> float:
    """The sum of a metric's samples with these labels; 0 when there is none."""
    _, text = get(fleet, name, "/metrics")
    families = text_string_to_metric_families(text.decode())
    return sum(s.value for f in families for s in f.samples if s.name == sample and labels.items() <= s.labels.items())


async def seen(fleet: Fleet, name: str, condition: Callable[[], bool], told: str) -> None:
    """Wait until an operator sees this of a process; it is alive all the time."""
    deadline = time.monotonic() + PATIENCE_S
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < deadline, f"{name} never showed {told}: {pages(fleet, name)}"
        assert fleet.running(name), f"{name} has ended"
        await asyncio.sleep(0.1)


async def says(fleet: Fleet, name: str, *words: str) -> Pages:
    """Wait until `/readyz` says that all this is wrong."""
    await seen(fleet, name, lambda: all(any(w in line for line in pages(fleet, name).wrong) for w in words), " and ".join(words))
    found = await asyncio.to_thread(pages, fleet, name)
    assert (found.alive, found.ready) == (200, 503), found
    return found


async def well(fleet: Fleet, names: Iterable[str]) -> None:
    """Wait until these are ready and nothing is degraded."""
    for name in names:
        await seen(fleet, name, lambda name=name: _well(pages(fleet, name)), "health")  # type: ignore[misc]


def _well(found: Pages) -> bool:
    return (found.alive, found.ready, found.wrong, found.degraded) == (200, 200, [], [])


class Cpu:
    """CPU time of these processes from here on."""

    def __init__(self, fleet: Fleet, names: Iterable[str]) -> None:
        self._pids = {name: fleet.processes[name].pid for name in names}
        self._began = time.monotonic()
        self._before = {name: _cpu_s(pid) for name, pid in self._pids.items()}

    def assert_calm(self) -> None:
        passed = time.monotonic() - self._began
        took = {name: _cpu_s(pid) - self._before[name] for name, pid in self._pids.items()}
        assert all(s < SHARE_OF_A_CORE * passed for s in took.values()), f"CPU seconds in {passed:.1f} s: {took}"


def _cpu_s(pid: int) -> float:
    # After the name, which may hold spaces: utime and stime are the 14th and 15th field of the line.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS
