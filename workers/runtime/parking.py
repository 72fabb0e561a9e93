"""Parked: what every message of a stage needs is down. One probe at a time asks for it; whoever needs it waits here.

Nothing is counted against a message meanwhile, no new record is taken, and the process is alive and not ready. A stage parks when its
work says so (`Unavailable`), and also when work under way waits inside a client and says nothing: see `suspect`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping

from workers.runtime.probes import Probe, silent, why_not

log = logging.getLogger("scrimp.parking")


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
        self.resumed_at = 0.0
        """When the last wait ended, by the monotonic clock."""

    @property
    def dependencies(self) -> tuple[str, ...]:
        """What is being waited for; empty when the stage runs."""
        return tuple(self._waiting)

    async def answers(self, dependency: str) -> bool:
        """Asked now. One that nobody can ask is taken to answer."""
        probe = self._probes.get(dependency)
        return probe is None or await why_not(dependency, probe) is None

    async def wait(self, dependency: str, why: str = "") -> None:
        """Return when the dependency answers again. Cancelling a waiter leaves the probe to the others."""
        await asyncio.shield(self._begin(dependency, why))

    async def suspect(self) -> None:
        """Work makes no progress: park on what does not answer. An idempotent producer waits for its broker without a limit, so that
        nothing is published twice; its stage is parked all the same, and has to say so."""
        for dependency, why in (await silent(self._probes)).items():
            log.warning("work waits for %s", why)
            self._begin(dependency, why)

    def _begin(self, dependency: str, why: str) -> asyncio.Task[None]:
        if dependency not in self._waiting:
            self._waiting[dependency] = asyncio.create_task(self._probe(dependency, why), name=f"probe {dependency}")
        return self._waiting[dependency]

    async def clear(self) -> None:
        """Return when nothing is being waited for."""
        while self._waiting:
            await asyncio.gather(*(asyncio.shield(task) for task in self._waiting.values()))

    async def close(self) -> None:
        for task in self._waiting.values():
            task.cancel()
        await asyncio.gather(*self._waiting.values(), return_exceptions=True)

    async def _probe(self, dependency: str, told: str) -> None:
        log.warning("parked: %s", told or f"{dependency} is unavailable")
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
                why = await why_not(dependency, probe)
                if why is None:
                    log.warning("resumed: %s is back", dependency)
                    return
                if why != told:  # an outage that has become another one: a broker that is back, and does not let us in
                    log.warning("still parked: %s", why)
                    told = why
                delay = min(delay * 2, self._most_s)
        finally:
            self.resumed_at = time.monotonic()
            self._last[dependency] = delay, self.resumed_at
            del self._waiting[dependency]
            self._on_change(dependency, False)
