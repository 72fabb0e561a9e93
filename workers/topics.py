"""Every topic once: its name, what stands in it, how long, and whether it exists for both lanes.

Names here have no prefix; `Topic.on(lane)` and the settings' prefix make the full one (`llm.classified.bulk`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from pydantic import BaseModel

from schemas import Alert, Classified, Compressed, CostRecord, Finished, Missed, Request, Response
from schemas.types import LANES, Lane

MIB = 1 << 20
MAX_EVENT_BYTES = 4 * MIB
"""`max.message.bytes` of every topic but the requests': events and dead letters are larger than the request they came from."""


@dataclass(frozen=True, slots=True)
class Topic:
    name: str
    event: type[BaseModel] | None
    """None: original bytes of anything (dead letters, delayed records)."""
    lanes: bool = False
    """Exists twice: as it is for the interactive lane, with `.bulk` for the bulk lane."""
    public: bool = False
    retention: timedelta = timedelta(days=3)
    cleanup: Literal["delete", "compact,delete"] = "delete"
    max_bytes: int = MAX_EVENT_BYTES

    def on(self, lane: Lane) -> str:
        return f"{self.name}.bulk" if self.lanes and lane == "bulk" else self.name


REQUESTS = Topic("requests", Request, lanes=True, public=True, max_bytes=MIB)
CLASSIFIED = Topic("classified", Classified, lanes=True)
MISSED = Topic("missed", Missed, lanes=True)
COMPRESSED = Topic("compressed", Compressed, lanes=True)
FINISHED = Topic("finished", Finished, lanes=True)
RESPONSES = Topic("responses", Response, public=True, retention=timedelta(days=7))
COSTS = Topic("costs", CostRecord, public=True, retention=timedelta(days=30), cleanup="compact,delete")
ALERTS = Topic("alerts", Alert, public=True, retention=timedelta(days=30))
DEAD = Topic("dead", None, public=True, retention=timedelta(days=30))
REPLAYED = Topic("dead.replayed", None, retention=timedelta(days=30))
"""What was replayed of the dead letters, and when: by the letter's `partition:offset`. Kept as long as they are."""
RETRY_10S = Topic("retry.10s", None)
RETRY_300S = Topic("retry.300s", None)

TOPICS: tuple[Topic, ...] = (
    REQUESTS,
    CLASSIFIED,
    MISSED,
    COMPRESSED,
    FINISHED,
    RESPONSES,
    COSTS,
    ALERTS,
    DEAD,
    REPLAYED,
    RETRY_10S,
    RETRY_300S,
)

DELAYS: dict[Topic, timedelta] = {RETRY_10S: timedelta(seconds=10), RETRY_300S: timedelta(seconds=300)}
"""What a record in a delay topic waits for. One delay a topic, so that the head is always the next one due."""


def full_names(prefix: str) -> dict[str, Topic]:
    """Every topic of the fleet by its full name. What the policy gives to tenants is not among them."""
    return {prefix + topic.on(lane): topic for topic in TOPICS for lane in (LANES if topic.lanes else LANES[:1])}
