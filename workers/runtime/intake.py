"""The in-flight window: records of one consumer under way at once, bounded, committed in the background as far as they are finished.

A *group* is what is worked on together: a whole polled batch in a light stage, one record in a slow one. At most `limit` groups run; at
most `backlog` records stand uncommitted behind a slow head; past either bound nothing more is taken. A record that waits (a retry, a
parked dependency) holds no slot, and its offset stays open.

Revoked partitions: nothing of theirs is started from the first moment, waiting records are dropped (the next owner reads them again),
running ones may finish for `revoke_drain_s`. Stop: the same for all, for `drain_s`. A running group is never cancelled by a revocation: a
paid call goes to its end, and its outcome is published although its offset is not ours to commit any more.

`deliver` raises `Unavailable` to park; any other exception is fatal: the process stops and commits nothing past the record.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol

from aiokafka import ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import KafkaError

from workers.offload import others_first
from workers.outcomes import Unavailable
from workers.runtime.offsets import Offsets, OutOfOrder, Partition, Ticket
from workers.runtime.parking import Parking

log = logging.getLogger("scrimp.intake")

LAST_COMMIT_S = 3.0
"""Of a process that stops. While it runs, a commit has longer."""


class Record(Protocol):
    """What we use of aiokafka's ConsumerRecord."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


Later = tuple[Record, float]
"""A record to try again, and after how many seconds."""
Deliver = Callable[[Sequence[Record]], Awaitable[list[Later]]]
"""Does all the work on a group, its publishes included; returns the records that are to be tried again."""


class Commits(Protocol):
    async def commit(self, offsets: dict[Partition, int]) -> None: ...


