"""Every outcome and every exception becomes the traffic that delivery's table promises."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from schemas import Classified, Facts, Finished
from workers.outcomes import Dead, Emit, End, Message, Outcome, Park, Retry, Unavailable, end
from workers.pipeline import STAGES
from workers.runtime.delivery import NOT_BEFORE, RETRY_TOPIC, DeadLimit, Delivery, Fatal, decoder
from workers.runtime.intake import Record
from workers.runtime.producer import Outgoing, Unpublishable
from workers.runtime.redeliver import make_redeliver
from workers.topics import COSTS, RESPONSES

NOW = datetime.now(UTC)
TRACEPARENT = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def facts(request_id: str = "r-1", **changes: object) -> Facts:
    plain: dict[str, object] = {
        "request_id": request_id,
        "tenant": "acme",
        "feature": "f",
        "user": None,
        "experiment": None,
        "lane": "interactive",
        "body_hash": "00",
        "created_at": NOW,
        "deadline_at": NOW + timedelta(hours=1),
        "trace_id": "0" * 32,
    }
    return Facts.model_validate(plain | changes)


def finished(request_id: str = "r-1", **changes: object) -> Finished:
    return Finished(facts=facts(request_id, **changes), status="answered", content="hi")


@dataclass(eq=False)
class Rec:
    value: bytes | None
    offset: int = 0
    topic: str = "llm.finished"
    partition: int = 3
    timestamp: int = 0
    key: bytes | None = b"acme/r-1"
    headers: Sequence[tuple[str, bytes]] = ()


@dataclass
class Memory:
    """A producer that keeps what it was given; `refuse` says which records the broker will never take."""

    sent: list[Outgoing] = field(default_factory=list)
    refuse: Callable[[Outgoing], bool] = lambda _o: False
    down: bool = False

    async def send(self, records: Sequence[Outgoing]) -> None:
        if self.down:
            raise Unavailable("kafka", "down")
        if any(self.refuse(o) for o in records):
            raise Unpublishable("MessageSizeTooLargeError")
        self.sent += records

    def to(self, topic: str) -> list[Outgoing]:
        return [o for o in self.sent if o.topic == topic]


def make(work, producer: Memory, stage: str = "remember", lane: str = "interactive", **options) -> Delivery:  # type: ignore[no-untyped-def,type-arg]
    event = Classified if stage == "cache" else Finished
    return Delivery(STAGES[stage], lane, decode=decoder(event), work=work, producer=producer, topic_prefix="llm.", **options)


def answer(*outcomes: Outcome):  # type: ignore[no-untyped-def]
    async def work(_events: Sequence[Finished]) -> list[Outcome]:
        return list(outcomes)

    return work


def record(event: Finished | None = None, **changes: object) -> Rec:
    return Rec((event or finished()).model_dump_json().encode(), **changes)  # type: ignore[arg-type]


async def test_emit_publishes_with_the_trace_and_keeps_stored_bytes_as_they_are() -> None:
    producer = Memory()
    raw = b'{"b":1,"a":"\xc3\xa9"}'
    emit = Emit((Message(RESPONSES, "acme/r-1", raw, {"x-lane": "bulk"}), Message(COSTS, "acme/r-1", b"{}")))
    assert await make(answer(emit), producer).deliver([record(headers=[("traceparent", TRACEPARENT), ("junk", b"\xff\xfe")])]) == []
    (response,) = producer.to("llm.responses")
    assert response.value == raw
    assert response.key == b"acme/r-1"
    assert dict(response.headers) == {"traceparent": TRACEPARENT, "x-lane": b"bulk"}
    assert len(producer.to("llm.costs")) == 1


async def test_a_tenants_own_topic_stands_in_for_the_responses() -> None:
    producer = Memory()
    await make(answer(Emit((Message(RESPONSES, "k", b"{}", topic_name="acme.responses"),))), producer).deliver([record()])
    assert [o.topic for o in producer.sent] == ["acme.responses"]


async def test_end_publishes_finished_in_the_lane() -> None:
    producer = Memory()
    await make(answer(end(facts(lane="bulk"), "failed", "provider_error", "no")), producer, lane="bulk").deliver([record()])
    (out,) = producer.to("llm.finished.bulk")
    assert Finished.model_validate_json(out.value or b"").reason.code == "provider_error"  # type: ignore[union-attr]


async def test_retry_comes_back_to_the_caller_and_commits_nothing() -> None:
    producer, one = Memory(), record()
    assert await make(answer(Retry("held", 300.0)), producer).deliver([one]) == [(one, 300.0)]
    assert producer.sent == []


@pytest.mark.parametrize(("after", "topic"), [(9.9, None), (10.0, "llm.retry.10s"), (299.0, "llm.retry.10s"), (4000.0, "llm.retry.300s")])
async def test_bulk_retries_go_through_a_delay_topic(after: float, topic: str | None) -> None:
    producer, one = Memory(), record(topic="llm.compressed.bulk", headers=[("traceparent", TRACEPARENT)])
    later = await make(answer(Retry("provider", after)), producer, lane="bulk").deliver([one])
    if topic is None:
        assert later == [(one, after)]
        return
    assert later == []
    (delayed,) = producer.to(topic)
    assert (delayed.key, delayed.value) == (one.key, one.value)
    assert dict(delayed.headers)[RETRY_TOPIC] == b"llm.compressed.bulk"

    back = Memory()
    due = datetime.fromisoformat(dict(delayed.headers)[NOT_BEFORE].decode())
    waiting = Rec(delayed.value, topic=topic, key=delayed.key, headers=delayed.headers)
    early = await make_redeliver(back, "llm.", now=lambda: due - timedelta(seconds=3)).__call__([waiting])
    assert [(r, round(s)) for r, s in early] == [(waiting, 3)]
    assert await make_redeliver(back, "llm.", now=lambda: due).__call__([waiting]) == []
    assert [(o.topic, o.key, o.value, o.headers) for o in back.sent] == [
        ("llm.compressed.bulk", one.key, one.value, (("traceparent", TRACEPARENT),))
    ]


@pytest.mark.parametrize(
    "headers",
    [(), ((RETRY_TOPIC, b"elsewhere"), (NOT_BEFORE, b"2026-01-01T00:00:00+00:00")), ((RETRY_TOPIC, b"llm.x"), (NOT_BEFORE, b"soon"))],
)
async def test_what_cannot_be_redelivered_is_a_dead_letter(headers: tuple[tuple[str, bytes], ...]) -> None:
    producer = Memory()
    assert await make_redeliver(producer, "llm.")([Rec(b"v", topic="llm.retry.10s", headers=headers)]) == []
    assert [(o.topic, o.value) for o in producer.sent] == [("llm.dead", b"v")]


@pytest.mark.parametrize("value", [None, b"", b"\xff\x00junk", b"{}", b'{"facts": {}}'])
async def test_what_does_not_parse_is_a_dead_letter_with_the_original_bytes(value: bytes | None) -> None:
    producer = Memory()
    headers = (("user", b"\xff\xfe"), ("traceparent", TRACEPARENT))
    await make(answer(), producer, stage="attribute").deliver([Rec(value, offset=41, headers=headers, key=None)])
    (letter,) = producer.sent
    assert (letter.topic, letter.key, letter.value) == ("llm.dead", None, value)
    assert letter.headers[:2] == headers
    told = dict(letter.headers)
    assert (told["x-dead-topic"], told["x-dead-partition"], told["x-dead-offset"], told["x-dead-stage"]) == (
        b"llm.finished",
        b"3",
        b"41",
        b"attribute",
    )
    assert told["x-dead-reason"]
    assert datetime.fromisoformat(told["x-dead-at"].decode()).tzinfo


async def test_a_bug_costs_one_record_and_says_nothing_of_its_content(caplog: pytest.LogCaptureFixture) -> None:
    producer = Memory()

    async def work(events: Sequence[Finished]) -> list[Outcome]:
        if any(e.facts.request_id == "bad" for e in events):
            raise ValueError("secret prompt")
        return [Emit((Message(COSTS, e.facts.key, b"ok"),)) for e in events]

    batch = [record(finished(i), offset=n) for n, i in enumerate(("a", "bad", "c"))]
    with caplog.at_level(logging.DEBUG):
        assert await make(work, producer, stage="call").deliver(batch) == []
    assert [o.key for o in producer.to("llm.costs")] == [b"acme/a", b"acme/c"]
    (letter,) = producer.to("llm.dead")
    assert letter.value == batch[1].value
    (ending,) = producer.to("llm.finished")
    failed = Finished.model_validate_json(ending.value or b"")
    assert (failed.facts.request_id, failed.status, failed.reason.code) == ("bad", "failed", "internal")  # type: ignore[union-attr]
    assert "secret" not in caplog.text
    assert b"secret" not in b"".join(v for _, v in letter.headers)


async def test_stages_that_end_no_request_write_only_the_letter() -> None:
    producer = Memory()
    await make(answer(Dead("bug", "x")), producer, stage="remember").deliver([record()])
    assert [o.topic for o in producer.sent] == ["llm.dead"]


async def test_attribute_buries_instead_of_looping() -> None:
    producer = Memory()

    async def bury(dead: Facts) -> list[Outcome]:
        return [Emit((Message(RESPONSES, dead.key, b"failed"),))]

    await make(answer(Dead("bug", "x")), producer, stage="attribute", bury=bury).deliver([record()])
    assert [o.topic for o in producer.sent] == ["llm.dead", "llm.responses"]


async def test_park_and_unavailable_leave_the_group_untouched() -> None:
    async def unreachable(_events: Sequence[Finished]) -> list[Outcome]:
        raise Unavailable("ledger", "refused")

    for work, producer in ((answer(Park("ledger")), Memory()), (unreachable, Memory()), (answer(Emit()), Memory(down=True))):
        with pytest.raises(Unavailable):
            await make(work, producer).deliver([record()])
        assert producer.sent == []


async def test_an_event_the_broker_refuses_is_a_dead_letter_and_a_refused_dead_letter_is_fatal() -> None:
    big = Emit((Message(COSTS, "k", b"x" * 100),))
    producer = Memory(refuse=lambda o: o.topic == "llm.costs")
    one = record(offset=9)
    await make(answer(big), producer).deliver([one])
    (letter,) = producer.sent
    assert (letter.topic, letter.value, dict(letter.headers)["x-dead-offset"]) == ("llm.dead", one.value, b"9")
    with pytest.raises(Fatal, match="dead letter"):
        await make(answer(big), Memory(refuse=lambda _o: True)).deliver([record()])
    with pytest.raises(Fatal, match="dead letter"):
        await make(answer(Dead("bug", "x")), Memory(refuse=lambda _o: True)).deliver([record()])


async def test_what_cannot_be_published_ends_its_request_and_leaves_the_others_alone() -> None:
    async def work(events: Sequence[Finished]) -> list[Outcome]:
        return [Emit((Message(COSTS, e.facts.key, b"x"),)) for e in events]

    producer = Memory(refuse=lambda o: o.topic == "llm.costs" and o.key == b"acme/bad")
    batch = [record(finished(i), offset=n) for n, i in enumerate(("a", "bad", "c"))]
    assert await make(work, producer, stage="call").deliver(batch) == []
    assert [o.key for o in producer.to("llm.costs")] == [b"acme/a", b"acme/c"]
    assert [o.value for o in producer.to("llm.dead")] == [batch[1].value]
    (ending,) = producer.to("llm.finished")
    failed = Finished.model_validate_json(ending.value or b"")
    assert (failed.facts.request_id, failed.status) == ("bad", "failed")


async def test_a_refused_response_is_a_dead_letter_and_its_cost_record_still_goes_out() -> None:
    async def bury(_dead: Facts) -> list[Outcome]:
        raise AssertionError("the ending is stored already")

    out = Emit((Message(RESPONSES, "acme/r-1", b"r", topic_name="acme.responses"), Message(COSTS, "acme/r-1", b"c")))
    producer = Memory(refuse=lambda o: o.topic == "acme.responses")
    await make(answer(out), producer, stage="attribute", bury=bury).deliver([record()])
    assert [o.topic for o in producer.sent] == ["llm.dead", "llm.costs"]


@pytest.mark.parametrize(("topic", "stops"), [("acme.responses", False), ("llm.acme.responses", False), ("llm.responses", True)])
async def test_a_topic_of_a_tenant_that_refuses_stops_nobody(topic: str, *, stops: bool) -> None:
    out = Emit((Message(RESPONSES, "acme/r-1", b"r", topic_name=topic),))
    delivery = make(answer(out), Memory(refuse=lambda o: o.topic == topic), stage="attribute", limit=DeadLimit(of_last=20, at_least=10))
    with pytest.raises(Fatal, match="10 of the last 10 records") if stops else nullcontext():
        for n in range(50):
            await delivery.deliver([record(offset=n)])


@pytest.mark.parametrize("junk", [b"junk", b"", None])
async def test_a_topic_of_dead_letters_stops_the_stage(junk: bytes | None) -> None:
    delivery = make(answer(), Memory(), limit=DeadLimit(of_last=20, at_least=10))
    for n in range(10):
        assert await delivery.deliver([Rec(junk, offset=n)]) == [], "what is written may be committed"
    with pytest.raises(Fatal, match="10 of the last 10 records"):
        await delivery.deliver([Rec(junk, offset=10)])


async def test_what_users_write_stops_nobody() -> None:
    def decode(_record: Record, _trace_id: str) -> Outcome:
        return Dead("invalid_json", "not JSON")

    producer = Memory()
    limit = DeadLimit(of_last=20, at_least=10)
    delivery = Delivery(
        STAGES["classify"], "interactive", decode=decode, work=answer(), producer=producer, topic_prefix="llm.", limit=limit
    )
    for n in range(50):
        await delivery.deliver([Rec(b"garbage", offset=n)])
    assert len(producer.to("llm.dead")) == 50


async def test_expired_requests_end_before_any_work() -> None:
    seen: list[Classified] = []

    async def work(events: Sequence[Classified]) -> list[Outcome]:
        seen.extend(events)
        return [Emit() for _ in events]

    producer = Memory()
    late = facts("late", deadline_at=NOW - timedelta(seconds=1))
    plan = {
        "tier": "light",
        "tier_why": "short",
        "forced": False,
        "cascade": True,
        "models": {"light": ["m"]},
        "max_tokens": {"light": 9},
        "max_attempts": 6,
        "compress_rate": None,
        "cache": {
            "verdict": "off",
            "read": False,
            "write": False,
            "semantic": False,
            "share": "user",
            "candidate_threshold": 0.9,
            "serve_threshold": 0.95,
            "ttl_s": 0,
        },
    }

    events = [
        json.dumps(
            {"facts": json.loads(f.model_dump_json()), "prompt": {"messages": [{"role": "user", "content": "q"}]}, "plan": plan}
        ).encode()
        for f in (late, facts("in-time"))
    ]
    await make(work, producer, stage="cache").deliver([Rec(e, offset=n, topic="llm.classified") for n, e in enumerate(events)])
    assert [e.facts.request_id for e in seen] == ["in-time"]
    (out,) = producer.to("llm.finished")
    ended = Finished.model_validate_json(out.value or b"")
    assert (ended.facts.request_id, ended.status, ended.reason.code) == ("late", "expired", "deadline_passed")  # type: ignore[union-attr]


async def test_a_record_that_cannot_be_read_costs_itself_alone() -> None:
    """A bug in reading would meet every process that the record comes to."""
    read = decoder(Finished)

    def stumbles(record: Record, trace_id: str) -> Finished | Outcome:
        if record.value == b"stone":
            raise KeyError("what it holds must not be told")
        return read(record, trace_id)

    producer = Memory()
    delivery = Delivery(STAGES["attribute"], "interactive", decode=stumbles, work=answer(Emit()), producer=producer, topic_prefix="llm.")
    assert await delivery.deliver([Rec(b"stone", offset=1), record(offset=2)]) == []
    (letter,) = producer.sent
    told = dict(letter.headers)
    assert (letter.value, told["x-dead-reason"], told["x-dead-offset"]) == (b"stone", b"bug", b"1")
    assert told["x-dead-error"].startswith(b"KeyError at ")
    assert b"must not be told" not in told["x-dead-error"]


async def test_an_ending_that_json_cannot_hold_is_a_dead_letter_and_ends_its_request() -> None:
    producer = Memory()
    broken = finished().model_copy(update={"content": "half of a pair: \ud83d"})
    whole = record(offset=2)

    async def work(events: Sequence[Finished]) -> list[Outcome]:
        return [End(broken), Emit()][: len(events)]

    assert await make(work, producer, stage="call").deliver([record(offset=1), whole]) == []
    (letter,) = producer.to("llm.dead")
    assert dict(letter.headers)["x-dead-reason"] == b"bug"
    (ending,) = producer.to("llm.finished")
    told = json.loads(ending.value or b"")
    assert (told["status"], told["reason"]["code"]) == ("failed", "internal")
