"""`classify` as a FastStream consumer against a bare aiokafka batch loop with the same models and the same stage function.

Both read the same preloaded topic, parse, classify, encode, publish and commit every record; rounds alternate. What differs is what the
runtime adds: FastStream's consumer, the in-flight window, offsets, outcomes, counters and spans, as shipped.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Sequence
from contextlib import AsyncExitStack
from statistics import median

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from bench.report import line, verdict
from schemas.types import utc_now
from workers.classify.classify import make_classify
from workers.classify.intake import Asked, read
from workers.classify.route import Thresholds
from workers.cli.stages import Parts, build
from workers.cli.wiring import policy_file, subscribe
from workers.encoder import tokens
from workers.outcomes import Emit
from workers.pipeline import STAGES
from workers.runtime import provision, tracing
from workers.runtime.fleet import Fleet
from workers.runtime.producer import KafkaProducer, Outgoing
from workers.settings import Kafka, Settings
from workers.topics import CLASSIFIED, REQUESTS

RECORDS = 12_000
ROUNDS = 5
BATCH = 500
PARTITIONS = 4


def request(n: int) -> bytes:
    """About 1 kB, like a support question with a system prompt and some context."""
    return json.dumps(
        {
            "request_id": str(uuid.uuid4()),
            "tenant": f"t{n % 17}",
            "feature": "support-bot",
            "user": f"u-{n % 400}",
            "messages": [
                {"role": "system", "content": "You answer questions about a photo printing service. " * 6},
                {
                    "role": "user",
                    "content": f"My prints of order type {n % 50} came out too dark. How do I make them brighter next time? " * 4,
                },
            ],
            "params": {"max_tokens": 256, "temperature": 0},
            "metadata": {"page": n, "trace": "x" * 64},
        }
    ).encode()


async def preload(kafka: Kafka) -> None:
    await provision.apply(kafka)
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers, linger_ms=5, max_batch_size=262_144)
    await producer.start()
    name = kafka.topic_prefix + REQUESTS.name
    for start in range(0, RECORDS, 1000):
        await asyncio.gather(*[await producer.send(name, request(n), key=str(n).encode()) for n in range(start, start + 1000)])
    await producer.stop()


async def bare(kafka: Kafka) -> float:
    """Records a second of the bare loop."""
    out = kafka.topic_prefix + CLASSIFIED.name
    consumer = AIOKafkaConsumer(
        kafka.topic_prefix + REQUESTS.name,
        bootstrap_servers=kafka.bootstrap_servers,
        group_id=f"bare-{uuid.uuid4()}",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        max_partition_fetch_bytes=4 << 20,
    )
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers, acks="all", enable_idempotence=True, max_batch_size=262_144)
    await consumer.start()
    await producer.start()
    classify = make_classify(policy=policy_file(None), thresholds=Thresholds(), more_than=tokens.more_than)
    done, started = 0, 0.0
    while done < RECORDS:
        polled = await consumer.getmany(timeout_ms=1000, max_records=BATCH)
        started = started or time.perf_counter()
        records = [r for part in polled.values() for r in part]
        events = [
            read(r.value, lane="interactive", timestamp_ms=r.timestamp, now=utc_now(), trace_id=tracing.of(r.headers).trace_id)
            for r in records
        ]
        outcomes = await classify([e for e in events if isinstance(e, Asked)])
        messages = [m for o in outcomes if isinstance(o, Emit) for m in o.messages]
        await asyncio.gather(*[await producer.send(out, m.value.model_dump_json().encode(), key=m.key.encode()) for m in messages])
        await consumer.commit()
        done += len(records)
    rate = done / (time.perf_counter() - started)
    await consumer.stop()
    await producer.stop()
    return rate


class Counting:
    """The fleet's producer, counting what it has published."""

    def __init__(self, inner: KafkaProducer) -> None:
        self.inner = inner
        self.started = 0.0
        self.sent = 0
        self.done = asyncio.Event()

    async def send(self, records: Sequence[Outgoing]) -> None:
        self.started = self.started or time.perf_counter()
        await self.inner.send(records)
        self.sent += len(records)
        if self.sent >= RECORDS:
            self.done.set()


async def fleet(kafka: Kafka) -> float:
    """Records a second of the stage as it ships."""
    settings = Settings(kafka=kafka.model_copy(update={"group_prefix": f"fleet-{uuid.uuid4()}."}))
    async with AsyncExitStack() as stack:
        producer = KafkaProducer(settings.kafka)
        await producer.start()
        stack.push_async_callback(producer.stop)
        counting = Counting(producer)
        parts = Parts(settings, policy_file(None), counting)
        consumers = Fleet(settings.kafka)
        for (name, lane), deliver in (await build(parts, [("classify", "interactive")], stack)).items():
            subscribe(consumers, parts, STAGES[name], lane, _from_first(counting, deliver))
        await consumers.start()
        stack.push_async_callback(consumers.stop)
        await counting.done.wait()
        (intake,) = consumers.intakes.values()
        await intake.commit()
        rate = counting.sent / (time.perf_counter() - counting.started)
        await intake.close()
    return rate


def _from_first(counting: Counting, deliver):  # type: ignore[no-untyped-def]
    """The clock starts with the first batch taken, as in the bare loop."""

    async def timed(records):  # type: ignore[no-untyped-def]
        counting.started = counting.started or time.perf_counter()
        return await deliver(records)

    return timed


async def main(bootstrap: str) -> None:
    kafka = Kafka(bootstrap_servers=bootstrap, partitions=PARTITIONS, topic_prefix=f"bench-{uuid.uuid4().hex[:8]}.")
    await preload(kafka)
    await bare(kafka)  # warm up: pages, code, caches
    rounds = [(await bare(kafka), await fleet(kafka)) for _ in range(ROUNDS)]
    print(f"classify: {RECORDS} requests of about 1 kB, batches of {BATCH}, {ROUNDS} rounds, alternating")
    print(line("bare aiokafka loop", [b for b, _ in rounds], "req/s"))
    print(line("classify as it ships", [f for _, f in rounds], "req/s"))
    print(verdict("ratio (median of the rounds)", median(f / b for b, f in rounds), 0.3, at_least=True))
