"""Outcomes and exceptions to traffic: the one place that says what is published, retried, parked, or written to the dead letters.

| the stage says | what happens |
|---|---|
| `Emit`, `End` | published, then the offset may be committed |
| `Retry` | the same record again after a while, its offset open; in the bulk lane, from ten seconds on, through a delay topic |
| `Park`, `Unavailable` | the whole stage waits for the dependency; nothing is counted against the record |
| `Dead`, any other exception | original bytes, key, headers to `llm.dead`; with a readable id also an ending `failed` / `internal` |

A batch in which something raises is run again one event at a time, so that one bad record costs only itself; one that cannot be read, or
whose outcome cannot be written as JSON, is such a record, too. A dead letter that cannot be written stops the process (`Fatal`) with
nothing committed past it. So does a stage most of whose records die of what can be our own doing, once the letters are written and
committed; what users write into a public topic stops nobody.
"""

from __future__ import annotations

import logging
import traceback
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from typing import Generic, Protocol, TypeVar

from pydantic import BaseModel, ValidationError
from typing_extensions import TypeIs

from schemas import Facts, Finished, Plan
from schemas.types import Lane, Tier
from workers.outcomes import Dead, Emit, End, Message, Outcome, Park, Retry, Unavailable, end, expired
from workers.pipeline import Stage
from workers.runtime import metrics, tracing
from workers.runtime.intake import Later, Record
from workers.runtime.letters import dead_letter
from workers.runtime.producer import Outgoing, Producer, Unpublishable
from workers.topics import DEAD, DELAYS, FINISHED, Topic, full_names

log = logging.getLogger("scrimp.delivery")

RETRY_TOPIC = "x-retry-topic"
NOT_BEFORE = "x-not-before"
OURS = frozenset({"bug", "undecodable", "unpublishable"})
"""Reasons of dead letters that no user can cause at will."""
FAILED = "scrimp failed on this request; it is in the dead letters"


class HasFacts(Protocol):
    @property
    def facts(self) -> Facts: ...


E = TypeVar("E", bound=HasFacts)
M = TypeVar("M", bound=BaseModel)
Decode = Callable[[Record, str], "E | Outcome"]
"""From a raw record and its trace id to an event, or straight to an outcome."""
Work = Callable[[Sequence[E]], Awaitable[Sequence[Outcome]]]


class Fatal(Exception):
    """The process must stop: going on would lose records."""


@dataclass(frozen=True, slots=True)
class DeadLimit:
    """Stop when most of a topic dies of a bug, of an event between stages that does not parse, or of what the broker refuses."""

    of_last: int = 200
    at_least: int = 100
    share: float = 0.5


def decoder(event: type[M]) -> Callable[[Record, str], M | Outcome]:
    """Decode an internal event. What does not parse is a dead letter: no user wrote it."""

    def decode(record: Record, _trace_id: str) -> M | Outcome:
        if not record.value:
            return Dead("undecodable", "an internal event has a value")
        try:
            return event.model_validate_json(record.value)
        except ValidationError as e:
            first = e.errors(include_input=False, include_url=False, include_context=False)[0]
            return Dead("undecodable", f"{event.__name__}: {'.'.join(map(str, first['loc']))}: {first['type']}")

    return decode


