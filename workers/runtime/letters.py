"""Dead letters: how one is written, how it is read back, and what of it goes out again.

A letter is the record that died, byte for byte (a null value and null headers stay null), with our headers behind its own. A record on the
topic that does not end in them is nobody's letter: `read` says None, and nothing of it is ever sent anywhere.

A replay is noted on `llm.dead.replayed` once the record is out, so that no later replay repeats it in silence. A crash between the two
repeats at most one batch.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from workers.runtime import client
from workers.runtime.intake import Record
from workers.runtime.producer import Headers, Outgoing

CONTROL = tuple(f"x-dead-{name}" for name in ("reason", "error", "stage", "topic", "partition", "offset", "at"))
"""Our headers, in the order in which they stand last."""
REPLAYED_FROM = "x-replayed-from"
"""On a replayed record: where its letter stands, as `partition:offset`."""


def dead_letter(topic: str, stage: str, record: Record, reason: str, error: str) -> Outgoing:
    """The original bytes, key and headers of a record, and why, where from and when it died. `error` must hold nothing of the record."""
    told = (reason, error, stage, record.topic, str(record.partition), str(record.offset), datetime.now(UTC).isoformat())
    control = zip(CONTROL, (text.encode() for text in told), strict=True)
    return Outgoing(topic, record.key, record.value, (*record.headers, *control))


@dataclass(frozen=True, slots=True)
class Letter:
    partition: int
    offset: int
    reason: str
    error: str
    stage: str
    topic: str
    """Full name of the topic it died on."""
    origin: str
    """Where on that topic: `partition:offset`."""
    died_at: datetime
    record: client.Record

    @property
    def at(self) -> str:
        return f"{self.partition}:{self.offset}"

    @property
    def headers(self) -> Headers:
        """The original ones."""
        return self.record.headers[: -len(CONTROL)]

    def again(self) -> Outgoing:
        """The original record, to the topic it came from."""
        headers = (*self.headers, (REPLAYED_FROM, self.at.encode()))
        return Outgoing(self.topic, self.record.raw_key, self.record.value, headers)

    def note(self, topic: str, now: datetime) -> Outgoing:
        """What tells later replays that this one was done."""
        told = {"died_at": self.died_at.isoformat(), "topic": self.topic, "at": now.isoformat()}
        return Outgoing(topic, self.at.encode(), json.dumps(told).encode())


def read(record: client.Record) -> Letter | None:
    control = record.headers[-len(CONTROL) :]
    if tuple(name for name, _ in control) != CONTROL:
        return None
    reason, error, stage, topic, partition, offset, at = ((value or b"").decode(errors="replace") for _, value in control)
    try:
        died_at = datetime.fromisoformat(at)
    except ValueError:
        return None
    if died_at.tzinfo is None:
        return None
    return Letter(record.partition, record.offset, reason, error, stage, topic, f"{partition}:{offset}", died_at, record)


def replayed(notes: Iterable[client.Record]) -> dict[tuple[str, str], str]:
    """When each letter was replayed last, by its place and the time of death: a topic that was made anew counts its places anew."""
    found: dict[tuple[str, str], str] = {}
    for record in notes:
        try:
            told = json.loads(record.value or b"")
            found[record.key or "", str(told["died_at"])] = str(told["at"])
        except (ValueError, TypeError, KeyError):
            continue  # not one of ours
    return found
