"""The consumers of one process: FastStream subscribers whose records go to an `Intake` each, which they poll for as long as it has room.

Every subscriber is of FastStream's batch form and takes raw records: one record that does not parse would fail a whole decoded batch, and
acknowledging is ours (`AckPolicy.MANUAL`): FastStream's `ack` commits the fetch position, past what is unfinished. Nothing is created on
the broker, and a missing broker at start raises `Unavailable("kafka")`. A right that the broker refuses, then or later, is waited for: the
consumer tries again every few seconds, is not ready meanwhile, and says which one it is.

`max_poll_interval_ms` is out of the way on purpose. A full window or a parked stage stops polling for as long as it takes; heartbeats go
on, and whether the process makes progress is what `/livez` says. A consumer that takes nothing although there is something is made anew
(`standstill.py`); what cannot be mended so ends the process.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from aiokafka.errors import GroupAuthorizationFailedError, KafkaError, TopicAuthorizationFailedError
from faststream import AckPolicy
from faststream.kafka import KafkaBroker
from faststream.kafka.annotations import KafkaMessage
from faststream.kafka.message import FAKE_CONSUMER, KafkaAckableMessage

from schemas.types import Lane
from workers.outcomes import Unavailable
from workers.pipeline import Stage
from workers.runtime import lag, metrics, refused, standstill
from workers.runtime.connect import security
from workers.runtime.intake import Commits, Intake, Record
from workers.runtime.knock import knock
from workers.settings import Kafka
from workers.topics import MAX_EVENT_BYTES

log = logging.getLogger("scrimp.faststream")
# Said once a consumer, and meant: topics are made by `scrimp topics apply`.
log.addFilter(lambda record: not record.getMessage().startswith("Auto create topics is disabled"))

NEVER_MS = 2**31 - 1
POLL_MS = 1_000
FETCH_MS = 500
REFUSED_S = 2.0
"""Between two tries of what the broker has refused us."""
QUIET_S = 10.0
"""Without a refusal for so long, the right is there, though no record came that would show it."""


Hears = Callable[[str, KafkaError | None], bool]
"""Told of a group's consumer what the broker refuses it, or None: nothing. Says whether that is a right which is missing."""
Takes = Callable[[str, Sequence[Record], Commits | None], Awaitable[None]]
"""Given what a poll of a group's consumer has brought; returns when it is under way and there is room for more."""


