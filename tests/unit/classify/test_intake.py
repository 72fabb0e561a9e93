"""Every kind of bad record gets a clear rejection when its id can be read, and a dead letter when not; never an exception."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import MAX_REQUEST_BYTES, Classified, Facts, Finished
from schemas.types import Lane
from workers.classify.intake import MAX_DEPTH, Asked, body_hash, read
from workers.outcomes import Dead, End, Outcome

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
SECRET = "sk-do-not-repeat"
GOOD: dict[str, Any] = {"request_id": "r-1", "tenant": "acme", "feature": "help", "messages": [{"role": "user", "content": SECRET}]}


def take(value: bytes | None, *, lane: Lane = "interactive", timestamp_ms: int | None = 1_000) -> Asked | Outcome:
    return read(value, lane=lane, timestamp_ms=timestamp_ms, now=NOW, trace_id="trace")


def record(**fields: Any) -> bytes:
    return json.dumps({k: v for k, v in (GOOD | fields).items() if v is not ...}).encode()


def asked(value: bytes | None = None, **how: Any) -> Asked:
    got = take(value or record(), **how)
    assert isinstance(got, Asked), got
    return got


def rejected(value: bytes, code: str = "invalid_request") -> Finished:
    got = take(value)
    assert isinstance(got, End), got
    finished = got.finished
    assert finished.status == "rejected"
    assert finished.reason is not None
    assert finished.reason.code == code
    assert SECRET not in finished.reason.message
    assert Finished.model_validate_json(finished.model_dump_json()) == finished
    return finished


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "null_value"),
        (b"", "empty_value"),
        (b"  \n", "invalid_json"),
        (b"{", "invalid_json"),
        (b"\xff\xfe", "invalid_utf8"),
        ("{}".encode("utf-16"), "invalid_utf8"),
        (b"\xef\xbb\xbf{}", "invalid_json"),
        (b"not json", "invalid_json"),
        (record()[:-1], "invalid_json"),
        (record() + b"x", "invalid_json"),
        (b"[]", "not_an_object"),
        (b'"text"', "not_an_object"),
        (b"17", "not_an_object"),
        (b"{}", "no_request_id"),
        (record(request_id=None), "no_request_id"),
        (record(request_id=7), "no_request_id"),
        (record(request_id=""), "no_request_id"),
        (record(request_id="x" * 129), "no_request_id"),
        (record(request_id="a\nb"), "no_request_id"),
        (record(request_id="\ud800"), "no_request_id"),
        (b"[" * 200_000, "invalid_json"),
        (b'{"request_id": "r", "metadata": ' + b'{"a":' * 200_000, "invalid_json"),
        (record(metadata={"a": float("nan")}), "invalid_json"),
        (record(metadata={"a": float("-inf")}), "invalid_json"),
    ],
)
def test_without_a_readable_id_the_record_is_a_dead_letter(value: bytes | None, reason: str) -> None:
    got = take(value)
    assert isinstance(got, Dead)
    assert got.reason == reason
    assert got.error
    assert SECRET not in got.error


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"tenant": ...}, "tenant: missing"),
        ({"feature": ...}, "feature: missing"),
        ({"messages": ...}, "messages: missing"),
        ({"messages": []}, "messages: must hold at least one"),
        ({"messages": [{"role": "robot", "content": SECRET}]}, "messages.0.role: should be 'system', 'developer', 'user', 'assistant'"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages.0.content: should be a valid string, or should be a valid array"),
        ({"messages": [{"role": "user"}]}, "messages.0: a user message needs content"),
        ({"messages": [{"role": "assistant", "content": SECRET}]}, "the last one must be a user or tool message"),
        ({"messages": SECRET}, "messages: should be a valid array"),
        ({"params": {"api_base": SECRET}}, "params.api_base: unknown; known are max_tokens, "),
        ({"params": {"max_tokens": 0}}, "params.max_tokens: should be greater than or equal to 1"),
        ({"params": {"max_tokens": "many"}}, "params.max_tokens: should be a valid integer"),
        ({"params": {"temperature": 3}}, "params.temperature: should be less than or equal to 2"),
        ({"schema_version": 2}, "schema_version: should be 1"),
        ({"request_id": "~mine"}, "request_id: must not begin with '~'"),
        ({"tenant": "a/b"}, "tenant: must not hold '/'"),
        ({"tenant": 7}, "tenant: should be a valid string"),
        ({"user": ""}, "user: must have 1 to 128 characters"),
        ({"experiment": "\x07"}, "experiment: must not hold control characters"),
        ({"tier": "best"}, "tier: should be 'auto', or should be 'light', 'standard' or 'heavy'"),
        ({"cache": {"mode": "maybe"}}, "cache.mode: should be 'auto', 'off' or 'refresh'"),
        ({"cache": {"ttl_s": -1}}, "cache.ttl_s: should be greater than or equal to 0"),
        ({"compress": True}, "compress: should be 'auto' or 'off'"),
        ({"documents": [SECRET]}, "documents.0: should be an object"),
        ({"documents": [{"id": "d"}]}, "documents.0.text: missing"),
        ({"deadline_at": "2026-05-04T12:00:00"}, "deadline_at: must be an RFC 3339 time"),
        ({"deadline_at": "9999-12-31T23:59:59-12:00"}, "deadline_at: must lie in the years 1 to 9999"),
        ({"deadline_at": SECRET}, "deadline_at: "),
        ({"metadata": [SECRET]}, "metadata: should be an object"),
        ({"metadata": {"a": "\ud800"}}, "hex escape"),
    ],
)
def test_a_record_with_an_id_is_rejected_with_the_field_and_what_would_be_right(fields: dict[str, Any], says: str) -> None:
    finished = rejected(record(**fields))
    assert finished.reason is not None
    assert says in finished.reason.message


def test_several_faults_are_told_together() -> None:
    finished = rejected(record(tenant=..., feature=5, tier="best", params={"x": 1, "y": 2}))
    assert finished.reason is not None
    assert finished.reason.message.count("; ") >= 2
    assert "more" in finished.reason.message


def test_a_hostile_key_is_cut_short() -> None:
    finished = rejected(record(params={"k" * 500 + "\x07": 1}))
    assert finished.reason is not None
    assert "k" * 41 not in finished.reason.message


@pytest.mark.parametrize("digits", ["1e400", "-1e999", "9" * 5000])
@pytest.mark.parametrize("where", ["metadata", "params"])
def test_a_number_that_cannot_travel_is_rejected(digits: str, where: str) -> None:
    value = record(**{where: {"seed": 12345}}).replace(b"12345", digits.encode())
    finished = rejected(value)
    assert finished.facts.request_id == "r-1"
    assert finished.reason is not None
    assert "send it as a string" in finished.reason.message


def nested(depth: int) -> Any:
    value: Any = "x"
    for _ in range(depth):
        value = [value]
    return value


def test_nesting_has_a_limit_that_every_later_event_can_be_parsed_at() -> None:
    fits = asked(record(metadata={"a": nested(MAX_DEPTH - 2)}))
    assert Facts.model_validate_json(fits.facts.model_dump_json()) == fits.facts
    for depth in (MAX_DEPTH - 1, 180, 300):
        finished = rejected(record(metadata={"a": nested(depth)}))
        assert finished.reason is not None
        assert "nested too deep" in finished.reason.message


def test_many_brackets_are_not_deep() -> None:
    asked(record(metadata={"a": [[1]] * 500}))
    asked(record(messages=[{"role": "user", "content": "[" * 5000}]))


def test_a_record_over_the_limit_is_too_large_and_its_id_is_read() -> None:
    frame = len(record(messages=[{"role": "user", "content": ""}]))
    fits = record(messages=[{"role": "user", "content": "x" * (MAX_REQUEST_BYTES - frame)}])
    assert len(fits) == MAX_REQUEST_BYTES
    asked(fits)
    finished = rejected(fits + b" ", "too_large")
    assert (finished.facts.request_id, finished.facts.tenant, finished.facts.feature) == ("r-1", "acme", "help")
    assert finished.reason is not None
    assert "900000" in finished.reason.message


def test_what_can_be_read_of_a_rejected_request_is_in_its_facts() -> None:
    facts = rejected(record(tenant="a/b", feature="f", user="u" * 200, experiment=3, tier="best", metadata={"n": 1})).facts
    assert (facts.request_id, facts.tenant, facts.feature, facts.user, facts.experiment) == ("r-1", None, "f", None, None)
    assert facts.key == "/r-1"
    assert facts.metadata == {"n": 1}
    assert facts.lane == "interactive"
    assert facts.trace_id == "trace"


def test_metadata_comes_back_as_the_same_json() -> None:
    metadata = {
        "big": 2**200,
        "negative": -(2**70),
        "float": 0.1,
        "text": "é\u0000\U0001f600",
        "nothing": None,
        "list": [1, [2, {"x": []}]],
    }
    got = asked(record(metadata=metadata))
    assert json.loads(got.facts.model_dump_json())["metadata"] == metadata
    assert asked(record(metadata=None)).facts.metadata is None
    assert asked().facts.metadata == {}


def test_unknown_fields_are_ignored_at_the_top_and_kept_in_messages() -> None:
    got = asked(record(colour="red", messages=[{"role": "user", "content": "hi", "name": "ann"}]))
    assert got.request.messages[0].model_dump()["name"] == "ann"


def test_of_a_key_named_twice_the_last_one_counts_everywhere() -> None:
    got = asked(record()[:-1] + b', "request_id": "r-2", "tenant": "late"}')
    assert (got.facts.request_id, got.request.request_id) == ("r-2", "r-2")
    assert (got.facts.tenant, got.request.tenant) == ("late", "late")


@pytest.mark.parametrize(
    ("timestamp_ms", "expected"),
    [(None, NOW), (0, NOW), (-1, NOW), (10**15, NOW), (1_500, datetime(1970, 1, 1, 0, 0, 1, 500_000, tzinfo=UTC))],
)
def test_arrival_is_the_records_time_unless_it_is_missing_or_in_the_future(timestamp_ms: int | None, expected: datetime) -> None:
    assert asked(timestamp_ms=timestamp_ms).facts.created_at == expected


def test_a_redelivery_keeps_its_deadline() -> None:
    def later(now: datetime) -> Facts:
        got = read(record(), lane="bulk", timestamp_ms=86_400_000, now=now, trace_id="t")
        assert isinstance(got, Asked)
        return got.facts

    assert later(NOW).deadline_at == later(NOW + timedelta(hours=5)).deadline_at


def test_deadlines_by_lane_and_by_request() -> None:
    facts = asked().facts
    assert facts.deadline_at - facts.created_at == timedelta(seconds=120)
    bulk = asked(lane="bulk").facts
    assert bulk.deadline_at - bulk.created_at == timedelta(hours=24)
    own = asked(record(deadline_at="2026-12-01T13:00:00+01:00")).facts
    assert own.deadline_at == datetime(2026, 12, 1, 12, tzinfo=UTC)


def test_the_body_hash_is_the_one_the_contract_describes() -> None:
    body = GOOD | {"unknown": {"b": 1, "a": "é"}}
    # SHA-256 of {"a":"\u00e9",...} with sorted keys, no spaces, ASCII escapes, a newline and the lane.
    text = json.dumps(body, sort_keys=True, separators=(",", ":")) + "\ninteractive"
    assert asked(json.dumps(body).encode()).facts.body_hash == hashlib.sha256(text.encode()).hexdigest()


def test_the_same_body_hashes_alike_whatever_its_spelling_and_differs_by_lane_and_by_unknown_fields() -> None:
    plain = asked().facts.body_hash
    spelled = json.dumps(dict(reversed(GOOD.items())), indent=3, ensure_ascii=False).encode()
    assert asked(spelled).facts.body_hash == plain
    assert asked(lane="bulk").facts.body_hash != plain
    assert asked(record(colour="red")).facts.body_hash != plain


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)


@given(st.binary(max_size=200))
def test_any_bytes_have_an_outcome(value: bytes) -> None:
    assert isinstance(take(value), Dead | End | Asked)


@given(
    st.dictionaries(
        st.sampled_from([*GOOD, "user", "documents", "params", "tier", "cache", "compress", "deadline_at", "metadata", "x"]), json_values
    )
)
def test_any_object_has_an_outcome_that_can_be_published(fields: dict[str, Any]) -> None:
    got = take(json.dumps(GOOD | fields).encode())
    if isinstance(got, End):
        assert Finished.model_validate_json(got.finished.model_dump_json()) == got.finished
    elif isinstance(got, Asked):
        assert Facts.model_validate_json(got.facts.model_dump_json()) == got.facts
        assert got.facts.request_id == got.request.request_id
        assert got.facts.body_hash == body_hash(json.loads(json.dumps(GOOD | fields)), "interactive")
    else:
        assert isinstance(got, Dead)


def test_the_deepest_request_still_travels_as_a_later_event() -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"a": nested(MAX_DEPTH - 7)}}}]
    got = asked(record(params={"tools": tools}))
    dumped = Classified.model_construct(facts=got.facts, prompt={"params": got.request.params}, plan=None).model_dump_json(warnings=False)
    assert json.loads(dumped)["prompt"]["params"]["tools"] == tools
