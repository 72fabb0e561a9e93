"""What a stage can say about an event: one of five values. `runtime/delivery.py` alone turns them into Kafka traffic.

Exceptions are not outcomes: `Unavailable` says that a dependency is down (the stage parks), anything else is a bug (a dead letter).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import BaseModel

from schemas import Facts, Finished, Reason
from schemas.types import ReasonCode, Status, Tier
from workers.topics import Topic


@dataclass(frozen=True, slots=True)
class Message:
    """One record to publish. An event is encoded as JSON; bytes go out as they are (a stored response must not be re-encoded)."""

    topic: Topic
    key: str
    value: BaseModel | bytes = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)
    topic_name: str | None = None
    """A full topic name that stands in for `topic` (a tenant's own response topic)."""


@dataclass(frozen=True, slots=True)
class Emit:
    """Go on: publish these, then commit. Empty: nothing to say, just commit."""

    messages: tuple[Message, ...] = ()


@dataclass(frozen=True, slots=True)
class End:
    """The request is finished: publish `Finished`, then commit."""

    finished: Finished


@dataclass(frozen=True, slots=True)
class Retry:
    """Try *this message* again after so many seconds; it costs no slot meanwhile."""

    why: str
    after: float


@dataclass(frozen=True, slots=True)
class Park:
    """What *every* message of the stage needs is down: stop fetching until it is back."""

    dependency: str


@dataclass(frozen=True, slots=True)
class Dead:
    """Cannot be processed at all: the original bytes go to `llm.dead`."""

    reason: str
    error: str


Outcome = Emit | End | Retry | Park | Dead


class Unavailable(Exception):
    """A dependency cannot be reached (connection refused or lost, time-out). The runtime parks the stage; nothing is counted
    against the message."""

    def __init__(self, dependency: str, why: str) -> None:
        super().__init__(f"{dependency}: {why}")
        self.dependency = dependency


def emit(topic: Topic, event: BaseModel, key: str) -> Emit:
    """`Emit` of one event."""
    return Emit((Message(topic, key, event),))


def end(facts: Facts, status: Status, code: ReasonCode, message: str, *, tier: Tier | None = None, model: str | None = None) -> End:
    """An ending without an answer."""
    return End(Finished(facts=facts, status=status, reason=Reason(code=code, message=message), tier=tier, model=model))


def expired(facts: Facts, *, tier: Tier | None = None, model: str | None = None) -> End:
    return end(facts, "expired", "deadline_passed", f"the deadline {facts.deadline_at.isoformat()} had passed", tier=tier, model=model)
