"""The one producer of a process. Everything the fleet publishes goes through `Producer.send`, and is awaited until the broker has it.

FastStream's own publish cannot write a null value or a header that is not text, and dead letters need both. A broker that cannot be
reached raises `Unavailable("kafka")`, and so does a topic of the fleet's own that is missing; a record that the broker will not take, or
whose topic is somebody else's (a tenant's) and not there, raises `Unpublishable`, and so does a dead letter without its topic, which stops
the process. No topic is ever asked for that is not known to exist: the asking alone could create it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    KafkaError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
)

from workers.outcomes import Unavailable
from workers.runtime.connect import client_options
from workers.runtime.provision import wanted
from workers.settings import Kafka
from workers.topics import DEAD, MAX_EVENT_BYTES

Headers = tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True)
class Outgoing:
    topic: str
    key: bytes | None
    value: bytes | None = field(repr=False)
    headers: Headers = field(default=(), repr=False)


class Unpublishable(Exception):
    """The broker will not take this record, however often it is sent."""


class Producer(Protocol):
    async def send(self, records: Sequence[Outgoing]) -> None:
        """Publish all of them; returns when every one is acknowledged."""
        ...


class KafkaProducer:
    def __init__(self, kafka: Kafka) -> None:
        self._kafka = kafka
        self._client: AIOKafkaProducer | None = None
        self._awaited = wanted(kafka).keys() - {kafka.topic_prefix + DEAD.name}
        self._there: set[str] = set()
        """Topics that were seen on the broker."""

    async def start(self) -> None:
        self._client = AIOKafkaProducer(
            **client_options(self._kafka),
            acks="all",
            enable_idempotence=self._kafka.idempotence,
            max_request_size=MAX_EVENT_BYTES,
            max_batch_size=256 * 1024,
        )
        try:
            await self._client.start()
        except (KafkaError, asyncio.CancelledError) as e:
            await self.stop()
            if isinstance(e, KafkaError):
                raise Unavailable("kafka", str(e)) from e
            raise

    async def stop(self) -> None:
        if self._client is not None:
            client, self._client = self._client, None
            await client.stop()

    async def check(self) -> None:
        """Raise Unavailable unless a broker answers."""
        if self._client is None:
            raise Unavailable("kafka", "the producer is not started")
        try:
            cluster = await asyncio.wait_for(self._client.client.fetch_all_metadata(), 5)
        except (KafkaError, TimeoutError) as e:
            raise Unavailable("kafka", type(e).__name__) from e
        self._there = set(cluster.topics())

    async def topics(self) -> set[str]:
        """Names of the topics there are. Raises Unavailable unless a broker answers."""
        await self.check()
        return self._there

    async def send(self, records: Sequence[Outgoing]) -> None:
        if self._client is None:
            raise Unavailable("kafka", "the producer is not started")
        await self._look_for({r.topic for r in records})
        pending: list[asyncio.Future[object]] = []
        try:
            for r in records:
                # aiokafka refuses a record with neither key nor value; of the two, a null value is the one that means something.
                key = b"" if r.key is None and r.value is None else r.key
                pending.append(await self._client.send(r.topic, r.value, key=key, headers=list(r.headers)))
            # Every acknowledgement is waited for, also after one has failed: none may arrive unseen.
            for result in await asyncio.gather(*pending, return_exceptions=True):
                if isinstance(result, BaseException):
                    raise result
        except (MessageSizeTooLargeError, RecordListTooLargeError, TopicAuthorizationFailedError) as e:
            raise Unpublishable(type(e).__name__) from e
        except (KafkaError, TimeoutError) as e:
            raise Unavailable("kafka", type(e).__name__) from e

    async def _look_for(self, topics: set[str]) -> None:
        if not topics - self._there:
            return
        await self.check()
        missing = topics - self._there
        if ours := sorted(missing & self._awaited):
            raise Unavailable("kafka", f"missing topics: {', '.join(ours)}; run `scrimp topics apply`")
        if missing:
            raise Unpublishable(f"no such topic: {', '.join(sorted(missing))}")
