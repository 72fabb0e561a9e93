"""Slots: how many calls of one lane are with a model at once, and who may ask the ledger meanwhile.

A slot that is given back must not stand empty for the time of a question to the ledger. So while slots come free, a few requests more than
there are slots ask ahead and then wait, with their grant, for the next one: no more than slots came free in the last second. Where few do
(a provider that is slow, or hangs) nobody asks before a slot is his: a grant would be held for nothing. Who waits too long gets `NoSlot`.
Nothing here is shared between processes.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

WAIT_S = 5.0
"""For leave to ask and for a slot together, then the request comes again. Longer, and a stop that lets running calls finish would find new
ones begun."""
FLOW_S = 1.0
"""As many slots as came free in a time so long are expected in the next one."""


def ahead(window: int) -> int:
    """How many more than there are slots may ask: as many as are answered in the time of a question, which is some 20 ms on a busy machine,
    and of a call of 100 ms."""
    return max(window // 2, 1)


def under_way(window: int) -> int:
    """Requests under way in a window of so many slots: those with a model, those that ask ahead, and as many that are being settled or
    published."""
    return window + 2 * ahead(window)


class NoSlot(Exception):
    """None came free in time."""


class Slots:
    def __init__(self, window: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._asking = asyncio.Semaphore(window + ahead(window))
        self._calling = asyncio.Semaphore(window)
        self._clock = clock
        self._waiting = 0
        """Who is let in and has no slot."""
        self._freed_at: deque[float] = deque(maxlen=ahead(window))

    @asynccontextmanager
    async def asking(self) -> AsyncIterator[Slot]:
        """From before the question to the ledger until the model has answered.

        Raises:
            NoSlot: the ledger was not asked.
        """
        left = await _acquire(self._asking, WAIT_S)
        try:
            slot = Slot(self, left)
            try:
                if self._waiting > self._expected() or left < FLOW_S:
                    await slot.take()
                yield slot
            finally:
                slot.give_back()
        finally:
            self._asking.release()

    def _expected(self) -> int:
        now = self._clock()
        return sum(now - at <= FLOW_S for at in self._freed_at)


class Slot:
    """A place in the window, taken or still waited for."""

    def __init__(self, slots: Slots, patience_s: float) -> None:
        self._slots = slots
        self._patience_s = patience_s
        self.taken = False
        slots._waiting += 1

    async def take(self) -> None:
        """Returns once the slot is ours.

        Raises:
            NoSlot: what the ledger has granted was not sent.
        """
        if not self.taken:
            self._patience_s = await _acquire(self._slots._calling, self._patience_s)
            self.taken = True
            self._slots._waiting -= 1

    def give_back(self) -> None:
        """The slot, or the place in the line for it."""
        if self.taken:
            self.taken = False
            self._slots._calling.release()
            self._slots._freed_at.append(self._slots._clock())
        else:
            self._slots._waiting -= 1


async def _acquire(semaphore: asyncio.Semaphore, patience_s: float) -> float:
    """What is left of the patience."""
    if not semaphore.locked():
        await semaphore.acquire()  # at once
        return patience_s
    began = time.monotonic()
    try:
        async with asyncio.timeout(patience_s):
            await semaphore.acquire()
    except TimeoutError as error:
        raise NoSlot from error
    return max(patience_s - (time.monotonic() - began), 0.0)
