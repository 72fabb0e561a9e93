"""`redeliver`: records in the delay topics go back to the topic they came from once they are due.

A record that waits holds no slot; its offset stays open, so a restart loses none and repeats at most those not yet committed. A record
without the two control headers, or for a topic that is not there, goes to the dead letters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from workers.runtime.delivery import NOT_BEFORE, RETRY_TOPIC
from workers.runtime.intake import Deliver, Later, Record
from workers.runtime.producer import Outgoing, Producer
from workers.topics import DEAD


def make_redeliver(producer: Producer, topic_prefix: str, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> Deliver:
    async def redeliver(records: Sequence[Record]) -> list[Later]:
        later: list[Later] = []
        due: list[Outgoing] = []
        for record in records:
            control = {name: value.decode(errors="replace") for name, value in record.headers if name in (RETRY_TOPIC, NOT_BEFORE)}
            headers = tuple(h for h in record.headers if h[0] not in (RETRY_TOPIC, NOT_BEFORE))
            topic, not_before = control.get(RETRY_TOPIC, ""), _time(control.get(NOT_BEFORE, ""))
            if not topic.startswith(topic_prefix) or not_before is None:
                dead = (("x-dead-reason", b"not_redeliverable"), ("x-dead-stage", b"redeliver"), ("x-dead-topic", record.topic.encode()))
                due.append(Outgoing(topic_prefix + DEAD.name, record.key, record.value, (*record.headers, *dead)))
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
