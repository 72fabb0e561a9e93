"""Kafka as a user and an operator see it: plain aiokafka and plain JSON, none of the fleet's code.

`Topics` reads what users and operators read, from the beginning, and keeps it. Waiting is for a condition, with a limit far above what it
takes; what was seen by then stands in the failure.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, Self

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.structs import ConsumerRecord

from tests.kafka.fleet import Fleet

READS = {
    "classify": "requests",
    "cache": "classified",
    "compress": "missed",
    "call": "compressed",
    "attribute": "finished",
    "remember": "finished",
}
"""Consumer group to the topic it reads, in the order in which a request passes them."""
READ_HERE = ("compressed", "compressed.bulk", "responses", "costs", "dead", "retry.10s")
DELAYED = {"redeliver.retry.10s": "retry.10s", "redeliver.retry.300s": "retry.300s"}
"""The same of the delay topics, which belong to both lanes."""
PATIENCE_S = 90

Headers = Sequence[tuple[str, bytes | None]]


class Topics:
    """Use as `async with Topics(fleet) as topics`."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._seen: dict[str, list[ConsumerRecord]] = defaultdict(list)
        self._groups: dict[str, AIOKafkaConsumer] = {}

    async def __aenter__(self) -> Self:
        bootstrap = self._fleet.broker.bootstrap
        async with AsyncExitStack() as stack:
            self._producer = AIOKafkaProducer(
                bootstrap_servers=bootstrap, enable_idempotence=self._fleet.broker.idempotence, max_request_size=4 << 20
            )
            self._consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False, auto_offset_reset="earliest")
            # Questions about offsets get a connection of their own: on the consumer's they would wait behind its long polls.
            self._ends = AIOKafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False)
            for client in (self._producer, self._consumer, self._ends):
                stack.push_async_callback(client.stop)
                await client.start()
            self._mine = [tp for name in READ_HERE for tp in self._partitions(name)]
            self._consumer.assign(self._mine)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    # -- publishing -----------------------------------------------------------------------------------------------------------

    async def ask(self, *requests: Mapping[str, Any], topic: str = "requests") -> None:
        """Publish these requests; returns when the broker has them."""
        for request in requests:
            await self.publish(topic, json.dumps(request).encode(), key=str(request.get("request_id")).encode())

    async def publish(self, topic: str, value: bytes | None, *, key: bytes | None = None, headers: Headers = ()) -> ConsumerRecord:
        return await self._producer.send_and_wait(self._fleet.prefix + topic, value, key=key, headers=list(headers))

    # -- reading --------------------------------------------------------------------------------------------------------------

    async def catch_up(self) -> None:
        """Read everything that stands on the topics at this moment."""
        ends = await self._ends.end_offsets(self._mine)
        for tp, end in ends.items():
            while await self._consumer.position(tp) < end:
                for records in (await self._consumer.getmany(timeout_ms=100)).values():
                    for record in records:
                        self._seen[record.topic.removeprefix(self._fleet.prefix)].append(record)

    def seen(self, topic: str, key_prefix: str = "") -> list[ConsumerRecord]:
        """What has been read of a topic, by the beginning of the key."""
        return [r for r in self._seen[topic] if (r.key or b"").startswith(key_prefix.encode())]

    def responses(self, key_prefix: str) -> dict[str, list[dict[str, Any]]]:
        """Responses by key, each in the order of its partition."""
        found: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for record in self.seen("responses", key_prefix):
            found[record.key.decode()].append(json.loads(record.value))
        return found

    def costs(self, key_prefix: str) -> dict[str, dict[str, Any]]:
        """The newest cost record by key."""
        newest: dict[str, dict[str, Any]] = {}
        for record in self.seen("costs", key_prefix):
            cost = json.loads(record.value)
            if cost["revision"] >= newest.get(record.key.decode(), cost)["revision"]:
                newest[record.key.decode()] = cost
        return newest

    async def answers(self, requests: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
        """Wait until each of these has a response; the first response of each, by request id."""
        keys = {key(request): request["request_id"] for request in requests}

        def missing() -> list[str]:
            answered = {(r.key or b"").decode() for r in self._seen["responses"]}
            return [k for k in keys if k not in answered]

        await self.until(lambda: not missing(), lambda: f"no response for {missing()}")
        return {keys[k]: self.responses(k)[k][0] for k in keys}

    async def until(self, condition: Callable[[], bool], otherwise: Callable[[], str] | str, patience_s: float = PATIENCE_S) -> None:
        """Read on until the condition holds."""

        async def holds() -> bool:
            await self.catch_up()
            return condition()

        await eventually(holds, otherwise, patience_s)

    async def record(self, topic: str, partition: int, offset: int) -> ConsumerRecord:
        """What stands there; `topic` with its prefix."""
        at = TopicPartition(topic, partition)
        async with AIOKafkaConsumer(bootstrap_servers=self._fleet.broker.bootstrap, enable_auto_commit=False) as consumer:
            consumer.assign([at])
            consumer.seek(at, offset)
            return await consumer.getone()

    # -- groups ---------------------------------------------------------------------------------------------------------------

    async def committed(self, stage: str, suffix: str = "") -> dict[int, int]:
        """The next offset of a stage's group by partition, for those that have one."""
        if stage + suffix not in self._groups:
            # A consumer that never subscribes may ask for its group's offsets. Not every broker answers the admin client's question.
            group = AIOKafkaConsumer(
                bootstrap_servers=self._fleet.broker.bootstrap, group_id=self._fleet.prefix + stage + suffix, enable_auto_commit=False
            )
            self._stack.push_async_callback(group.stop)
            await group.start()
            self._groups[stage + suffix] = group
        topic = (READS | DELAYED)[stage] + suffix
        found = {tp.partition: await self._groups[stage + suffix].committed(tp) for tp in self._partitions(topic)}
        return {partition: offset for partition, offset in found.items() if offset is not None}

    async def quiet(self, lane: str = "interactive") -> None:
        """Wait until every stage of a lane has finished all there is: then no further record will come, and none needs to be waited for.

        Checked in the order of the pipeline: a stage commits after it has published."""
        open_at: str | None = None

        async def done() -> bool:
            nonlocal open_at
            open_at = await self.behind(READS, ".bulk" if lane == "bulk" else "")
            return open_at is None

        await eventually(done, lambda: open_at or "")
        await self.catch_up()

    async def behind(self, reads: Mapping[str, str], suffix: str = "") -> str | None:
        """The first of these groups that has not committed all that its topic holds, and where it stands; None when there is none."""
        for stage, topic in reads.items():
            ends = await self._ends.end_offsets(self._partitions(topic + suffix))
            committed = await self.committed(stage, suffix)
            open_at = {tp.partition: (committed.get(tp.partition, 0), end) for tp, end in ends.items()}
            if any(at < end for at, end in open_at.values()):
                return f"{stage}{suffix} has committed {open_at}"
        return None

    def _partitions(self, name: str) -> list[TopicPartition]:
        return [TopicPartition(self._fleet.prefix + name, p) for p in range(self._fleet.partitions)]


async def eventually(condition: Callable[[], Awaitable[bool]], otherwise: Callable[[], str] | str, patience_s: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + patience_s
    while not await condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"after {patience_s:.0f} s: {otherwise if isinstance(otherwise, str) else otherwise()}")
        await asyncio.sleep(0.05)


def key(request: Mapping[str, Any]) -> str:
    """The key of a request's response."""
    return f"{request['tenant']}/{request['request_id']}"
