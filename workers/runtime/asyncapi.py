"""The AsyncAPI document of the fleet, made from the map in `pipeline.py`.

FastStream writes it from a broker that is declared and never started: the consumers that run take raw records, so they know no payloads.
"""

from __future__ import annotations

from typing import Any

from faststream.kafka import KafkaBroker
from faststream.specification import AsyncAPI

from schemas.types import LANES
from workers.pipeline import STAGES, Stage
from workers.topics import DEAD, FINISHED, Topic


def document(topic_prefix: str = "llm.") -> dict[str, Any]:
    """AsyncAPI 3.0, as a JSON object: every topic with the schema of what stands in it, and which stage reads or writes it."""
    broker = KafkaBroker("localhost:9092")
    published: set[str] = set()
    for stage in STAGES.values():
        for lane in LANES if stage.lanes else LANES[:1]:
            for topic in stage.reads:
                _reads(broker, stage, topic_prefix + topic.on(lane), topic)
            for topic in (*stage.writes, FINISHED, DEAD):
                if (name := topic_prefix + topic.on(lane)) not in published:
                    published.add(name)
                    broker.publisher(name, title=name, schema=topic.event or bytes, description=_what(topic))
    spec = AsyncAPI(broker, title="scrimp", version="1", description="Requests in, answers with their price out. Public topics: see docs.")
    made: dict[str, Any] = spec.to_specification().to_jsonable()
    return made


def _reads(broker: KafkaBroker, stage: Stage, name: str, topic: Topic) -> None:
    async def handler(event: Any) -> None: ...

    handler.__annotations__["event"] = topic.event or bytes
    handler.__name__ = f"{stage.name}_{name.replace('.', '_')}"
    broker.subscriber(name, group_id=stage.group("scrimp.", "interactive"), title=f"{name}:{stage.name}", description=_what(topic))(handler)


def _what(topic: Topic) -> str:
    return "public" if topic.public else "between stages"
