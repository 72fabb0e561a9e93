"""`redeliver`: records in the delay topics go back to the topic they came from once they are due.

A record that waits holds no slot; its offset stays open, so a restart loses none and repeats at most those not yet committed. A record
without the two control headers, or for a topic that no stage reads, goes to the dead letters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from schemas.types import LANES
from workers.pipeline import STAGES
from workers.runtime import metrics
from workers.runtime.delivery import NOT_BEFORE, RETRY_TOPIC
from workers.runtime.intake import Deliver, Later, Record
from workers.runtime.letters import dead_letter
from workers.runtime.producer import Outgoing, Producer
from workers.topics import DEAD, DELAYS


def make_redeliver(producer: Producer, topic_prefix: str, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> Deliver:
    """A record goes back to a topic that some stage reads, and to no other."""
    stages = {topic_prefix + t.on(lane) for stage in STAGES.values() for t in stage.reads if t not in DELAYS for lane in LANES}

    async def redeliver(records: Sequence[Record]) -> list[Later]:
        later: list[Later] = []
        due: list[Outgoing] = []
        for record in records:
            control = {name: value.decode(errors="replace") for name, value in record.headers if name in (RETRY_TOPIC, NOT_BEFORE)}
            headers = tuple(h for h in record.headers if h[0] not in (RETRY_TOPIC, NOT_BEFORE))
            topic, not_before = control.get(RETRY_TOPIC, ""), _time(control.get(NOT_BEFORE, ""))
            if topic not in stages or not_before is None:
                metrics.DEAD_LETTERS.labels("redeliver", LANES[0], "not_redeliverable").inc()
                why = f"needs {RETRY_TOPIC}, a topic that a stage reads, and {NOT_BEFORE}, a time"
                due.append(dead_letter(topic_prefix + DEAD.name, "redeliver", record, "not_redeliverable", why))
            elif (left := (not_before - now()).total_seconds()) > 0:
                later.append((record, left))
            else:
                due.append(Outgoing(topic, record.key, record.value, headers))
        await producer.send(due)
        return later

    return redeliver


def _time(text: str) -> datetime | None:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return at if at.tzinfo else None
