"""What becomes of records whose topic is missing, or may not be written to."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import TopicAuthorizationFailedError

from tests.unit.runtime.test_delivery import answer, make, record
from workers.outcomes import Dead, Unavailable
from workers.runtime.delivery import Fatal
from workers.runtime.producer import KafkaProducer, Outgoing, Unpublishable
from workers.settings import Kafka

SASL = Kafka(security_protocol="SASL_SSL", sasl_mechanism="PLAIN", sasl_username="scrimp", sasl_password="x")


class Cluster:
    """A broker's client that knows these topics and takes no record."""

    def __init__(self, *topics: str) -> None:
        self.client = self
        self._topics = set(topics)

    async def fetch_all_metadata(self) -> Any:
        return SimpleNamespace(topics=lambda: self._topics)


def producer(*topics: str) -> KafkaProducer:
    made = KafkaProducer(Kafka())
    made._client = Cluster(*topics)  # type: ignore[assignment]
    return made


async def test_a_topic_of_the_fleet_is_waited_for() -> None:
    with pytest.raises(Unavailable, match=r"missing topics: llm\.finished; run `scrimp topics apply`"):
        await producer("llm.dead").send([Outgoing("llm.finished", b"k", b"v")])


async def test_a_topic_of_a_tenant_is_not() -> None:
    with pytest.raises(Unpublishable, match=r"acme\.responses"):
        await producer("llm.dead").send([Outgoing("acme.responses", b"k", b"v")])


async def test_without_a_topic_for_dead_letters_the_process_stops() -> None:
    """To wait would look like an outage of Kafka, and go on for ever."""
    deliver = make(answer(Dead("bug", "broken")), producer("llm.finished", "llm.responses"))  # type: ignore[arg-type]
    with pytest.raises(Fatal, match="a dead letter cannot be written"):
        await deliver.deliver([record()])


class Refusing(Cluster):
    """A broker that has the topics, and takes records only while `allows`."""

    allows = False
    stopped = False

    async def send(self, topic: str, *_: object, **__: object) -> asyncio.Future[object]:
        told: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        if Refusing.allows:
            told.set_result(None)
        else:
            told.set_exception(TopicAuthorizationFailedError(topic))
        return told

    async def stop(self) -> None:
        self.stopped = True


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> KafkaProducer:
    monkeypatch.setattr(Refusing, "allows", False)
    made = KafkaProducer(SASL)

    async def opened() -> Refusing:
        return Refusing("llm.finished", "llm.dead", "acme.responses")

    monkeypatch.setattr(made, "_open", opened)
    made._client = Refusing("llm.finished", "llm.dead", "acme.responses")  # type: ignore[assignment]
    return made


async def test_a_right_that_is_missing_is_waited_for(refusing: KafkaProducer) -> None:
    line = r"kafka: User:scrimp lacks the right to Write the topic llm\.finished: "
    with pytest.raises(Unavailable, match=line):
        await refusing.send([Outgoing("llm.finished", b"k", b"v")])
    with pytest.raises(Unavailable, match=line):
        await refusing.check()


async def test_a_right_that_was_missing_is_asked_for_again(refusing: KafkaProducer, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Unavailable):
        await refusing.send([Outgoing("llm.finished", b"k", b"v")])
    monkeypatch.setattr("workers.runtime.producer.REFUSED_S", 0)
    await refusing.check()


async def test_a_client_that_had_a_record_refused_sends_no_other(refusing: KafkaProducer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its numbers have a gap, which an idempotent producer does not get over."""
    first = refusing._client
    with pytest.raises(Unavailable):
        await refusing.send([Outgoing("llm.finished", b"k", b"v")])
    monkeypatch.setattr(Refusing, "allows", True)
    await refusing.send([Outgoing("llm.finished", b"k", b"v")])
    second = refusing._client
    assert second is not first
    await refusing.send([Outgoing("llm.finished", b"k", b"v")])
    assert refusing._client is second
    await refusing.stop()
    assert (first.stopped, second.stopped) == (True, True)  # type: ignore[union-attr]


async def test_a_right_to_a_tenants_topic_that_is_missing_costs_the_record(refusing: KafkaProducer) -> None:
    with pytest.raises(Unpublishable, match=r"Write the topic acme\.responses"):
        await refusing.send([Outgoing("acme.responses", b"k", b"v")])
    await refusing.check()


async def test_without_the_right_to_write_dead_letters_the_process_stops(refusing: KafkaProducer) -> None:
    deliver = make(answer(Dead("bug", "broken")), refusing)  # type: ignore[arg-type]
    with pytest.raises(Fatal, match=r"a dead letter cannot be written: User:scrimp lacks the right to Write the topic llm\.dead"):
        await deliver.deliver([record()])
