"""What an event accepts, what it refuses, and what comes back untouched."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from schemas import Facts, Finished, Message, Params, Reason, Request, Response, Usage
from schemas.types import Time, Usd, usd

MONEY: TypeAdapter[Decimal] = TypeAdapter(Usd)
TIME: TypeAdapter[datetime] = TypeAdapter(Time)
NOW = datetime(2026, 3, 1, tzinfo=UTC)


def body(**more: Any) -> dict[str, Any]:
    return {"request_id": "r-1", "tenant": "acme", "feature": "f", "messages": [{"role": "user", "content": "Why?"}]} | more


def read(**more: Any) -> Request:
    return Request.model_validate_json(json.dumps(body(**more)))


def refused(**more: Any) -> str:
    """The place and text of the first error."""
    with pytest.raises(ValidationError) as e:
        read(**more)
    first = e.value.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"


class TestRequest:
    @pytest.mark.parametrize("field", ["request_id", "tenant", "feature", "messages"])
    def test_a_required_field_is_named(self, field: str) -> None:
        with pytest.raises(ValidationError) as e:
            Request.model_validate_json(json.dumps({k: v for k, v in body().items() if k != field}))
        assert e.value.errors()[0]["loc"] == (field,)

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("request_id", 7),
            ("request_id", None),
            ("tenant", ["acme"]),
            ("feature", True),
            ("user", 42),
            ("messages", {}),
            ("messages", []),
            ("messages", "Why?"),
            ("documents", "text"),
            ("documents", [{"id": "kb"}]),
            ("documents", [{"text": 1}]),
            ("params", []),
            ("params", None),
            ("tier", "cheap"),
            ("tier", None),
            ("cache", {"mode": "always"}),
            ("cache", {"ttl_s": -1}),
            ("cache", {"ttl_s": "60"}),
            ("compress", True),
            ("deadline_at", 1_800_000_000),
            ("metadata", "text"),
            ("metadata", [1]),
            ("schema_version", 2),
            ("schema_version", "1"),
            ("schema_version", True),
            ("schema_version", 1.0),
            ("schema_version", None),
        ],
    )
    def test_a_wrong_type_or_word_is_refused_by_name(self, field: str, value: Any) -> None:
        assert refused(**{field: value}).startswith(field)

    def test_unknown_fields_at_the_top_are_ignored(self) -> None:
        assert read(priority="high", body_hash="x") == read()

    @pytest.mark.parametrize("key", ["api_base", "api_key", "base_url", "extra_headers", "model", "n", "stream", "max_token"])
    def test_an_unknown_key_in_params_is_refused_by_name(self, key: str) -> None:
        assert refused(params={key: "x"}).startswith(f"params.{key}: Extra inputs")

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("max_tokens", 0),
            ("max_tokens", -1),
            ("max_tokens", 1.5),
            ("max_tokens", "256"),
            ("max_tokens", True),
            ("max_completion_tokens", 0),
            ("temperature", 2.1),
            ("temperature", "0"),
            ("top_p", 1.1),
            ("seed", 1.5),
            ("stop", [1]),
            ("tools", {}),
            ("tools", ["search"]),
            ("response_format", "json"),
            ("parallel_tool_calls", "yes"),
            ("presence_penalty", -2.1),
            ("frequency_penalty", 2.1),
            ("reasoning_effort", 3),
        ],
    )
    def test_a_wrong_param_is_refused_by_name(self, key: str, value: Any) -> None:
        assert refused(params={key: value}).startswith(f"params.{key}")

    @pytest.mark.parametrize("field", ["request_id", "tenant", "feature", "user", "experiment"])
    @pytest.mark.parametrize("value", ["", "x" * 129, "a\nb", "a\x00b", "a\x7fb", "a\x9fb"])
    def test_ids_are_short_and_hold_no_control_characters(self, field: str, value: str) -> None:
        assert refused(**{field: value}).startswith(f"{field}: Value error, must")

    @pytest.mark.parametrize("value", ["x", "é" * 128, "заявка 5", "🚲", "a b", "~", "~audit"])
    def test_ids_may_be_in_any_language(self, value: str) -> None:
        assert read(tenant=value, feature=value, user=value, experiment=value).tenant == value

    def test_the_fleets_own_ids_are_refused(self) -> None:
        assert "~" in refused(request_id="~audit/1")
        assert read(request_id="a~/b").request_id == "a~/b"

    def test_a_tenant_is_half_of_a_key(self) -> None:
        assert "'/'" in refused(tenant="a/b")

    def test_half_a_surrogate_pair_is_no_text(self) -> None:
        with pytest.raises(ValidationError):
            Request.model_validate_json(json.dumps(body(user="\ud83d")))

    @pytest.mark.parametrize(
        "messages",
        [
            [{"role": "robot", "content": "x"}],
            [{"content": "x"}],
            [{"role": "user"}],
            [{"role": "user", "content": None}],
            [{"role": "user", "content": 7}],
            [{"role": "user", "content": ["text"]}],
            [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}],
            [{"role": "system", "content": "x"}],
        ],
    )
    def test_messages_in_another_shape_are_refused(self, messages: list[Any]) -> None:
        assert "messages" in refused(messages=messages) or "message" in refused(messages=messages)

    def test_fields_of_a_message_reach_the_model_as_they_came(self) -> None:
        message = {"role": "user", "name": "ada", "content": [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}]}
        assert json.loads(read(messages=[message]).messages[0].model_dump_json()) == message

    def test_the_text_of_the_list_form(self) -> None:
        parts = [{"type": "text", "text": "one"}, {"type": "image_url", "image_url": {"url": "x"}}, {"type": "text", "text": "two"}]
        assert Message.model_validate_json(json.dumps({"role": "user", "content": parts})).text == "one\ntwo"

    def test_a_request_does_not_change(self) -> None:
        with pytest.raises(ValidationError):
            read().tenant = "globex"

    def test_the_smaller_limit_is_asked(self) -> None:
        assert Params(max_tokens=5, max_completion_tokens=3).asked_tokens == 3
        assert Params().asked_tokens is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**300), 2**300) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(st.text(), inside, max_size=4),
    max_leaves=25,
)


def finished(metadata: dict[str, Any] | None) -> Finished:
    facts = Facts(
        request_id="r-1",
        tenant="acme",
        feature="f",
        user=None,
        experiment=None,
        lane="bulk",
        body_hash="h",
        created_at=NOW,
        deadline_at=NOW,
        trace_id="t",
        metadata=metadata,
    )
    return Finished(facts=facts, status="failed", reason=Reason(code="internal", message="m"))


def through_the_fleet(metadata: Any) -> Any:
    """From a request's bytes through the event between stages to a response's bytes."""
    request = Request.model_validate_json(json.dumps(body(metadata=metadata)))
    facts = Finished.model_validate_json(finished(request.metadata).model_dump_json()).facts
    response = Response(
        request_id="r-1",
        tenant="acme",
        feature="f",
        user=None,
        experiment=None,
        lane="bulk",
        status="answered",
        created_at=NOW,
        finished_at=NOW,
        trace_id="t",
        metadata=facts.metadata,
    )
    return json.loads(response.model_dump_json())["metadata"]


class TestMetadata:
    @given(st.dictionaries(st.text(), json_values, max_size=5))
    def test_it_comes_back_as_the_same_json(self, metadata: dict[str, Any]) -> None:
        assert json.dumps(through_the_fleet(metadata), sort_keys=True) == json.dumps(metadata, sort_keys=True)

    @pytest.mark.parametrize("metadata", [None, {}, {"n": 2**200, "m": -(10**4000)}, {"": {"𝄞": ["\u0000", "\u2028", "🚲" * 1000]}}])
    def test_odd_ones_too(self, metadata: Any) -> None:
        assert through_the_fleet(metadata) == metadata

    def test_a_deep_one_comes_back(self) -> None:
        value: Any = 1
        for _ in range(50):
            value = {"a": [value]}
        assert through_the_fleet(value) == value

    @pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400"])
    @pytest.mark.parametrize(
        "place",
        [
            '"metadata":{"a":[%s]}',
            '"params":{"response_format":{"a":%s}}',
            '"params":{"tools":[{"a":%s}]}',
            '"params":{"temperature":%s}',
            '"messages":[{"role":"user","content":"x","weight":%s}]',
            '"messages":[{"role":"user","content":[{"type":"text","text":"x","w":%s}]}]',
        ],
    )
    def test_a_number_that_json_cannot_hold_is_refused(self, place: str, number: str) -> None:
        head = json.dumps({k: v for k, v in body().items() if not place.startswith(f'"{k}"')})[:-1]
        with pytest.raises(ValidationError):
            Request.model_validate_json(f"{head},{place % number}}}")


class TestMoney:
    @pytest.mark.parametrize("text", ["0", "0.000123", "-0.5", "12345678901234567890.1234567891"])
    def test_it_comes_back_as_it_was(self, text: str) -> None:
        assert MONEY.dump_json(MONEY.validate_json(f'"{text}"')) == f'"{text}"'.encode()

    @pytest.mark.parametrize("text", ["0.1", "1", "null", '""', '"abc"', '"NaN"', '"Infinity"', '"1e5"', '" 1"', '"1."', '".5"', '"١"'])
    def test_anything_but_a_plain_decimal_string_is_refused(self, text: str) -> None:
        with pytest.raises(ValidationError):
            MONEY.validate_json(text)

    @given(st.decimals(-(10**15), 10**15, places=10))
    def test_it_is_plain_and_exact(self, value: Decimal) -> None:
        text = usd(value)
        assert Decimal(text) == value
        assert "E" not in text
        assert text == "0" or not text.startswith("-0") or value < 0
        assert not ("." in text and text.endswith(("0", ".")))

    @pytest.mark.parametrize(
        ("value", "text"), [("1E+2", "100"), ("1E-10", "0.0000000001"), ("0.10", "0.1"), ("-0.0", "0"), ("100", "100")]
    )
    def test_without_exponent_or_trailing_zeros(self, value: str, text: str) -> None:
        assert usd(Decimal(value)) == text


class TestTime:
    @pytest.mark.parametrize(
        ("text", "utc"),
        [
            ("2026-12-01T12:00:00Z", "2026-12-01T12:00:00Z"),
            ("2026-12-01t12:00:00z", "2026-12-01T12:00:00Z"),
            ("2026-12-01T14:00:00+02:00", "2026-12-01T12:00:00Z"),
            ("2026-12-01T00:00:00-23:59", "2026-12-01T23:59:00Z"),
            ("2026-12-01T12:00:00.123456789Z", "2026-12-01T12:00:00.123456Z"),
        ],
    )
    def test_it_is_kept_in_utc(self, text: str, utc: str) -> None:
        assert TIME.dump_json(TIME.validate_json(f'"{text}"')) == f'"{utc}"'.encode()

    @pytest.mark.parametrize(
        "text",
        [
            "2026-12-01T12:00:00",
            "2026-12-01",
            "1800000000",
            "tomorrow",
            "",
            "2026-02-30T12:00:00Z",
            "2026-12-01T25:00:00Z",
            "2026-12-01T12:00:00+24:00",
            "0001-01-01T00:00:00+14:00",
            "9999-12-31T23:59:59-14:00",
        ],
    )
    def test_anything_else_is_refused(self, text: str) -> None:
        assert refused(deadline_at=text).startswith("deadline_at: ")

    def test_a_time_object_is_kept_in_utc_too(self) -> None:
        assert TIME.validate_python(NOW.astimezone(timezone(timedelta(hours=5)))).tzinfo is UTC


class TestResponse:
    def test_a_reason_leaves_out_what_does_not_apply(self) -> None:
        assert json.loads(Reason(code="internal", message="m").model_dump_json()) == {"code": "internal", "message": "m"}
        full = Reason(code="quota_exceeded", message="m", scope={}, limit=0, used=0, resets_at=NOW)
        assert json.loads(full.model_dump_json()).keys() == {"code", "message", "scope", "limit", "used", "resets_at"}

    def test_usage_adds_up_by_kind(self) -> None:
        one = Usage(input_tokens=1, cached_input_tokens=2, cache_write_tokens=3, output_tokens=4, reasoning_tokens=5)
        assert one + one + Usage() == Usage(
            input_tokens=2, cached_input_tokens=4, cache_write_tokens=6, output_tokens=8, reasoning_tokens=10
        )

    def test_usage_is_never_negative(self) -> None:
        with pytest.raises(ValidationError):
            Usage(input_tokens=-5)


class TestInternal:
    def test_unknown_fields_stay(self) -> None:
        told = json.loads(finished({}).model_dump_json())
        told["later"] = {"a": 1}
        told["facts"]["region"] = "eu"
        again = json.loads(Finished.model_validate_json(json.dumps(told)).model_dump_json())
        assert again == told

    def test_the_key_names_tenant_and_request(self) -> None:
        facts = finished({}).facts
        assert facts.key == "acme/r-1"
        assert facts.model_copy(update={"tenant": None}).key == "/r-1"


@pytest.mark.parametrize(
    "part", [{}, {"type": None}, {"type": 5}, {"type": ""}, {"type": "text"}, {"type": "text", "text": 1}, {"type": "image_url"}]
)
def test_a_part_that_no_provider_could_read_is_refused(part: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=r"part"):
        Message.model_validate_json(json.dumps({"role": "user", "content": [part]}))


def test_parts_of_kinds_we_do_not_know_go_on() -> None:
    parts = [{"type": "input_audio", "input_audio": {"data": "x"}}, {"type": "refusal", "refusal": "no"}]
    assert Message.model_validate_json(json.dumps({"role": "user", "content": parts})).text == ""