class Delivery(Generic[E]):
    """`deliver` of one stage in one lane."""

    def __init__(
        self,
        stage: Stage,
        lane: Lane,
        *,
        decode: Decode[E],
        work: Work[E],
        producer: Producer,
        topic_prefix: str,
        bury: Callable[[Facts], Awaitable[Sequence[Outcome]]] | None = None,
        limit: DeadLimit = DeadLimit(),
    ) -> None:
        """`bury` ends the request of a dead letter in `attribute`, where a new `Finished` would loop."""
        self._stage = stage
        self._lane = lane
        self._decode = decode
        self._work = work
        self._producer = producer
        self._prefix = topic_prefix
        self._own = full_names(topic_prefix)
        self._bury = bury
        self._limit = limit
        self._lately: deque[bool] = deque(maxlen=limit.of_last)
        self._seconds = metrics.BATCH_SECONDS.labels(stage.name, lane)
        self._span = f"{stage.name} batch", f"{stage.name} record"
        self._count = cache(partial(metrics.RECORDS.labels, stage.name, lane))

    async def deliver(self, records: Sequence[Record]) -> list[Later]:
        self._stop_if_most_die()
        traces = [tracing.of(r.headers) for r in records]
        with (
            self._seconds.time(),
            tracing.span(self._span[len(records) == 1], traces),
        ):
            found = [self._read(r, t) for r, t in zip(records, traces, strict=True)]
            if self._stage.expires:
                now = datetime.now(UTC)
                found = [f if _is_outcome(f) or f.facts.deadline_at > now else expired(f.facts, tier=_tier(f)) for f in found]
            events = [(i, f) for i, f in enumerate(found) if not _is_outcome(f)]
            outcomes: list[Outcome] = [f if _is_outcome(f) else Emit() for f in found]
            for (i, _), outcome in zip(events, await self._run([e for _, e in events]), strict=True):
                outcomes[i] = outcome
            facts = {i: e.facts for i, e in events}
            return await self._carry_out(records, traces, outcomes, facts)

    def _read(self, record: Record, trace: tracing.Trace) -> E | Outcome:
        try:
            return self._decode(record, trace.trace_id)
        except Exception as e:  # noqa: BLE001  a record that cannot even be read must not stop every process that meets it
            return self._bug(e)

    def _bug(self, error: Exception) -> Dead:
        log.error("%s raised %s at %s", self._stage.name, type(error).__name__, _where(error))
        return Dead("bug", f"{type(error).__name__} at {_where(error)}")

    async def _run(self, events: Sequence[E]) -> list[Outcome]:
        if not events:
            return []
        try:
            outcomes = list(await self._work(events))
        except Unavailable:
            raise
        except Exception as e:  # noqa: BLE001  whatever a stage raises is a bug in it, and costs one record, not the worker
            if len(events) > 1:
                return [o for event in events for o in await self._run([event])]
            return [self._bug(e)]
        for outcome in outcomes:
            if isinstance(outcome, Park):
                raise Unavailable(outcome.dependency, "the stage parked")
        return outcomes

    async def _carry_out(
        self, records: Sequence[Record], traces: Sequence[tracing.Trace], outcomes: Sequence[Outcome], facts: dict[int, Facts]
    ) -> list[Later]:
        later: list[Later] = []
        groups: list[_Group] = []
        counts: Counter[str] = Counter()
        for i, (record, trace, outcome) in enumerate(zip(records, traces, outcomes, strict=True)):
            try:
                made = self._made(outcome, trace)
            except ValueError as e:  # it holds what JSON cannot, such as half of a surrogate pair
                outcome, made = self._bug(e), []
            match outcome:
                case Emit():
                    groups.append(_Group(record, trace, facts.get(i), made))
                    counts["emit"] += 1
                case End(finished):
                    groups.append(_Group(record, trace, finished.facts, made))
                    counts[finished.status] += 1
                case Retry(why, after):
                    counts["retry"] += 1
                    if self._lane == "bulk" and (delay := _delay_topic(after)):
                        groups.append(_Group(record, trace, facts.get(i), [self._delayed(record, delay, after)]))
                    else:
                        log.debug("%s waits %.2f s: %s", self._stage.name, after, why)
                        later.append((record, after))
                case Dead(reason, error):
                    counts["ours"] += reason in OURS
                    known = facts.get(i) or _readable_facts(record)
                    groups.append(_Group(record, trace, known, await self._dead(record, trace, reason, error, known)))
                    counts["dead"] += 1
        ours = counts.pop("ours", 0) + await self._publish(groups)
        for name, n in counts.items():
            self._count(name).inc(n)
        self._lately.extend([True] * ours + [False] * (counts.total() - ours - counts["retry"]))
        return later

    async def _publish(self, groups: Sequence[_Group]) -> int:
        """How many records could not be published and are dead letters instead."""
        try:
            await self._producer.send([o for group in groups for o in group.outgoing])
            return 0
        except Unpublishable:
            log.debug("%s: one of a batch is refused; each goes on its own", self._stage.name)
        refused = 0
        for group in groups:
            for outgoing in group.outgoing:
                try:
                    await self._producer.send([outgoing])
                except Unpublishable as e:
                    await self._refused(group, outgoing, e)
                    # A tenant's own topic that is missing is that tenant's affair.
                    refused += outgoing.topic in self._own
        return refused

    async def _refused(self, group: _Group, outgoing: Outgoing, error: Unpublishable) -> None:
        """What we made of a record cannot be published: the record itself is the dead letter, and its request has failed."""
        if outgoing.topic == self._name(DEAD):
            raise Fatal(f"a dead letter cannot be written: {error}") from error
        log.error("%s made a record for %s that cannot be published: %s", self._stage.name, outgoing.topic, error)
        instead = [self._letter(group.record, "unpublishable", f"{outgoing.topic}: {error}")]
        # An ending that is refused cannot be told by an ending; in `attribute` it is stored already.
        if self._stage.ends_requests and self._bury is None and group.facts and outgoing.topic != self._name(FINISHED):
            instead.append(self._finished(end(group.facts, "failed", "internal", FAILED).finished, group.trace))
        try:
            await self._producer.send(instead)
        except Unpublishable as e:
            raise Fatal(f"a dead letter cannot be written: {e}") from e

    async def _dead(self, record: Record, trace: tracing.Trace, reason: str, error: str, facts: Facts | None) -> list[Outgoing]:
        letter = self._letter(record, reason, error)
        if facts is None or not self._stage.ends_requests:
            return [letter]
        if self._bury is None:
            return [letter, self._finished(end(facts, "failed", "internal", FAILED).finished, trace)]
        try:
            endings = await self._bury(facts)
        except Unavailable:
            raise
        except Exception as e:  # noqa: BLE001  the letter is written all the same
            log.error("%s could not end a dead request: %s at %s", self._stage.name, type(e).__name__, _where(e))
            return [letter]
        return [letter, *(self._encode(m, trace) for o in endings if isinstance(o, Emit) for m in o.messages)]

    def _letter(self, record: Record, reason: str, error: str) -> Outgoing:
        metrics.DEAD_LETTERS.labels(self._stage.name, self._lane, reason).inc()
        return dead_letter(self._name(DEAD), self._stage.name, record, reason, error)

    def _stop_if_most_die(self) -> None:
        """Looked at before the next batch, when the letters of the last one are written and their offsets may be committed."""
        dead = sum(self._lately)
        if len(self._lately) >= self._limit.at_least and dead > self._limit.share * len(self._lately):
            raise Fatal(f"{dead} of the last {len(self._lately)} records of {self._stage.name} went to the dead letters")

    def _name(self, topic: Topic) -> str:
        return self._prefix + topic.on(self._lane)

    def _made(self, outcome: Outcome, trace: tracing.Trace) -> list[Outgoing]:
        match outcome:
            case Emit(messages):
                return [self._encode(m, trace) for m in messages]
            case End(finished):
                return [self._finished(finished, trace)]
        return []

    def _encode(self, message: Message, trace: tracing.Trace) -> Outgoing:
        value = message.value if isinstance(message.value, bytes) else _json(message.value)
        headers = ((tracing.HEADER, trace.parent.encode()), *((k, v.encode()) for k, v in message.headers.items()))
        return Outgoing(message.topic_name or self._name(message.topic), message.key.encode(), value, headers)

    def _finished(self, finished: Finished, trace: tracing.Trace) -> Outgoing:
        return self._encode(Message(FINISHED, finished.facts.key, finished), trace)

    def _delayed(self, record: Record, delay: Topic, after: float) -> Outgoing:
        """The same bytes, back to the same topic, not before then."""
        due = datetime.now(UTC) + timedelta(seconds=after)
        kept = tuple(h for h in record.headers if h[0] not in (RETRY_TOPIC, NOT_BEFORE))
        control = ((RETRY_TOPIC, record.topic.encode()), (NOT_BEFORE, due.isoformat().encode()))
        return Outgoing(self._name(delay), record.key, record.value, (*kept, *control))


