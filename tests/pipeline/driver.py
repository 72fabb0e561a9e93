"""One suite, two brokers: publish a request, read what the fleet published. All stages run in this process, the provider is a real server.

`memory`: FastStream's in-memory test broker around the very subscribers that ship, with a log per topic behind the producer.
`kafka`: `serve`, as `scrimp run all` calls it, on the session's real broker, read back by a plain aiokafka consumer.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord
from faststream.kafka import TestKafkaBroker

from schemas import CostRecord, Response
from schemas.types import LANES, Lane
from workers.cli.stages import Parts, build
from workers.cli.wiring import policy_file, serve, subscribe
from workers.pipeline import STAGES
from workers.runtime import provision
from workers.runtime.fleet import Fleet
from workers.runtime.producer import Outgoing
from workers.settings import Settings

WORK = [(name, lane) for name in STAGES for lane in LANES]
Headers = Sequence[tuple[str, bytes]]


class Wire(Protocol):
    logs: dict[str, list[Any]]

    async def publish(self, topic: str, key: bytes | None, value: bytes | None, headers: Headers) -> None: ...


@dataclass
class Driver:
    wire: Wire
    prefix: str
    timeout_s: float = 60.0

    async def publish(self, value: bytes | None, *, lane: Lane = "interactive", key: bytes | None = b"k", headers: Headers = ()) -> None:
        await self.wire.publish(self.prefix + ("requests.bulk" if lane == "bulk" else "requests"), key, value, headers)

    def records(self, topic: str) -> list[Any]:
        return self.wire.logs[self.prefix + topic]

    async def until(self, found: Callable[[], Any]) -> Any:
        """What `found` returns as soon as it is truthy; fails with what is on the topics otherwise."""
        deadline = time.monotonic() + self.timeout_s
        while not (value := found()):
            if time.monotonic() > deadline:
                raise AssertionError(f"nothing came; on the topics: { {t: len(log) for t, log in self.wire.logs.items()} }")
            await asyncio.sleep(0.01)
        return value

    async def raw_responses(self, key: str, n: int = 1) -> list[bytes]:
        def found() -> list[bytes]:
            values = [r.value for r in self.records("responses") if r.key == key.encode()]
            return values if len(values) >= n else []

        values: list[bytes] = await self.until(found)
        return values

    async def response(self, key: str) -> Response:
        return Response.model_validate_json((await self.raw_responses(key))[0])

    async def cost(self, key: str) -> CostRecord:
        record = await self.until(lambda: next((r for r in self.records("costs") if r.key == key.encode()), None))
        return CostRecord.model_validate_json(record.value)


@dataclass
class Memory:
    """A log per topic. What is sent is pumped to every FastStream subscriber of the topic, in order, in batches as they pile up."""

    logs: dict[str, list[Any]] = field(default_factory=lambda: defaultdict(list))
    queues: dict[Any, asyncio.Queue[Any]] = field(default_factory=dict)

    async def publish(self, topic: str, key: bytes | None, value: bytes | None, headers: Headers) -> None:
        await self.send([Outgoing(topic, key, value, tuple(headers))])

    async def send(self, records: Sequence[Outgoing]) -> None:
        for o in records:
            log = self.logs[o.topic]
            record = ConsumerRecord(o.topic, 0, len(log), int(time.time() * 1000), 0, o.key, o.value, None, 0, 0, tuple(o.headers))
            log.append(record)
            for subscriber, queue in self.queues.items():
                if o.topic in subscriber.topic_names:
                    queue.put_nowait(record)

    async def check(self) -> None:
        """Always there."""

    async def pump(self, subscriber: Any) -> None:
        queue = self.queues[subscriber]
        while True:
            batch = [await queue.get()]
            while not queue.empty() and len(batch) < 50:
                batch.append(queue.get_nowait())
            await subscriber.process_message(tuple(batch))


@asynccontextmanager
async def memory(settings: Settings, encoder_path: Any) -> AsyncIterator[Driver]:
    wire = Memory()
    async with AsyncExitStack() as stack:
        parts = Parts(settings, policy_file(settings.policy_file), wire, encoder_path, probes={"kafka": wire.check})
        fleet = Fleet(settings.kafka)
        for (name, lane), deliver in (await build(parts, [w for w in WORK if w != ("redeliver", "bulk")], stack)).items():
            subscribe(fleet, parts, STAGES[name], lane, deliver)
        await stack.enter_async_context(TestKafkaBroker(fleet.broker))
        pumps = []
        for subscriber in fleet.broker.subscribers:
            wire.queues[subscriber] = asyncio.Queue()
            pumps.append(asyncio.create_task(wire.pump(subscriber)))
        background = [asyncio.create_task(task()) for task in parts.background]
        try:
            yield Driver(wire, settings.kafka.topic_prefix)
        finally:
            for task in (*pumps, *background):
                task.cancel()
            await asyncio.gather(*pumps, *background, return_exceptions=True)
            await asyncio.gather(*(intake.close() for intake in fleet.intakes.values()))


@dataclass
class Kafka:
    producer: AIOKafkaProducer
    logs: dict[str, list[Any]] = field(default_factory=lambda: defaultdict(list))

    async def publish(self, topic: str, key: bytes | None, value: bytes | None, headers: Headers) -> None:
        await self.producer.send_and_wait(topic, value, key=key, headers=list(headers))

    async def read(self, consumer: AIOKafkaConsumer) -> None:
        async for record in consumer:
            self.logs[record.topic].append(record)


@asynccontextmanager
async def kafka(settings: Settings, encoder_path: Any) -> AsyncIterator[Driver]:
    await provision.apply(settings.kafka)
    producer = AIOKafkaProducer(bootstrap_servers=settings.kafka.bootstrap_servers, max_request_size=4 << 20)
    consumer = AIOKafkaConsumer(
        *provision.wanted(settings.kafka),
        bootstrap_servers=settings.kafka.bootstrap_servers,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=4 << 20,
    )
    await producer.start()
    await consumer.start()
    wire = Kafka(producer)
    stop, started = asyncio.Event(), asyncio.Event()
    reading = asyncio.create_task(wire.read(consumer))
    policy = policy_file(settings.policy_file)
    serving = asyncio.create_task(serve(settings, WORK, policy=policy, stop=stop, started=started, encoder_path=encoder_path))
    starting = asyncio.create_task(started.wait())
    try:
        await asyncio.wait({serving, starting}, return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            await serving
        yield Driver(wire, settings.kafka.topic_prefix)
    finally:
        stop.set()
        starting.cancel()
        await serving
        reading.cancel()
        await asyncio.gather(reading, starting, return_exceptions=True)
        await consumer.stop()
        await producer.stop()
