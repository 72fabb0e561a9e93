"""Fairness: how many calls of one tenant run at once in one window, so that none can take every slot of it.

A tenant at its cap asks for nothing: its next request goes back to wait outside the window, like one that another worker holds. That costs
no attempt, no slot and no question to the ledger; its offset stays open, and it comes again in time for its deadline. What has waited
longest asks most often, so turns go roughly by age, and a tenant's requests together ask some twenty to a hundred times a second, however
many they are. Nothing is remembered beyond the process: what waited when it died waits anew elsewhere.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime

from schemas import Compressed
from schemas.types import utc_now
from workers.call.slots import under_way
from workers.outcomes import Outcome, Retry
from workers.policy import Policy

PAUSE_S = 0.05
"""Between two asks of the request that has waited longest; the n-th in line asks n times as seldom."""
LONGEST_S = 5.0
GONE_S = 60.0
"""A request that has not come back this long after it was due went elsewhere with its partition, most likely; if not, it lines up anew."""
LATELY_S = 10.0
"""For so long after a tenant's last request, room is kept for it."""
KEPT = 8
"""Of so many slots, one is kept from each tenant while others ask; one at least."""


@dataclass
class _Line:
    running: int = 0
    waiting: dict[str, float] = field(default_factory=dict)
    """By request, oldest first: when it counts as gone."""

    def forget(self, now: float) -> None:
        for gone in [r for r, until in self.waiting.items() if until < now]:
            del self.waiting[gone]


class Turns:
    """The calls under way in one window of slots, by tenant, and who waits for a turn."""

    def __init__(self, window: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._window = window
        self._clock = clock
        self._lines: dict[str, _Line] = {}
        self._looked = clock()
        self._last: tuple[str, float] | None = None
        self._other: tuple[str, float] | None = None
        """The tenant of the latest request, and the latest one that is not it, each with the time of its own latest."""

    @property
    def waiting(self) -> int:
        self._forget_gone()
        return sum(len(line.waiting) for line in self._lines.values())

    def take(self, tenant: str, request: str, cap: int | None) -> float | None:
        """None: the turn is yours, until `give_back`. Else the seconds after which to ask again.

        `cap` is the tenant's own; with and without one it may have the whole window at most, less what is kept for others who ask."""
        self._saw(tenant)
        if self._clock() - self._looked > GONE_S:
            self._forget_gone()
        line = self._lines.setdefault(tenant, _Line())
        room = self._all_but_kept()
        if line.running >= (room if cap is None else min(cap, room)):
            return self._wait(line, request)
        line.waiting.pop(request, None)
        line.running += 1
        return None

    def give_back(self, tenant: str) -> None:
        self._lines[tenant].running -= 1
        self._drop_if_empty(tenant)

    def leave(self, tenant: str, request: str) -> None:
        """This request waits no longer."""
        if tenant in self._lines:
            self._lines[tenant].waiting.pop(request, None)
            self._drop_if_empty(tenant)

    def _wait(self, line: _Line, request: str) -> float:
        now = self._clock()
        line.forget(now)
        line.waiting.setdefault(request, now)
        place = next(n for n, r in enumerate(line.waiting, 1) if r == request)
        pause = min(place * PAUSE_S, LONGEST_S)
        line.waiting[request] = now + pause + GONE_S
        return pause

    def _forget_gone(self) -> None:
        # Whose tenant asks no more is met by no ask of that tenant's.
        self._looked = self._clock()
        for tenant, line in list(self._lines.items()):
            line.forget(self._looked)
            self._drop_if_empty(tenant)

    def _drop_if_empty(self, tenant: str) -> None:
        line = self._lines[tenant]
        if not line.running and not line.waiting:
            del self._lines[tenant]

    def _all_but_kept(self) -> int:
        alone = self._other is None or self._clock() - self._other[1] > LATELY_S
        return under_way(self._window) if alone else max(self._window - max(self._window // KEPT, 1), 1)

    def _saw(self, tenant: str) -> None:
        if self._last is not None and self._last[0] != tenant:
            self._other = self._last
        self._last = (tenant, self._clock())


def make_fair(
    call: Callable[[Compressed], Awaitable[Outcome]], turns: Turns, policy: Callable[[], Policy], now: Callable[[], datetime] = utc_now
) -> Callable[[Compressed], Awaitable[Outcome]]:
    """`call`, a tenant's turns at a time. A request past its deadline needs no turn: no call starts for it, and it ends."""

    async def fair(event: Compressed) -> Outcome:
        tenant = event.facts.tenant or ""
        left = (event.facts.deadline_at - now()).total_seconds()
        if left <= 0:
            turns.leave(tenant, event.facts.key)
            return await call(event)
        known = policy().tenant(tenant)
        pause = turns.take(tenant, event.facts.key, known.max_in_flight if known else None)
        if pause is not None:
            return Retry("turn", min(pause, left))
        try:
            return await call(event)
        finally:
            turns.give_back(tenant)

    return fair
