"""The lag as a real broker tells it: what the consumer has not taken, of the partitions that it has."""

from __future__ import annotations

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from tests.servers.kafka import Broker
from workers.runtime import lag


async def test_what_a_consumer_has_not_taken(kafka: Broker, topic_prefix: str) -> None:
    topic = topic_prefix + "lag"
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(topic, 2, 1)])
    await admin.close()
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap) as producer:
        for n in range(5):
            await producer.send_and_wait(topic, b"record", partition=n % 2)
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=kafka.bootstrap, group_id=topic, auto_offset_reset="earliest")
    async with consumer:
        taken = 0
        while not taken:
            taken = sum(map(len, (await consumer.getmany(timeout_ms=1_000, max_records=2)).values()))
        assert await lag.left(consumer) == 5 - taken
        while taken < 5:
            taken += sum(map(len, (await consumer.getmany(timeout_ms=1_000)).values()))
        assert await lag.left(consumer) == 0
