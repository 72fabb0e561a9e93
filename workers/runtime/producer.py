"""The one producer of a process. Everything the fleet publishes goes through `Producer.send`, and is awaited until the broker has it.

FastStream's own publish cannot write a null value or a header that is not text, and dead letters need both. A broker that cannot be
reached raises `Unavailable("kafka")`, and so does a topic of the fleet's own that is missing; a record that the broker will not take, or
whose topic is somebody else's (a tenant's) and not there, raises `Unpublishable`, and so does a dead letter without its topic, which stops
the process. No topic is ever asked for that is not known to exist: the asking alone could create it. A right that the broker refuses is
such a topic: waited for where it is the fleet's own, and told with what is missing. A setting that keeps us out raises `SettingsError`
at the start; later it is told as an outage is.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError, RecordListTooLargeError, TopicAuthorizationFailedError
from aiokafka.protocol.metadata import MetadataRequest

from workers.outcomes import Unavailable
from workers.runtime import refused
from workers.runtime.connect import client_options
from workers.runtime.knock import knock
from workers.runtime.provision import wanted
from workers.settings import Kafka, SettingsError
from workers.topics import DEAD, MAX_EVENT_BYTES

Headers = tuple[tuple[str, bytes], ...]

ASK_S = 5.0
"""For the broker to answer whether it is there."""
WHY_S = 2.0
"""To find out why it does not."""
REFUSED_S = 5.0
"""A right that was refused is taken to be missing for so long; then it is tried again."""


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
        self._refused: dict[str, tuple[float, str]] = {}
        """Topics of the fleet's own that we may not write to: when we were told, and what."""
        self._spent = False
        self._renewing = asyncio.Lock()
        self._old: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Raises SettingsError where no broker will ever let us in like this."""
        await knock(self._kafka)
        self._client = await self._open()

    async def _open(self) -> AIOKafkaProducer:
        client = AIOKafkaProducer(
            **client_options(self._kafka),
            acks="all",
            enable_idempotence=self._kafka.idempotence,
            max_request_size=MAX_EVENT_BYTES,
            max_batch_size=256 * 1024,
        )
        try:
            await client.start()
        except (KafkaError, asyncio.CancelledError) as e:
            await client.stop()
            if isinstance(e, KafkaError):
                raise Unavailable("kafka", refused.lacking(self._kafka, e, "Write") or str(e)) from e
            raise
        return client

    async def stop(self) -> None:
        for task in self._old:
            task.cancel()
        await asyncio.gather(*self._old, return_exceptions=True)
        if self._client is not None:
            client, self._client = self._client, None
            await client.stop()

    async def check(self) -> None:
        """Raise Unavailable unless a broker answers and takes what we write."""
        if self._client is None:
            raise Unavailable("kafka", "the producer is not started")
        try:
            cluster = await asyncio.wait_for(self._client.client.fetch_all_metadata(), ASK_S)
        except TimeoutError as e:
            raise Unavailable("kafka", f"no answer in {ASK_S:.0f} s") from e
        except KafkaError as e:
            raise Unavailable("kafka", await self._why() or type(e).__name__) from e
        self._there = set(cluster.topics())
        for at, told in self._refused.values():
            if time.monotonic() - at < REFUSED_S:
                raise Unavailable("kafka", told)

    async def _why(self) -> str | None:
        """What keeps us out, now that we have been in."""
        with suppress(TimeoutError):
            try:
                await asyncio.wait_for(knock(self._kafka), WHY_S)
            except SettingsError as e:
                return str(e)
            except Unavailable as e:
                return str(e).removeprefix("kafka: ")
        return None

    async def topics(self) -> set[str]:
        """Names of the topics there are. Raises Unavailable unless a broker answers."""
        await self.check()
        return self._there

    async def must_see(self, topics: Collection[str]) -> None:
        """Raises Unavailable while one of these is missing, or hidden from us who are to read it."""
        if not (missing := set(topics) - await self.topics()):
            return
        if hidden := await self._hidden(missing):
            raise Unavailable("kafka", refused.right(self._kafka, "Read", "topic", hidden))
        raise Unavailable("kafka", _missing(missing))

    async def send(self, records: Sequence[Outgoing]) -> None:
        if self._spent:
            await self._renew()
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
                    self._spent = self._kafka.idempotence
                    raise result
        except (MessageSizeTooLargeError, RecordListTooLargeError) as e:
            raise Unpublishable(type(e).__name__) from e
        except TopicAuthorizationFailedError as e:
            raise self._may_not(refused.named(e)) from e
        except (KafkaError, TimeoutError) as e:
            raise Unavailable("kafka", refused.told(self._kafka, e, "Write")) from e

    async def _look_for(self, topics: set[str]) -> None:
        if not topics - self._there:
            return
        await self.check()
        if not (missing := topics - self._there):
            return
        if hidden := await self._hidden(missing):
            raise self._may_not(hidden)
        if ours := sorted(missing & self._awaited):
            raise Unavailable("kafka", _missing(ours))
        raise Unpublishable(f"no such topic: {', '.join(sorted(missing))}")

    async def _hidden(self, topics: Collection[str]) -> set[str]:
        """Those that the broker will not even speak of: who has no right to a topic does not see it."""
        if (
            self._client is None or self._kafka.security_protocol == "PLAINTEXT"
        ):  # an old or simple broker might create what it is asked for
            return set()
        client = self._client.client
        try:
            answer = await client.send(client.get_random_node(), MetadataRequest(sorted(topics), allow_auto_topic_creation=False))
        except KafkaError as e:
            raise Unavailable("kafka", type(e).__name__) from e
        return {topic[1] for topic in answer.topics if topic[0] == TopicAuthorizationFailedError.errno}

    def _may_not(self, topics: Collection[str]) -> Unavailable | Unpublishable:
        """What is the fleet's own is waited for; else the record is lost, and no other."""
        told = refused.right(self._kafka, "Write", "topic", topics)
        if not (ours := self._awaited & set(topics)):
            return Unpublishable(told)
        now = time.monotonic()
        self._refused = {name: said for name, said in self._refused.items() if now - said[0] < REFUSED_S} | dict.fromkeys(ours, (now, told))
        return Unavailable("kafka", told)

    async def _renew(self) -> None:
        """A client whose record the broker has refused has counted it all the same, and an idempotent one would have everything refused
        that follows on the partition."""
        async with self._renewing:
            if not self._spent or self._client is None:
                return
            old, self._client = self._client, await self._open()
            self._spent = False
            task = asyncio.create_task(old.stop(), name="old producer")  # others may wait for what it has under way
            self._old.add(task)
            task.add_done_callback(self._old.discard)


def _missing(topics: Collection[str]) -> str:
    return f"missing topics: {', '.join(sorted(topics))}; run `scrimp topics apply`"
