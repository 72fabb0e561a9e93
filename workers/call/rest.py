"""Models that rest: whoever has just failed for everybody is left alone for a while, so that a request's few attempts outlast an outage.

A model rests after `TRIP` transient failures in a row, of any requests of this process. When its rest is over one request may try it while
the others wait for as long again; a failure doubles the rest, and anything else ends it. Nothing is shared or stored: each process finds
out for itself. Pure but for the clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from workers.call.failures import Failure

TRIP = 5
"""Failures in a row. Fewer would let a provider that refuses some calls send everybody to dearer models."""
FIRST_REST_S = 1.0
LONGEST_REST_S = 15.0
"""Also the most that an answer of a provider can ask for: it speaks of one call, and here everybody waits."""
FORGOTTEN_S = 300.0
"""So long after its rest a model that nobody has asked, because the policy lost it or nothing is meant for it, counts as down no longer."""


@dataclass(slots=True)
class _Model:
    failures: int = 0
    until: float = 0.0

    @property
    def rest(self) -> float:
        return min(FIRST_REST_S * 2.0 ** max(self.failures - TRIP, 0), LONGEST_REST_S)


class Rests:
    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._models: dict[str, _Model] = {}

    def left(self) -> dict[str, float]:
        """The models that rest, and for how many seconds more."""
        now = self._clock()
        return {name: self._models[name].until - now for name in self.down() if self._models[name].until > now}

    def down(self) -> list[str]:
        """The models that have lately failed for everybody, also while one of them is being tried."""
        since = self._clock() - FORGOTTEN_S
        return sorted(name for name, model in self._models.items() if model.failures >= TRIP and model.until >= since)

    def tries(self, name: str) -> None:
        """A call of this model begins."""
        model = self._models.get(name)
        if model and model.failures >= TRIP:
            model.until = self._clock() + model.rest

    def saw(self, name: str, failure: Failure | None) -> None:
        """What came of a call; None: an answer."""
        if failure is None or not failure.transient:
            self._models.pop(name, None)
            return
        model = self._models.setdefault(name, _Model())
        model.failures += 1
        model.until = self._clock() + max(model.rest, min(failure.retry_after or 0.0, LONGEST_REST_S))
