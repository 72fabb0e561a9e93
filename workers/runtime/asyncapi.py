"""The AsyncAPI document of the fleet, made from the map in `pipeline.py`.

FastStream writes it from a broker that is declared and never started: the consumers that run take raw records, so they know no payloads.
"""

from __future__ import annotations

from typing import Any

from faststream.kafka import KafkaBroker
from faststream.specification import AsyncAPI

from schemas.types import LANES
from workers.pipeline import STAGES, Stage
from workers.topics import REQUESTS, TOPICS, Topic


def document(topic_prefix: str = "llm.") -> dict[str, Any]:
    """AsyncAPI 3.0, as a JSON object: every topic with the schema of what stands in it, and which stages read it."""
    broker = KafkaBroker("localhost:9092")
    for topic in TOPICS:
        if topic is not REQUESTS:  # that one is written by users, and only read here
            for name in _names(topic, topic_prefix):
                broker.publisher(name, title=name, schema=topic.event or bytes, description=_what(topic))
    for stage in STAGES.values():
        for topic in stage.reads:
            for name in _names(topic, topic_prefix):
                _reads(broker, stage, name, topic)
    about = "Requests in, answers with their price out. `send` is what the fleet writes, `receive` what a stage of it reads."
    spec = AsyncAPI(broker, title="scrimp", version="1", description=about)
    made: dict[str, Any] = spec.to_specification().to_jsonable()
    return made


def _names(topic: Topic, topic_prefix: str) -> list[str]:
    return [topic_prefix + topic.on(lane) for lane in (LANES if topic.lanes else LANES[:1])]


def _reads(broker: KafkaBroker, stage: Stage, name: str, topic: Topic) -> None:
    async def handler(event: Any) -> None: ...

    handler.__annotations__["event"] = topic.event or bytes
    handler.__name__ = f"{stage.name}_{name.replace('.', '_')}"
    broker.subscriber(name, title=f"{name}:{stage.name}", description=_what(topic))(handler)


def _what(topic: Topic) -> str:
    return "public" if topic.public else "between stages"
