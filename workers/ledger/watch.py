"""The ledger as the alerts see it: what there is to read, and the alerts that were stored. Every method raises `Unavailable` when the
database cannot be reached, and may be repeated."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from decimal import Decimal
from functools import partial

from workers.ledger import alerts, readings
from workers.ledger.alerts import Finding, Unsent
from workers.ledger.budgets import Window
from workers.ledger.database import Database
from workers.ledger.readings import CutOff, Span, Usage

CHUNK = 500
"""Alerts a transaction stores at most."""


class Watch:
    """`owner` is the worker that stores and publishes; one that was silent for `stale_s` is lost, and its alerts go to another."""

    def __init__(self, database: Database, owner: str, stale_s: float) -> None:
        self._database = database
        self._owner = owner
        self._stale_s = stale_s

    async def now(self) -> datetime:
        return await self._database.transact(readings.now, reads_only=True)

    async def usage(self, windows: Collection[tuple[Window, datetime]]) -> list[Usage]:
        return await self._database.transact(partial(readings.usage, windows=windows), reads_only=True) if windows else []

    async def cut_off(self, day: Span) -> dict[str, CutOff]:
        return await self._database.transact(partial(readings.cut_off, day=day), reads_only=True)

    async def unpriced(self, day: Span) -> dict[str, int]:
        return await self._database.transact(partial(readings.unpriced, day=day), reads_only=True)

    async def spent_by_feature(self, day: Span) -> dict[str, Decimal]:
        return await self._database.transact(partial(readings.spent_by_feature, day=day), reads_only=True)

    async def store(self, findings: Sequence[Finding]) -> int:
        """Store those that nobody was told of; how many those were."""
        new = await self._database.transact(partial(alerts.unheard, findings=findings), reads_only=True) if findings else []
        stored = 0
        for i in range(0, len(new), CHUNK):
            stored += await self._database.transact(partial(alerts.store, findings=new[i : i + CHUNK], owner=self._owner))
        return stored

    async def unsent(self) -> list[Unsent]:
        """What this worker must publish, the oldest first and `AT_ONCE` at most; call `sent` once it is, and ask again for more."""
        if not await self._database.transact(partial(alerts.unsent, owner=self._owner, stale_s=self._stale_s), reads_only=True):
            return []
        return await self._database.transact(partial(alerts.take, owner=self._owner, stale_s=self._stale_s))

    async def sent(self, unsent: Collection[Unsent]) -> None:
        await self._database.transact(partial(alerts.note_sent, ids=[each.id for each in unsent]))