class Consumer(AIOKafkaConsumer):  # type: ignore[misc]  # aiokafka has no types
    """FastStream sleeps for a whole poll time-out after every empty poll, and a record that comes then waits. So a poll here is never
    empty: it returns with records, or raises when the consumer is stopped. Nor does it raise for a right that is missing, which FastStream
    would log with a traceback every five seconds.

    After a poll that empties its buffer aiokafka asks the broker for more at once, before anybody has seen a record: a fifth of a light
    stage's time. So what comes to an empty buffer is taken as `getone` does, and the next poll asks. A stage that gathers has the time.

    What a poll has brought is under way before FastStream is told of it: its way to a handler takes as long as a light stage's work, and a
    rebalance could come between."""

    def __init__(self, *args: Any, group_id: str, hears: Hears, takes: Takes, **options: Any) -> None:
        super().__init__(*args, group_id=group_id, **options)
        self._hears = partial(hears, group_id)
        self._takes = partial(takes, group_id)
        self._refused_at: float | None = 0.0
        """When a right was last refused; None: not since one was there. The consumer before this one may have lacked it."""
        self._gathers = options.get("fetch_min_bytes", 1) > 1

    async def getmany(self, *partitions: Any, timeout_ms: int = 0, max_records: int | None = None) -> Any:
        while True:
            try:
                polled = await super().getmany(*partitions, timeout_ms=timeout_ms if self._gathers else 0, max_records=max_records)
                if not (polled or self._gathers):
                    polled = await self._first(*partitions, timeout_s=timeout_ms / 1000)
            except KafkaError as e:
                if not self._hears(e):
                    raise
                self._refused_at = time.monotonic()
                await asyncio.sleep(REFUSED_S)
                if isinstance(e, GroupAuthorizationFailedError):
                    # Its heartbeats have ended with the refusal, and nothing but a new join begins them again.
                    self._coordinator.reset_generation()
                continue
            if hidden := self._client.cluster.unauthorized_topics:  # of these it does not even try to fetch
                self._hears(TopicAuthorizationFailedError(hidden))
                self._refused_at = time.monotonic()
            elif self._refused_at is not None and (polled or time.monotonic() - self._refused_at > QUIET_S):
                self._hears(None)
                self._refused_at = None
            if polled:
                await self._takes([record for records in polled.values() for record in records], self)
                return polled

    async def _first(self, *partitions: TopicPartition, timeout_s: float) -> dict[TopicPartition, list[Record]]:
        """The first record that comes, if one comes in time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                record = await self.getone(*partitions)
            return {TopicPartition(record.topic, record.partition): [record]}
        return {}


class Broker(KafkaBroker):
    hears: Hears
    takes: Takes

    async def _connect(self) -> Any:
        await super()._connect()
        config = self.config.broker_config
        if isinstance(config.builder, partial):  # FastStream's in-memory test broker brings a builder of its own
            config.builder = partial(Consumer, hears=self.hears, takes=self.takes, **config.builder.keywords)
        return config.builder

    async def start(self) -> None:
        """FastStream starts consumers one after the other, and each waits for its group: together they take as long as one."""
        await self.connect()
        for failed in await asyncio.gather(*(subscriber.start() for subscriber in self.subscribers), return_exceptions=True):
            if isinstance(failed, BaseException):
                raise failed
        self.running = True


class Fleet:
    def __init__(self, kafka: Kafka) -> None:
        self._kafka = kafka
        self.broker = Broker(
            kafka.bootstrap_servers.split(","),
            client_id="scrimp",
            security=security(kafka),
            request_timeout_ms=kafka.request_timeout_ms,
            allow_auto_create_topics=False,
            logger=log,
            log_level=logging.DEBUG,
            graceful_timeout=5.0,
            apply_types=False,  # its dependency injection takes a thread for every poll, and would inject nothing here
        )
        self.broker.hears = self._hears
        self.broker.takes = self._takes
        self.intakes: dict[tuple[str, Lane], Intake] = {}
        self.reads: set[str] = set()
        """The topics that `start` subscribes to. They must be there: a broker may make those that it is asked for, and not as we would."""
        self._groups: dict[str, tuple[str, Lane]] = {}
        self._watches: list[Callable[[], Coroutine[Any, Any, None]]] = []
        self._watching: tuple[asyncio.Task[None], ...] = ()

    def add(self, stage: Stage, consumer: str, lane: Lane, intake: Intake, *, max_records: int, drain_s: float) -> None:
        """Subscribe one of a stage's consumers in one lane."""
        self.intakes[consumer, lane] = intake
        group = stage.group(self._kafka.group_prefix, lane, consumer)
        self._groups[group] = consumer, lane
        reads = [self._kafka.topic_prefix + topic.on(lane) for topic in stage.consumers[consumer]]
        self.reads.update(reads)
        subscriber = self.broker.subscriber(
            *reads,
            group_id=group,
            batch=True,
            max_records=max_records,
            batch_timeout_ms=POLL_MS,
            auto_offset_reset="earliest",
            ack_policy=AckPolicy.MANUAL,
            no_reply=True,
            listener=intake,
            parser=_parse,
            decoder=_decode,
            partition_assignment_strategy=(StickyPartitionAssignor,),
            session_timeout_ms=self._kafka.session_timeout_ms,
            heartbeat_interval_ms=self._kafka.heartbeat_interval_ms,
            rebalance_timeout_ms=int(min(drain_s, 25) * 1000) + 10_000,
            max_poll_interval_ms=NEVER_MS,
            max_partition_fetch_bytes=MAX_EVENT_BYTES,
            # The broker answers a poll as soon as there is this much, or after this long.
            fetch_min_bytes=MAX_EVENT_BYTES if stage.gathers_ms else 1,
            fetch_max_wait_ms=stage.gathers_ms or FETCH_MS,
        )

        def current() -> Consumer | None:
            return subscriber.consumer if isinstance(subscriber.consumer, Consumer) else None

        @subscriber
        async def take(records: Any) -> None:
            if current() is None:  # the in-memory broker of tests polls nothing
                await self._takes(group, records, None)

        async def renew() -> None:
            renewals.inc()
            await _renew(subscriber, intake)

        async def watch() -> None:
            try:
                times: dict[str, Any] = {"look_s": standstill.LOOK_S, "looks": standstill.LOOKS, "renew_s": standstill.RENEW_S}
                await standstill.watch(intake, current, renew, **times)
            except Exception as e:  # noqa: BLE001  a consumer that nobody looks after must not look well
                intake.fail(e)

        metrics.STANDSTILL.labels(consumer, lane).set_function(lambda: intake.standstill is not None)
        metrics.RIGHT_MISSING.labels(consumer, lane).set_function(lambda: intake.refused is not None)
        renewals = metrics.RENEWALS.labels(consumer, lane)  # there with 0: an increase from nothing is none to Prometheus
        told = metrics.LAG.labels(consumer, lane).set
        self._watches += [watch, partial(lag.watch, current, intake, told, look_s=lag.LOOK_S)]

    async def start(self) -> None:
        try:
            await self.broker.start()
        except (KafkaError, asyncio.CancelledError) as e:
            await self.broker.stop()
            if isinstance(e, KafkaError):
                if told := refused.lacking(self._kafka, e, "Read"):
                    raise Unavailable("kafka", told) from e
                await knock(self._kafka)
                raise Unavailable("kafka", f"{self._kafka.bootstrap_servers}: {e}") from e
            raise
        self._watching = tuple(asyncio.create_task(watch(), name="watch") for watch in self._watches)

    async def _takes(self, group: str, records: Sequence[Record], consumer: Commits | None) -> None:
        intake = self.intakes[self._groups[group]]
        try:
            await intake.take(records, consumer)
            await intake.until_free()
        except Exception as e:
            # FastStream would go on with the next poll, past records that nobody has taken.
            intake.fail(e)
            raise

    def _hears(self, group: str, error: KafkaError | None) -> bool:
        told = None if error is None else refused.lacking(self._kafka, error, "Read")
        if error is not None and told is None:
            return False
        name, lane = self._groups[group]
        intake = self.intakes[name, lane]
        if told != intake.refused:
            if told:
                log.error("%s.%s: %s", name, lane, told)
            else:
                log.warning("%s.%s: it has its right again", name, lane)
            intake.refused = told
        return True

    async def stop(self) -> None:
        for task in self._watching:
            task.cancel()
        await asyncio.gather(*self._watching, return_exceptions=True)
        await self.broker.stop()


async def _renew(subscriber: Any, intake: Intake) -> None:
    """Leave the group, for the broker gives the partitions to nobody else meanwhile, and join it as a new member.

    Raises:
        KafkaError: not within the caller's patience; a start that fails is tried again until then.
    """
    # aiokafka tells its listener of no revocation when a consumer is stopped.
    await intake.on_partitions_revoked(list(subscriber.consumer.assignment()))
    while True:
        await subscriber.stop()
        try:
            await subscriber.start()
        except KafkaError as e:
            log.warning("a consumer cannot join again yet: %s", type(e).__name__)
            await asyncio.sleep(1)
        else:
            return


async def _parse(records: tuple[Record, ...]) -> KafkaMessage:
    # FastStream's parser decodes every header as UTF-8, so that one strange header would fail the whole batch.
    return KafkaAckableMessage(body=b"", headers={}, raw_message=records, consumer=FAKE_CONSUMER, correlation_id="none")


async def _decode(message: KafkaMessage) -> Sequence[Record]:
    records: Sequence[Record] = message.raw_message  # a tuple, in the batch form
    return records
