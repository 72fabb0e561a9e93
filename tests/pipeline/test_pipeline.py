"""A request through all five stages: what comes back, what it cost, and what the provider saw. The same on both brokers."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from schemas import Alert, Response
from tests.pipeline.conftest import Pipeline

pytestmark = pytest.mark.asyncio(loop_scope="module")


def request(text: str, **fields: Any) -> dict[str, Any]:
    plain = {"request_id": f"r-{uuid.uuid4().hex[:10]}", "tenant": "acme", "feature": "support", "user": "u-1"}
    return plain | {"messages": [{"role": "user", "content": text}]} | fields


async def ask(p: Pipeline, asked: dict[str, Any], **how: Any) -> Response:
    await p.driver.publish(json.dumps(asked).encode(), **how)
    return await p.driver.response(f"{asked['tenant']}/{asked['request_id']}")


def calls_with(p: Pipeline, text: str) -> list[dict[str, Any]]:
    return [b for b in p.provider.bodies if any(text in str(m.get("content")) for m in b["messages"])]


async def check_books(p: Pipeline, response: Response) -> None:
    """What holds for every ending that claims its id."""
    saved = response.saved_usd
    assert response.baseline_usd - response.cost_usd == saved.routing + saved.cache + saved.compression + saved.batch
    record = await p.driver.cost(f"{response.tenant}/{response.request_id}")
    assert (record.cost_usd, record.baseline_usd, record.saved_usd) == (response.cost_usd, response.baseline_usd, saved)
    assert record.usage == response.usage
    assert sum(a.state != "abandoned" for a in record.attempts) == response.attempts


async def test_an_answer_comes_back_with_its_price(pipeline: Pipeline) -> None:
    asked = request("Which planet is known as the red one?", experiment="prompt-b", metadata={"page": 7, "big": 2**200, "ä": [None, 1.5]})
    got = await ask(pipeline, asked)
    assert (got.status, got.source, got.tier, got.model, got.attempts, got.flags) == ("answered", "model", "light", "mini", 1, ())
    assert got.content is not None
    assert "red one" in got.content
    assert (got.tenant, got.feature, got.user, got.experiment, got.lane) == ("acme", "support", "u-1", "prompt-b", "interactive")
    assert got.metadata == asked["metadata"]
    exact = got.usage.input_tokens * Decimal("0.15e-6") + got.usage.output_tokens * Decimal("0.60e-6")
    assert got.cost_usd == exact.quantize(Decimal("0.000001"))
    assert got.saved_usd.routing > 0
    await check_books(pipeline, got)
    (record,) = [r for r in pipeline.driver.records("responses") if r.key == f"acme/{asked['request_id']}".encode()]
    assert dict(record.headers)["x-lane"] == b"interactive"
    assert set(json.loads(record.value)) == set(Response.model_fields)
    (body,) = calls_with(pipeline, "red one")
    assert body["max_tokens"] == 60


async def test_the_bulk_lane_answers_too(pipeline: Pipeline) -> None:
    got = await ask(pipeline, request("Name the largest ocean of the earth."), lane="bulk")
    assert (got.status, got.lane) == ("answered", "bulk")
    await check_books(pipeline, got)


async def test_a_forced_tier_stays(pipeline: Pipeline) -> None:
    got = await ask(pipeline, request("Name a noble gas [[fault:refusal]]", tier="light"))
    assert (got.tier, got.model, got.attempts, got.status) == ("light", "mini", 1, "answered")
    assert got.flags == ("check_failed",)


async def test_signals_and_length_choose_the_tier(pipeline: Pipeline) -> None:
    long = "The heating in the second building has been running since early spring. " * 4
    assert (await ask(pipeline, request(f"Compare {long}"))).tier == "heavy"
    assert (await ask(pipeline, request(f"What does this text say of the heating? {long}"))).tier == "standard"


async def test_a_failed_check_escalates_one_tier_and_both_calls_are_booked(pipeline: Pipeline) -> None:
    got = await ask(pipeline, request("Say whether tea holds caffeine [[fault:refusal model=mini]]"))
    assert (got.status, got.tier, got.model, got.attempts) == ("answered", "standard", "middle", 2)
    record = await pipeline.driver.cost(f"acme/{got.request_id}")
    assert [(a.n, a.model, a.state) for a in record.attempts] == [(1, "mini", "settled"), (2, "middle", "settled")]
    assert sum(a.cost_usd for a in record.attempts).quantize(Decimal("0.000001")) == got.cost_usd
    await check_books(pipeline, got)


async def test_no_cascade_where_the_policy_says_so(pipeline: Pipeline) -> None:
    got = await ask(pipeline, request("Say whether cocoa holds caffeine [[fault:refusal model=mini]]", feature="flat"))
    assert (got.tier, got.attempts, got.flags) == ("light", 1, ("check_failed",))


async def test_errors_fall_back_inside_the_tier_then_upward(pipeline: Pipeline) -> None:
    middle_down = "What is in the box next to the door? " * 6 + "[[fault:unavailable model=middle]]"
    got = await ask(pipeline, request(middle_down))
    assert (got.tier, got.model, got.attempts) == ("standard", "spare", 2)
    light_down = await ask(pipeline, request("Name a river in Peru [[fault:server_error model=mini]]"))
    assert (light_down.tier, light_down.model, light_down.attempts) == ("standard", "middle", 2)
    await check_books(pipeline, light_down)


async def test_a_provider_that_refuses_for_good_is_a_failure_that_costs_nothing(pipeline: Pipeline) -> None:
    got = await ask(pipeline, request("Name a lake in Chile [[fault:unauthorized]]"))
    assert got.status == "failed"
    assert got.reason is not None
    assert got.reason.code == "provider_error"
    assert (got.content, got.source, got.cost_usd) == (None, None, 0)
    assert got.attempts == len(calls_with(pipeline, "lake in Chile"))
    await check_books(pipeline, got)


async def test_a_prompt_that_does_not_fit_goes_to_the_first_window_upward(pipeline: Pipeline) -> None:
    long = "one two three four five six seven eight nine ten. " * 900
    got = await ask(pipeline, request("How many words?", documents=[{"text": long}], compress="off"))
    assert (got.status, got.model) == ("answered", "middle")
    forced = await ask(pipeline, request("How many words here?", documents=[{"text": long}], compress="off", tier="light"))
    assert (forced.status, forced.reason and forced.reason.code) == ("rejected", "context_too_long")
    assert calls_with(pipeline, "How many words here?") == []


async def test_json_that_is_asked_for_is_checked(pipeline: Pipeline) -> None:
    fields = {"params": {"response_format": {"type": "json_object"}}}
    good = await ask(pipeline, request('Classify "my parcel is late" as JSON', **fields))
    assert json.loads(good.content or "")
    bad = await ask(pipeline, request('Classify "my jug is broken" as JSON [[fault:wrong_json model=mini]]', **fields))
    assert (bad.tier, bad.attempts) == ("standard", 2)
    assert json.loads(bad.content or "")


async def test_instruction_and_stop_come_from_the_policy_and_the_question_stays_as_it_was(pipeline: Pipeline) -> None:
    question = "Why is  the sky\tblue?  "
    await ask(pipeline, request(question, feature="terse"))
    (body,) = calls_with(pipeline, question)
    assert body["messages"][0]["role"] == "system"
    assert "Answer in one sentence." in body["messages"][0]["content"]
    assert body["messages"][-1] == {"role": "user", "content": question}
    assert body["stop"] == ["\n\n"]


async def test_max_tokens_are_capped_and_flagged(pipeline: Pipeline) -> None:
    got = await ask(pipeline, request("Name a bird of the north", params={"max_tokens": 5000}))
    assert got.flags == ("max_tokens_capped",)
    (body,) = calls_with(pipeline, "bird of the north")
    assert body["max_tokens"] == 100


async def test_documents_are_compressed_and_nothing_else(pipeline: Pipeline) -> None:
    filler = [f"The {n}th shelf of the archive holds letters about farming in the valley, sorted by year and by sender." for n in range(60)]
    filler[31] = "The treasure map of Captain Arden is kept in drawer nineteen behind the portrait."
    question = "Where is the treasure map of Captain Arden kept?"
    got = await ask(pipeline, request(question, documents=[{"id": "d1", "text": " ".join(filler)}]))
    (body,) = calls_with(pipeline, question)
    assert body["messages"][-1] == {"role": "user", "content": question}
    background = body["messages"][-2]
    assert background["role"] == "user"
    assert "drawer nineteen" in background["content"]
    assert len(background["content"]) < 0.7 * len(" ".join(filler))
    assert got.saved_usd.compression > 0
    await check_books(pipeline, got)


async def test_a_repeat_is_served_from_the_cache_for_nothing(pipeline: Pipeline) -> None:
    text = "How do I reset my password?"
    first = await ask(pipeline, request(text))
    await pipeline.driver.until(lambda: pipeline.driver.records("finished"))
    again = await until_cached(pipeline, lambda: request(text, user="u-2"))
    assert (again.source, again.content, again.model) == ("cache_exact", first.content, "mini")
    assert (again.cost_usd, again.attempts, again.usage.output_tokens) == (0, 0, 0)
    assert again.saved_usd.cache > 0
    await check_books(pipeline, again)


async def until_cached(p: Pipeline, make: Any) -> Response:
    """`remember` stores a moment after the answer: ask with new ids until it has."""
    for _ in range(20):
        if (got := await ask(p, make())).source != "model":
            return got
    raise AssertionError("never served from the cache")


async def test_a_paraphrase_is_served_and_a_trap_is_not(pipeline: Pipeline) -> None:
    await until_cached(pipeline, lambda: request("How can I change the email address of my account?"))
    near = await ask(pipeline, request("How can I change the e-mail address of my account?"))
    assert near.source == "cache_semantic"
    await until_cached(pipeline, lambda: request("How do I convert 5 miles to kilometers?"))
    trap = await ask(pipeline, request("How do I convert 50 miles to kilometers?"))
    assert trap.source == "model"


@pytest.mark.parametrize(
    "text", ["What is the weather in Oslo right now?", "Where is my order?", "What is my account balance?", "Can you explain that again?"]
)
async def test_what_depends_on_time_or_user_is_never_cached(pipeline: Pipeline, text: str) -> None:
    for _ in range(3):
        assert (await ask(pipeline, request(text))).source == "model"


async def test_no_answer_crosses_tenants_documents_or_system_prompts(pipeline: Pipeline) -> None:
    text = "How does the returns portal work?"
    await until_cached(pipeline, lambda: request(text))
    assert (await ask(pipeline, request(text, tenant="other"))).source == "model"
    assert (await ask(pipeline, request(text, documents=[{"text": "Returns are free."}]))).source == "model"
    system = [{"role": "system", "content": "Answer in Latin."}, {"role": "user", "content": text}]
    assert (await ask(pipeline, request("", messages=system))).source == "model"
    assert (await ask(pipeline, request(text, cache={"mode": "off"}))).source == "model"


async def test_the_same_id_again(pipeline: Pipeline) -> None:
    asked = request("What is the boiling point of water at sea level?")
    key = f"acme/{asked['request_id']}"
    await ask(pipeline, asked)
    await pipeline.driver.publish(json.dumps(asked, indent=1).encode())  # the same body in another spelling
    first, second = await pipeline.driver.raw_responses(key, 2)
    assert first == second
    assert len(calls_with(pipeline, "boiling point of water at sea")) == 1
    other = asked | {"messages": [{"role": "user", "content": "What is the melting point of iron?"}]}
    await pipeline.driver.publish(json.dumps(other).encode())
    conflict = Response.model_validate_json((await pipeline.driver.raw_responses(key, 3))[2])
    assert (conflict.status, conflict.reason and conflict.reason.code) == ("rejected", "request_id_conflict")
    await pipeline.driver.publish(json.dumps(asked).encode(), lane="bulk")
    crossed = Response.model_validate_json((await pipeline.driver.raw_responses(key, 4))[3])
    assert crossed.reason is not None
    assert crossed.reason.code == "request_id_conflict"
    mine = await ask(pipeline, asked | {"tenant": "globex"})
    assert mine.status == "answered"


async def test_a_deadline_in_the_past_is_expired_without_a_call(pipeline: Pipeline) -> None:
    late = (datetime.now(UTC) - timedelta(seconds=5)).isoformat()
    got = await ask(pipeline, request("Name a city on the Rhine too late", deadline_at=late))
    assert (got.status, got.reason and got.reason.code, got.attempts) == ("expired", "deadline_passed", 0)
    assert calls_with(pipeline, "Rhine too late") == []
    await check_books(pipeline, got)


async def test_a_full_budget_refuses_before_the_call(pipeline: Pipeline) -> None:
    got = await ask(pipeline, request("Name a spice of the islands", tenant="broke"))
    assert got.status == "rejected"
    assert got.reason is not None
    assert (got.reason.code, got.reason.scope, got.reason.limit) == ("budget_exceeded", {"tenant": "broke"}, "0.0000001")
    assert got.reason.resets_at is not None
    quota = await ask(pipeline, request("Name a herb of the islands", experiment="capped"))
    assert quota.reason is not None
    assert (quota.reason.code, quota.reason.limit) == ("quota_exceeded", 50)
    assert calls_with(pipeline, "of the islands") == []
    await check_books(pipeline, got)


async def test_a_budget_that_refuses_is_told_once(pipeline: Pipeline) -> None:
    for text in ("Name a spice of the hills", "Name a spice of the coast"):
        await ask(pipeline, request(text, tenant="broke"))
    found = await pipeline.driver.until(lambda: [r for r in pipeline.driver.records("alerts") if r.key == b'{"tenant": "broke"}'])
    (told,) = [Alert.model_validate_json(r.value) for r in found]
    assert (told.kind, told.evidence["limit_usd"], told.evidence["window"]) == ("budget_share", "0.0000001", "day")
    assert b"spice" not in found[0].value


GOOD: dict[str, Any] = {"tenant": "t", "feature": "f", "messages": [{"role": "user", "content": "q"}]}
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no tenant": ({"request_id": "bad-1", "feature": "f", "messages": GOOD["messages"]}, "/bad-1"),
    "no feature": ({"request_id": "bad-2", "tenant": "t", "messages": GOOD["messages"]}, "t/bad-2"),
    "unknown role": (GOOD | {"request_id": "bad-3", "messages": [{"role": "bot", "content": "q"}]}, "t/bad-3"),
    "no messages": (GOOD | {"request_id": "bad-4", "messages": []}, "t/bad-4"),
    "unknown params": (GOOD | {"request_id": "bad-5", "params": {"api_base": "x"}}, "t/bad-5"),
    "wrong types": (GOOD | {"request_id": "bad-6", "messages": "q"}, "t/bad-6"),
    "other schema": (GOOD | {"request_id": "bad-7", "schema_version": 2}, "t/bad-7"),
    "the fleet's own id": (GOOD | {"request_id": "~bad-8"}, "t/~bad-8"),
}


@pytest.mark.parametrize("name", BAD)
async def test_bad_requests_are_rejected_with_a_reason(pipeline: Pipeline, name: str) -> None:
    body, key = BAD[name]
    await pipeline.driver.publish(json.dumps(body).encode())
    got = await pipeline.driver.response(key)
    assert got.status == "rejected"
    assert got.reason is not None
    assert got.reason.code == "invalid_request"
    assert got.reason.message
    assert not [r for r in pipeline.driver.records("costs") if r.key == key.encode()], "a rejection that claims no id has no cost record"


async def test_too_large_is_rejected(pipeline: Pipeline) -> None:
    big = request("x" * 900_000)
    got = await ask(pipeline, big)
    assert (got.status, got.reason and got.reason.code) == ("rejected", "too_large")


@pytest.mark.parametrize("value", [None, b"", b"\x00\xff\xfe", b"{not json", b"[1, 2]", b'{"tenant": "t"}', b'{"request_id": 5}'])
async def test_what_has_no_id_is_a_dead_letter_with_its_bytes(pipeline: Pipeline, value: bytes | None) -> None:
    key = uuid.uuid4().bytes
    await pipeline.driver.publish(value, key=key, headers=[("mine", b"\xff\x00")])
    letter = await pipeline.driver.until(lambda: next((r for r in pipeline.driver.records("dead") if r.key == key), None))
    assert letter.value == value
    headers = dict(letter.headers)
    assert headers["mine"] == b"\xff\x00"
    assert headers["x-dead-stage"] == b"classify"
    assert headers["x-dead-reason"]


async def test_the_trace_of_the_request_comes_back(pipeline: Pipeline) -> None:
    asked = request("Name a metal that floats on water")
    trace = uuid.uuid4().hex
    got = await ask(pipeline, asked, headers=[("traceparent", f"00-{trace}-b7ad6b7169203331-01".encode()), ("x-lane", b"bulk")])
    assert got.trace_id == trace
    assert got.lane == "interactive", "headers of users have no say"
