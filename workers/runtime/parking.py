"""Parked: what every message of a stage needs is down. One probe at a time asks for it; whoever needs it waits here.

Nothing is counted against a message meanwhile, no new record is taken, and the process is alive and not ready.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping

from workers.outcomes import Unavailable

log = logging.getLogger("scrimp.parking")

Probe = Callable[[], Awaitable[None]]
"""Raises Unavailable while the dependency is down."""


class Parking:
    """Shared by all that runs in one stage."""

    def __init__(
        self, probes: Mapping[str, Probe], on_change: Callable[[str, bool], None], first_s: float = 0.2, most_s: float = 5.0
    ) -> None:
        self._probes = probes
        self._on_change = on_change
        self._first_s = first_s
        self._most_s = most_s
        self._waiting: dict[str, asyncio.Task[None]] = {}
        self._last: dict[str, tuple[float, float]] = {}
        """By dependency: the last pause and when it ended. A dependency that answers its probe and fails its users is asked ever less."""

    @property
    def dependencies(self) -> tuple[str, ...]:
        """What is being waited for; empty when the stage runs."""
        return tuple(self._waiting)

    async def wait(self, dependency: str) -> None:
        """Return when the dependency answers again. Cancelling a waiter leaves the probe to the others."""
        task = self._waiting.get(dependency)
        if task is None:
            task = self._waiting[dependency] = asyncio.create_task(self._probe(dependency), name=f"probe {dependency}")
        await asyncio.shield(task)

    async def clear(self) -> None:
        """Return when nothing is being waited for."""
        while self._waiting:
            await asyncio.gather(*(asyncio.shield(task) for task in self._waiting.values()))

    async def close(self) -> None:
        for task in self._waiting.values():
            task.cancel()
        await asyncio.gather(*self._waiting.values(), return_exceptions=True)

    async def _probe(self, dependency: str) -> None:
        log.warning("parked: %s is unavailable", dependency)
        self._on_change(dependency, True)
        pause, ended = self._last.get(dependency, (0.0, 0.0))
        again = time.monotonic() - ended < 2 * self._most_s
        delay = min(pause * 2, self._most_s) if again and pause else self._first_s
        probe = self._probes.get(dependency)
        try:
            while True:
                await asyncio.sleep(delay)
                if probe is None:  # nothing to ask: the waiters' own next try is the probe
                    return
                try:
                    await probe()
                except Unavailable:
                    delay = min(delay * 2, self._most_s)
                else:
                    log.warning("resumed: %s is back", dependency)
                    return
        finally:
            self._last[dependency] = delay, time.monotonic()
            del self._waiting[dependency]
            self._on_change(dependency, False)
