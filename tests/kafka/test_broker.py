"""The broker under the other tests: it keeps what it took, and SCRIMP_REQUIRE lets nothing stand in for it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from tests.servers.kafka import Broker, session
from tests.servers.process import NotReady


async def test_records_outlive_a_kill(kafka: Broker, topic_prefix: str) -> None:
    if not kafka.durable:
        pytest.skip(f"{kafka.title} keeps nothing over a restart")
    topic = TopicPartition(f"{topic_prefix}kept", 0)
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(topic.topic, 1, 1)])
    await admin.close()
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, enable_idempotence=kafka.idempotence) as producer:
        await producer.send_and_wait(topic.topic, b"still here")

    kafka.kill()
    await asyncio.to_thread(kafka.restart)

    consumer = AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap)
    async with consumer:
        consumer.assign([topic])
        await consumer.seek_to_beginning(topic)
        assert (await consumer.getone()).value == b"still here"


def test_a_given_broker_must_answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SCRIMP_TEST_KAFKA", "127.0.0.1:1")
    with pytest.raises(NotReady, match=r"127\.0\.0\.1:1"), session(tmp_path):
        pass


def test_what_is_required_is_never_replaced(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SCRIMP_TEST_KAFKA", raising=False)
    monkeypatch.setenv("SCRIMP_REQUIRE", "postgres, kafka")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotReady, match="no docker; no java"), session(tmp_path):
        pass


def test_without_a_requirement_the_embedded_broker_serves(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SCRIMP_TEST_KAFKA", raising=False)
    monkeypatch.delenv("SCRIMP_REQUIRE", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with session(tmp_path) as broker:
        assert (broker.kind, broker.idempotence, broker.durable) == ("embedded", False, False)
