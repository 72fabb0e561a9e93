"""What becomes of records whose topic is missing."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.runtime.test_delivery import answer, make, record
from workers.outcomes import Dead, Unavailable
from workers.runtime.delivery import Fatal
from workers.runtime.producer import KafkaProducer, Outgoing, Unpublishable
from workers.settings import Kafka


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
