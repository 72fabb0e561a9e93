"""A consumer whose reading has died inside the client, with its heartbeats going on: it takes nothing, is made anew, and goes on.

Here it is the client's task that fetches: it ends without a word.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from tests.kafka.topics import eventually
from tests.servers.kafka import Broker
from workers.pipeline import Stage
from workers.runtime import metrics, standstill
from workers.runtime.fleet import Fleet
from workers.runtime.intake import Intake, Later, Record
from workers.runtime.parking import Parking
from workers.settings import Kafka
from workers.topics import Topic

EVENTS = Topic("events", None)
STAGE = Stage("remember", (EVENTS,), (), "batch", expires=False)


@pytest.fixture
def settings(kafka: Broker) -> Kafka:
    prefix = f"s{uuid.uuid4().hex[:8]}."
    return Kafka(bootstrap_servers=kafka.bootstrap, topic_prefix=prefix, group_prefix=prefix, session_timeout_ms=6_000)


@pytest.fixture
async def producer(settings: Kafka) -> AsyncIterator[AIOKafkaProducer]:
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.bootstrap_servers)
    await admin.start()
    await admin.create_topics([NewTopic(settings.topic_prefix + EVENTS.name, 2, 1)])
    await admin.close()
    producer = AIOKafkaProducer(bootstrap_servers=settings.bootstrap_servers)
    await producer.start()
    yield producer
    await producer.stop()


async def test_it_is_made_anew_and_loses_and_repeats_nothing(
    settings: Kafka, producer: AIOKafkaProducer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standstill, "LOOK_S", 0.5)
    monkeypatch.setattr(standstill, "LOOKS", 3)
    taken: list[bytes | None] = []

    async def deliver(records: Sequence[Record]) -> list[Later]:
        taken.extend(r.value for r in records)
        return []

    async def send(*values: bytes) -> None:
        for i, value in enumerate(values):
            await producer.send_and_wait(settings.topic_prefix + EVENTS.name, value, partition=i % 2)

    async def has(n: int) -> bool:
        return len(taken) >= n

    fleet = Fleet(settings)
    intake = Intake(deliver, Parking({}, lambda *_: None), limit=1, backlog=100, single=False, drain_s=5)
    fleet.add(STAGE, "remember", "interactive", intake, max_records=10, drain_s=5)
    renewals = metrics.RENEWALS.labels("remember", "interactive")
    before = renewals._value.get()
    await fleet.start()
    try:
        await send(b"1", b"2", b"3")
        await eventually(lambda: has(3), lambda: f"{taken}")
        (subscriber,) = fleet.broker.subscribers
        consumer = subscriber.consumer  # type: ignore[attr-defined]
        consumer._fetcher._fetch_task.cancel()
        await asyncio.sleep(3)
        assert renewals._value.get() == before, "nothing is left to take"
        await send(b"4", b"5", b"6")
        await eventually(lambda: has(6), lambda: f"{taken}; {intake.standstill}")
        await asyncio.sleep(1.5)
        assert sorted(taken) == [b"1", b"2", b"3", b"4", b"5", b"6"]
        assert renewals._value.get() == before + 1
        assert intake.standstill is None
        assert not intake.fatal.done()
        anew = subscriber.consumer  # type: ignore[attr-defined]
        assert anew is not consumer
        assert anew.assignment() == {TopicPartition(settings.topic_prefix + EVENTS.name, p) for p in (0, 1)}
    finally:
        await fleet.stop()
        await intake.close()
