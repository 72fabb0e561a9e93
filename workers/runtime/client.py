"""A small Kafka client for the command line: publish to a topic, read topics from a point on, without a consumer group.

A broker that cannot be reached raises `Unavailable("kafka")`, whatever the client was doing, and so does a right that it refuses; one
that never lets us in like this raises `SettingsError` at the start.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Self

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from aiokafka.structs import ConsumerRecord

from schemas.types import Lane
from workers.outcomes import Unavailable
from workers.runtime import refused
from workers.runtime.connect import client_options
from workers.runtime.producer import KafkaProducer, Outgoing
from workers.settings import Kafka
from workers.topics import Topic

Offsets = dict[tuple[str, int], int]
"""(topic, partition) to the offset of the next record."""


@dataclass(frozen=True, slots=True)
class Record:
    topic: str
    partition: int
    offset: int
    key: str | None
    value: bytes | None = field(repr=False)
    headers: tuple[tuple[str, bytes], ...] = field(repr=False)
    at: datetime
    raw_key: bytes | None = None
    """The key as it is; `key` is for reading."""


def _records(polled: Mapping[TopicPartition, Sequence[ConsumerRecord]]) -> list[Record]:
    return [
        Record(
            topic=r.topic,
            partition=r.partition,
            offset=r.offset,
            key=None if r.key is None else r.key.decode(errors="replace"),
            value=r.value,
            headers=tuple(r.headers),
            at=datetime.fromtimestamp(r.timestamp / 1000, UTC),
            raw_key=r.key,
        )
        for records in polled.values()
        for r in records
    ]


class Client:
    """Use as `async with Client(settings.kafka) as client`."""

    def __init__(self, kafka: Kafka) -> None:
        # A record sent twice is harmless here (the fleet knows requests by their ids), and the embedded broker of another process
        # has no idempotent producer.
        self._kafka = kafka.model_copy(update={"idempotence": False})

    async def __aenter__(self) -> Self:
        options = client_options(self._kafka)
        async with AsyncExitStack() as stack:
            try:
                # A client that fails to start must be closed, too.
                self._producer = KafkaProducer(self._kafka)
                stack.push_async_callback(self._producer.stop)
                await self._producer.start()
                self._admin = AIOKafkaAdminClient(**options)
                stack.push_async_callback(self._admin.close)
                await self._admin.start()
                self._consumer = AIOKafkaConsumer(**options, group_id=None, enable_auto_commit=False, auto_offset_reset="none")
                stack.push_async_callback(self._consumer.stop)
                await self._consumer.start()
            except KafkaError as e:
                raise Unavailable("kafka", str(e)) from e
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def name(self, topic: Topic, lane: Lane = "interactive") -> str:
        """The topic's full name, prefix included."""
        return self._kafka.topic_prefix + topic.on(lane)

    async def topics(self) -> set[str]:
        """Names of the topics there are."""
        try:
            return set(await self._admin.list_topics())
        except KafkaError as e:
            raise Unavailable("kafka", refused.told(self._kafka, e, "Read")) from e

    async def publish(self, records: Sequence[Outgoing]) -> None:
        """Returns when the broker has all of them."""
        await self._producer.send(records)

    async def ends(self, *topics: str) -> Offsets:
        """Where each partition of the topics ends now. A topic that does not exist has no partitions.

        The embedded broker names the second record of its last batch: reading from there repeats a few records and misses none."""
        # Asking some brokers about a topic that does not exist creates it.
        known = sorted(await self.topics() & set(topics))
        try:
            described = await self._admin.describe_topics(known) if known else []
            partitions = [TopicPartition(t["topic"], p["partition"]) for t in described for p in t["partitions"]]
            ends = await self._consumer.end_offsets(partitions) if partitions else {}
        except KafkaError as e:
            raise Unavailable("kafka", refused.told(self._kafka, e, "Read")) from e
        return {(tp.topic, tp.partition): offset for tp, offset in ends.items()}

    async def follow(self, since: Offsets, *, wait_ms: int = 500) -> AsyncIterator[Sequence[Record]]:
        """Every record from `since` on, for ever, in batches; an empty batch when nothing came for `wait_ms`. One reader at a time."""
        try:
            self._consumer.assign([TopicPartition(*tp) for tp in since])
            for tp, offset in since.items():
                self._consumer.seek(TopicPartition(*tp), offset)
            while True:
                got = await self._consumer.getmany(timeout_ms=wait_ms)
                yield _records(got)
        except KafkaError as e:
            raise Unavailable("kafka", refused.told(self._kafka, e, "Read")) from e

    async def read(self, topic: str) -> AsyncIterator[Sequence[Record]]:
        """Every record that stands on the topic at this moment, once, in batches. One reader at a time."""
        ends = await self.ends(topic)
        try:
            partitions = [TopicPartition(*tp) for tp in ends]
            starts = await self._consumer.beginning_offsets(partitions) if partitions else {}
            left = {tp for tp in partitions if starts[tp] < ends[tp]}
            self._consumer.assign(list(left))
            for tp in left:
                self._consumer.seek(tp, starts[tp])
            moved = time.monotonic()
            while left:
                if got := await self._consumer.getmany(timeout_ms=500):
                    moved = time.monotonic()
                    yield _records(got)
                elif time.monotonic() - moved > self._kafka.request_timeout_ms / 1000:
                    raise Unavailable("kafka", f"no more of {topic} comes")
                left = {tp for tp in left if await self._consumer.position(tp) < ends[tp]}
        except KafkaError as e:
            raise Unavailable("kafka", refused.told(self._kafka, e, "Read")) from e

    async def record(self, topic: str, partition: int, offset: int) -> Record | None:
        """The one that stands there, if any does."""
        tp = TopicPartition(topic, partition)
        end = (await self.ends(topic)).get((topic, partition), 0)
        try:
            start = (await self._consumer.beginning_offsets([tp]))[tp] if end else 0
            if not start <= offset < end:
                return None
            self._consumer.assign([tp])
            self._consumer.seek(tp, offset)
            moved = time.monotonic()
            while time.monotonic() - moved < self._kafka.request_timeout_ms / 1000:
                if got := await self._consumer.getmany(timeout_ms=500):
                    return next((r for r in _records(got) if r.offset == offset), None)
            raise Unavailable("kafka", f"no more of {topic} comes")
        except KafkaError as e:
            raise Unavailable("kafka", refused.told(self._kafka, e, "Read")) from e

    async def committed(self, group: str, partitions: Iterable[tuple[str, int]]) -> Offsets:
        """What the consumer group has committed of these partitions; 0 where nothing yet."""
        try:
            # Every partition by name: the embedded broker cannot answer for "all".
            committed = await self._admin.list_consumer_group_offsets(group, partitions=[TopicPartition(*tp) for tp in partitions])
        except KafkaError as e:
            raise Unavailable("kafka", refused.told(self._kafka, e, "Read")) from e
        return {(tp.topic, tp.partition): max(at.offset, 0) for tp, at in committed.items()}