class Intake(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types
    def __init__(
        self,
        deliver: Deliver,
        parking: Parking,
        *,
        limit: int,
        backlog: int,
        single: bool,
        drain_s: float,
        revoke_drain_s: float = 25.0,
        commit_every_s: float = 0.2,
        commit_s: float = 10.0,
        suspect_s: float = 5.0,
        step_at: Callable[[], float] = lambda: 0.0,
        on_commit_failure: Callable[[], None] = lambda: None,
        on_revoked: Callable[[], None] = lambda: None,
        on_spare: Callable[[], None] = lambda: None,
    ) -> None:
        """`commit_s`: a commit is given up after this long, and tried again. `suspect_s`: when work under way has not progressed for this
        long, what it depends on is asked whether it is there. `step_at`: when, on the monotonic clock, a part of some record's work last
        ended, for work of several long parts."""
        self._deliver = deliver
        self._parking = parking
        self._limit = limit
        self._backlog = backlog
        self._single = single
        self._drain_s = drain_s
        self._revoke_drain_s = min(revoke_drain_s, drain_s)
        self._commit_every_s = commit_every_s
        self._commit_s = commit_s
        self._suspect_s = suspect_s
        self._step_at = step_at
        self._on_commit_failure = on_commit_failure
        self._on_revoked = on_revoked
        self._on_spare = on_spare
        self._slots = asyncio.Semaphore(limit)
        self._room = asyncio.Condition()
        self._offsets = Offsets()
        self._groups: dict[asyncio.Task[None], set[Partition]] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._epoch = 0
        self._accepting = True
        self._consumer: Commits | None = None
        self._background: tuple[asyncio.Task[None], ...] = ()
        self._commit_lock = asyncio.Lock()
        self.assigned = asyncio.Event()
        """Set while an assignment stands (it may be empty: more members than partitions)."""
        self.spare = False
        """Whether the assignment is empty: this consumer takes over when another one goes."""
        self.fatal: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Fails with what stopped this consumer for good."""
        self.progressed_at = time.monotonic()
        self.polled = 0
        """How many records this consumer's polls have brought so far."""
        self.standstill: str | None = None
        """What `standstill.watch` has found wrong with the consumer."""
        self.refused: str | None = None
        """The right that the consumer lacks."""

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def uncommitted(self) -> int:
        return self._offsets.open

    @property
    def parked(self) -> tuple[str, ...]:
        return self._parking.dependencies

    @property
    def stalled_s(self) -> float:
        """How long work that is not parked has been under way without any of it, or a step of it, finishing."""
        if not self.running or self.parked:
            return 0.0
        return time.monotonic() - max(self.progressed_at, self._step_at(), self._parking.resumed_at)

    @property
    def idle(self) -> bool:
        """Nothing keeps it from taking a record, if one came."""
        return self.assigned.is_set() and self._accepting and not (self.refused or self.running or self.uncommitted or self.parked)

    async def answers(self, dependency: str) -> bool:
        return await self._parking.answers(dependency)

    def fail(self, error: BaseException) -> None:
        """Stop for good: the process ends, and commits nothing past what is finished."""
        self._accepting = False  # what this one was polled with is not taken, and what is polled next would be committed past it
        if not self.fatal.done():
            self.fatal.set_exception(error)

    # -- taking records -------------------------------------------------------------------------------------------------------

    async def take(self, records: Sequence[Record], consumer: Commits | None) -> None:
        """Start what was polled, group by group; returns when all of it is started (or refused). Waiting here is the backpressure.

        `consumer` commits; None where there is nothing to commit to (the in-memory broker of tests). It must be called in the very step
        in which the poll returned: records that a rebalance has overtaken by then are told by their order, and that is fatal."""
        epoch = self._epoch
        self._consumer = consumer
        self.polled += len(records)
        if not self._background:
            tasks = {"commit": self._commit_in_background(), "watch": self._watch()}
            self._background = tuple(asyncio.create_task(task, name=name) for name, task in tasks.items())
            for background in self._background:
                background.add_done_callback(self._ended)
        for group in [[r] for r in records] if self._single else [list(records)]:
            await self._parking.clear()
            if not self._has_room(len(group)):
                async with self._room:
                    while self._current(epoch) and not self._has_room(len(group)):
                        await self._room.wait()
            await self._slots.acquire()
            # Everything up to here may have taken long enough for the partition to be somebody else's.
            try:
                started = [(r, t) for r in group if (t := self._start(r))] if self._current(epoch) else []
            except OutOfOrder as e:
                self.fail(e)
                started = []
            if not started:
                self._slots.release()
                continue
            task = asyncio.create_task(self._work(started), name="group")
            self._groups[task] = {TopicPartition(r.topic, r.partition) for r, _ in started}
            self._running.add(task)
            task.add_done_callback(self._done)
            self.progressed_at = time.monotonic()

    async def until_free(self) -> None:
        """Returns when another group could be started: what is polled then is worked on at once, and what came meanwhile is one poll.
        Where one can be at once, what has just been started goes first."""
        if not self._slots.locked():
            await others_first()
        async with self._slots:
            pass

    def _current(self, epoch: int) -> bool:
        return self._accepting and epoch == self._epoch

    def _has_room(self, records: int) -> bool:
        return self._offsets.open == 0 or self._offsets.open + records <= self._backlog

    def _start(self, record: Record) -> Ticket | None:
        return self._offsets.start(TopicPartition(record.topic, record.partition), record.offset)

    async def _work(self, started: list[tuple[Record, Ticket]]) -> None:
        """Run a group to its end. Enters holding a slot."""
        task = asyncio.current_task()
        assert task is not None
        tickets = {id(record): ticket for record, ticket in started}
        rest = [record for record, _ in started]
        while True:
            parked = None
            try:
                later = await self._deliver(rest)
            except Unavailable as e:
                parked = e
                later = [(r, 0.0) for r in rest]
            finally:
                self._running.discard(task)
                self._slots.release()
            waiting = {id(r) for r, _ in later}
            for record in rest:
                if id(record) not in waiting:
                    self._offsets.finish(tickets[id(record)])
            self.progressed_at = time.monotonic()
            await self._notify()
            if not later:
                return
            rest = [r for r, _ in later]
            if parked is not None:
                await self._parking.wait(parked.dependency, str(parked))
            else:
                await asyncio.sleep(min(after for _, after in later) * random.uniform(1.0, 1.2))
            await self._slots.acquire()
            self._running.add(task)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._groups.pop(task, None)
        self._running.discard(task)
        self._ended(task)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.fail(error)

    async def _notify(self) -> None:
        async with self._room:
            self._room.notify_all()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._suspect_s)
            if self.stalled_s >= self._suspect_s:
                await self._parking.suspect()

    # -- committing -----------------------------------------------------------------------------------------------------------

    async def _commit_in_background(self) -> None:
        while True:
            await asyncio.sleep(self._commit_every_s)
            await self.commit()

    async def commit(self) -> None:
        """Commit the finished prefixes. A failure is counted and tried again: at worst the records are read once more."""
        async with self._commit_lock:
            ready = self._offsets.committable()
            if not ready or self._consumer is None:
                return
            try:
                # Without a coordinator aiokafka would look for one for ever, and a stop would wait for it.
                async with asyncio.timeout(self._commit_s):
                    await self._consumer.commit({TopicPartition(*p): offset for p, offset in ready.items()})
            except (KafkaError, TimeoutError, AssertionError) as e:  # aiokafka asserts that the partitions are still its own
                self._on_commit_failure()
                log.warning("commit failed: %s", type(e).__name__)
            else:
                self._offsets.committed(ready)

    # -- giving partitions up ---------------------------------------------------------------------------------------------------

    async def on_partitions_revoked(self, revoked: Sequence[Partition]) -> None:
        self.assigned.clear()
        self._epoch += 1
        if not revoked:
            return
        self._on_revoked()
        self._offsets.refuse(revoked)
        await self._notify()
        await self._drain(set(revoked), self._revoke_drain_s)
        await self.commit()
        self._offsets.revoke(revoked)

    async def on_partitions_assigned(self, assigned: Sequence[Partition]) -> None:
        self._epoch += 1
        self._offsets.assign()
        was_spare, self.spare = self.spare, not assigned
        if self.spare and not was_spare:
            self._on_spare()
        self.assigned.set()

    async def close(self) -> None:
        """Take no more, let what runs finish for `drain_s`, commit. What runs longer is cancelled and read again elsewhere."""
        self._accepting = False
        self._epoch += 1
        await self._notify()
        await self._drain(None, self._drain_s)
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        with suppress(TimeoutError):
            # Without a broker: what is not committed is read again, and a process that was told to stop should.
            async with asyncio.timeout(LAST_COMMIT_S):
                await self.commit()
        for task in self._groups:
            task.cancel()
        await asyncio.gather(*self._groups, return_exceptions=True)
        await self._parking.close()

    async def _drain(self, partitions: set[Partition] | None, timeout_s: float) -> None:
        mine = [t for t, tps in self._groups.items() if partitions is None or tps & partitions]
        for task in mine:
            if task not in self._running:
                task.cancel()
        if running := [t for t in mine if t in self._running]:
            # A group that comes back to wait instead of finishing must not hold the drain up.
            await self._until_idle(running, timeout_s)

    async def _until_idle(self, tasks: list[asyncio.Task[None]], timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while (left := deadline - time.monotonic()) > 0:
            busy = [t for t in tasks if t in self._running]
            for task in tasks:
                if task not in self._running and not task.done():
                    task.cancel()
            if not busy:
                return
            await asyncio.wait(busy, timeout=min(left, 0.05), return_when=asyncio.FIRST_COMPLETED)


def describe(intake: Intake) -> dict[str, Any]:
    """What the health page tells of a consumer."""
    return {
        "assigned": intake.assigned.is_set(),
        "running": intake.running,
        "uncommitted": intake.uncommitted,
        "parked": list(intake.parked),
        "standstill": intake.standstill,
        "refused": intake.refused,
    }
