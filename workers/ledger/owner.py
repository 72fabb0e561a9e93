"""Who owns the attempts of this process: a worker row with a heartbeat, by the database's clock.

The heartbeat has a connection of its own, so it never waits behind the verbs. When it fails, whatever the database says, it is tried again;
meanwhile `fresh` turns false and the worker sends no call, well before others may take its attempts over.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
import uuid
from functools import partial

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from workers.ledger.connection import Connection
from workers.ledger.database import REFUSALS, Database, sqlstate
from workers.ledger.given import clock
from workers.ledger.tables import worker
from workers.outcomes import Unavailable

log = logging.getLogger(__name__)

FRESH_S = 10.0
"""A worker whose last good heartbeat is older than this, or than two thirds of `stale_s`, by its own clock, sends no call."""

RETRY_S = 1.0
"""Between beats that fail."""


def new_owner(name: str | None) -> str:
    """An id that no other process, and no later start of this one, has."""
    return f"{name or socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:12]}"


_BEAT = (
    insert(worker)
    .values(id=sa.bindparam("owner"), started_at=clock(), beat=clock())
    .on_conflict_do_update(index_elements=["id"], set_={"beat": clock()})
)


async def _beat(connection: Connection, owner: str) -> None:
    await connection.execute(_BEAT, {"owner": owner})


async def _leave(connection: Connection, owner: str) -> None:
    await connection.execute(sa.delete(worker).where(worker.c.id == owner))


class Heartbeat:
    """Beats from `start` to `stop`."""

    def __init__(self, database: Database, owner: str, *, every_s: float, stale_s: float) -> None:
        self._database = database
        self._owner = owner
        self._every_s = every_s
        self._fresh_s = min(FRESH_S, stale_s * 2 / 3)
        self._beaten_at: float | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def fresh(self) -> bool:
        return self._beaten_at is not None and time.monotonic() - self._beaten_at < self._fresh_s

    @property
    def started(self) -> bool:
        return self._task is not None

    async def start(self) -> None:
        """The first beat; then the task that goes on beating.

        Raises:
            Unavailable: the database cannot be reached; nothing was started.
        """
        await self.beat()
        self._task = asyncio.create_task(self._go_on(), name="ledger heartbeat")

    async def stop(self) -> None:
        """No more beats; the worker's row goes, so that what it left behind is free at once."""
        if self._task is None:
            return
        self._task.cancel()
        (ended,) = await asyncio.gather(self._task, return_exceptions=True)
        if not isinstance(ended, asyncio.CancelledError):
            log.error("the heartbeat had broken: %r", ended)
        self._task = None
        self._beaten_at = None
        try:
            await self._database.transact(partial(_leave, owner=self._owner))
        except Unavailable as error:
            log.warning("the worker's row stays until it is stale: %s", error)

    def check(self) -> None:
        """Raises what ended the task, if anything but `stop` did."""
        if self._task is not None and self._task.done():
            self._task.result()

    async def beat(self) -> None:
        sent = time.monotonic()
        await self._database.transact(partial(_beat, owner=self._owner))
        self._beaten_at = sent

    async def _go_on(self) -> None:
        wait = self._every_s
        while True:
            await asyncio.sleep(wait)
            try:
                await self.beat()
                wait = self._every_s
            except Unavailable as error:
                log.warning("heartbeat failed: %s", error)
                wait = min(self._every_s, RETRY_S)
            except REFUSALS as error:  # a table or a right that is missing can come back, and without beats no call is ever sent again
                log.error("heartbeat refused: %s (%s)", type(error).__name__, sqlstate(error))
                wait = min(self._every_s, RETRY_S)