@dataclass(frozen=True, slots=True)
class _Group:
    """What one record leads to."""

    record: Record
    trace: tracing.Trace
    facts: Facts | None
    outgoing: list[Outgoing]


def _tier(event: HasFacts) -> Tier | None:
    """The tier that was chosen, of an event that has come past `classify`."""
    plan = getattr(event, "plan", None)
    return plan.tier if isinstance(plan, Plan) else None


def _is_outcome(found: object) -> TypeIs[Outcome]:
    return isinstance(found, Emit | End | Retry | Park | Dead)


def _json(event: BaseModel) -> bytes:
    return event.model_dump_json().encode()


def _delay_topic(after: float) -> Topic | None:
    """The longest delay that is not longer than the wait."""
    fitting = [(delay, topic) for topic, delay in DELAYS.items() if delay.total_seconds() <= after]
    return max(fitting, key=lambda pair: pair[0])[1] if fitting else None


def _readable_facts(record: Record) -> Facts | None:
    """The facts of an internal event that does not parse as a whole."""

    class OnlyFacts(BaseModel):
        facts: Facts

    try:
        return OnlyFacts.model_validate_json(record.value or b"").facts
    except ValidationError:
        return None


def _where(error: BaseException) -> str:
    """File, line and function of an error, without its message: that could hold a prompt."""
    frames = traceback.extract_tb(error.__traceback__)
    return " < ".join(f"{f.filename.rsplit('/', 1)[-1]}:{f.lineno} {f.name}" for f in reversed(frames[-3:]))
