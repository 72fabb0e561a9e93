"""Settlements in hand while the ledger is away. The answer in them is paid: it is kept until it is in the books.

`settle` tries for a while and then raises `Unavailable`, so that the stage parks. What was left is tried again and again, and by whoever
calls `catch_up`: the partition of a request may be another worker's by then, and nobody comes back for it. A crash meanwhile loses it:
the attempt is then `unconfirmed`, and the provider may be asked again.

What the ledger refuses it would refuse again: that is kept no longer, but said and counted. Its own request hears it, and nobody else.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from workers.ledger.types import Settled, Settlement
from workers.outcomes import Unavailable

log = logging.getLogger("scrimp.call")

PAUSES_S = (0.05, 0.1, 0.2, 0.5, 1, 2, 4, 8)
"""Between tries to settle before the stage parks: a ledger that is away for a moment costs no more than that moment."""
AGAIN_S = 2.0
"""Between tries to settle what was left."""


class Kept:
    def __init__(self, settle: Callable[[Settlement], Awaitable[Settled]], refused: Callable[[], None] = lambda: None) -> None:
        """`settle` is the ledger's verb; a repeat is free. `refused` is told of every settlement that is given up."""
        self._settle = settle
        self._refused = refused
        self._left: dict[tuple[str, str, int], Settlement] = {}
        self._catching_up: asyncio.Task[None] | None = None
        self._insisting: asyncio.Task[None] | None = None

    async def settle(self, booked: Settlement) -> None:
        """Returns when it is in the books. After an `Unavailable` or a cancellation it is kept; any other error is the ledger's refusal."""
        try:
            for seconds in PAUSES_S:
                try:
                    await self._settle(booked)
                except Unavailable:
                    await asyncio.sleep(seconds)
                else:
                    return
        except asyncio.CancelledError:
            self._keep(booked)
            raise
        self._keep(booked)
        await self.catch_up()
        await self._settle(booked)  # a repeat, unless it was refused: then it says so here

    def _keep(self, booked: Settlement) -> None:
        # Not before its own tries are over: until then the others would wait for it, and settle it as well.
        self._left[booked.tenant, booked.request_id, booked.n] = booked
        if self._insisting is None or self._insisting.done():
            self._insisting = asyncio.create_task(self._insist(), name="settle what was left")

    async def catch_up(self) -> None:
        """Settle all that was left, by whomever.

        Raises:
            Unavailable: the ledger is still away; what is left stays.
        """
        while self._left:
            if self._catching_up is None:
                self._catching_up = asyncio.create_task(self._try_all())
            await asyncio.shield(self._catching_up)

    async def close(self) -> None:
        """One last try."""
        if self._insisting is not None:
            self._insisting.cancel()
            await asyncio.gather(self._insisting, return_exceptions=True)
        try:
            await self.catch_up()
        except Unavailable:
            log.error("%d answers could not be settled; their attempts count at their worst case", len(self._left))

    async def _insist(self) -> None:
        while self._left:
            try:
                await self.catch_up()
            except Unavailable:
                await asyncio.sleep(AGAIN_S)

    async def _try_all(self) -> None:
        try:
            left = dict(self._left)
            away: BaseException | None = None
            for key, came in zip(left, await asyncio.gather(*map(self._settle, left.values()), return_exceptions=True), strict=True):
                if isinstance(came, Unavailable | asyncio.CancelledError):
                    away = came
                    continue
                del self._left[key]
                if isinstance(came, BaseException):  # its text may hold the answer
                    log.error("the ledger refuses to settle %s/%s#%d: %s", *key, type(came).__name__)
                    self._refused()
            if away is not None:
                raise away
        finally:
            self._catching_up = None
