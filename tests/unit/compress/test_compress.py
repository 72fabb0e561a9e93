"""The stage `compress`: only documents change, and what it says about tokens is true."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import CacheKey, CachePlan, Compressed, Document, Facts, Message, Missed, Params, Plan, Prompt
from workers.compress.compress import make_compress
from workers.outcomes import Emit

QUESTION = "Who opened the bridge over the Ilme?"
ANSWER = "The bridge over the Ilme was opened by Queen Sofie."
FILLER = "The hall was rebuilt after the flood. Its roof is made of slate. Visitors praise the garden. Swallows nest under the eaves. "
LONG = FILLER * 3 + ANSWER + " " + FILLER * 3
TABLE = "| year | visitors |\n|---|---|\n" + "".join(f"| {1900 + n} | {n * 7} |\n" for n in range(40))
JSON = json.dumps([{"bridge": n, "opened": "Queen Sofie"} for n in range(40)])
CODE = "import os\n\n" + "".join(f"def bridge_{n}(ilme):\n    return open(ilme, {n})\n\n" for n in range(20))


def count(text: str) -> int:
    return -(-len(text) // 4)


def missed(documents: list[str], *, rate: float | None = 0.5, **changes: Any) -> Missed:
    now = datetime.now(UTC)
    tiers: Any = {"light": ("m",), "standard": ("m",), "heavy": ("m",)}
    limits: Any = {"light": 1, "standard": 1, "heavy": 1}
    cache = CachePlan(
        verdict="cacheable",
        read=True,
        write=True,
        semantic=True,
        share="tenant",
        candidate_threshold=0.9,
        serve_threshold=0.95,
        ttl_s=60,
    )
    event = Missed(
        facts=Facts(
            request_id="r-1",
            tenant="acme",
            feature="f",
            user=None,
            experiment=None,
            lane="interactive",
            body_hash="h",
            created_at=now,
            deadline_at=now,
            trace_id="t",
        ),
        prompt=Prompt(
            messages=(
                Message(role="system", content=LONG),
                Message(role="user", content="Earlier."),
                Message(role="user", content=QUESTION),
            ),
            documents=tuple(Document(id=str(n), text=text) for n, text in enumerate(documents)),
            params=Params(temperature=0.5, tools=({"name": "bridge"},)),
        ),
        plan=Plan(
            tier="light",
            tier_why="short",
            forced=False,
            cascade=True,
            models=tiers,
            max_tokens=limits,
            max_attempts=1,
            compress_rate=rate,
            cache=cache,
        ),
    )
    return event.model_copy(update=changes)


def run(*events: Missed, short_tokens: int = 20) -> tuple[list[Compressed], list[tuple[str, str]], list[str]]:
    seen: list[tuple[str, str]] = []
    compress = make_compress(count=count, short_tokens=short_tokens, observe=lambda event, reason: seen.append((event, reason)))
    outcomes = asyncio.run(compress(events))
    compressed, keys = [], []
    for outcome in outcomes:
        assert isinstance(outcome, Emit)
        (message,) = outcome.messages
        assert message.topic.name == "compressed"
        assert isinstance(message.value, Compressed)
        compressed.append(message.value)
        keys.append(message.key)
    return compressed, seen, keys


def one(documents: list[str], **how: Any) -> tuple[Compressed, str]:
    (event,), seen, _ = run(missed(documents, **how))
    ((told, reason),) = seen
    assert (told == "compressed") == (reason == "selected")
    return event, reason


def test_a_long_document_loses_what_the_question_does_not_need() -> None:
    event, reason = one([LONG])
    assert reason == "selected"
    assert ANSWER in event.prompt.documents[0].text
    assert len(event.prompt.documents[0].text) <= 0.55 * len(LONG)
    assert event.prompt.documents[0].id == "0"


def test_tokens_are_counted_over_all_messages_and_documents() -> None:
    before = missed([LONG, TABLE])
    (event,), _, _ = run(before)
    around = sum(count(m.text) for m in before.prompt.messages)
    assert event.tokens.before == around + count(LONG) + count(TABLE)
    assert event.tokens.after == around + sum(count(d.text) for d in event.prompt.documents)
    assert event.tokens.after < event.tokens.before


@pytest.mark.parametrize(
    ("documents", "reason"),
    [
        ([], "no_documents"),
        ([ANSWER], "short"),
        ([TABLE], "table"),
        ([JSON], "json"),
        ([CODE], "code"),
        (["Xyzzy plugh frobnicate. " * 50], "generic"),
    ],
)
def test_what_is_left_alone_is_byte_equal_and_says_why(documents: list[str], reason: str) -> None:
    event, told = one(documents)
    assert told == reason
    assert [d.text for d in event.prompt.documents] == documents
    assert event.tokens.before == event.tokens.after


def test_an_error_in_the_selection_leaves_the_documents_as_they_are(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def breaks(*args: Any) -> Any:
        raise IndexError(f"no sentence in {LONG}")

    monkeypatch.setattr("workers.compress.compress.select", breaks)
    event, reason = one([LONG, JSON])
    assert reason == "error"
    assert [d.text for d in event.prompt.documents] == [LONG, JSON]
    assert event.tokens.before == event.tokens.after
    assert "IndexError" in caplog.text
    assert ANSWER not in caplog.text


def test_no_rate_means_no_compression() -> None:
    event, reason = one([LONG], rate=None)
    assert (event.prompt.documents[0].text, reason) == (LONG, "off")


def test_tables_code_json_and_short_documents_beside_a_long_one_are_byte_equal() -> None:
    kept = [TABLE, JSON, CODE, "A short note on slate."]
    event, reason = one([TABLE, LONG, JSON, CODE, kept[3]])
    assert reason == "selected"
    assert [d.text for d in event.prompt.documents if d.id != "1"] == kept


def test_a_document_that_loses_everything_is_left_out() -> None:
    event, _ = one([LONG, "bread is baked at four and ovens cool slowly and " * 25], rate=0.2)
    assert [d.id for d in event.prompt.documents] == ["0"]


def test_a_summary_of_the_documents_gets_all_of_them() -> None:
    prompt = missed([LONG]).prompt.model_copy(update={"messages": (Message(role="user", content="Summarise the report on the bridge."),)})
    (event,), seen, _ = run(missed([LONG], prompt=prompt))
    assert event.prompt == prompt
    assert seen == [("original", "whole_document")]


def test_the_question_is_the_last_user_turn_also_behind_a_tool() -> None:
    messages = (Message(role="user", content=QUESTION), Message(role="tool", content="slate garden swallows"))
    (event,), _, _ = run(missed([LONG], prompt=missed([LONG]).prompt.model_copy(update={"messages": messages})))
    assert ANSWER in event.prompt.documents[0].text


def test_the_key_is_the_fingerprint_only_where_an_answer_may_be_shared() -> None:
    key = CacheKey(point_id="the-fingerprint", scope="s", text="t", vector=None)
    plan = missed([]).plan
    refresh = plan.model_copy(update={"cache": plan.cache.model_copy(update={"read": False})})
    never = plan.model_copy(update={"cache": plan.cache.model_copy(update={"read": False, "write": False})})
    events = [
        missed([], cache_key=key),
        missed([]),
        missed([], cache_key=key, plan=refresh),
        missed([], cache_key=key, plan=never),
    ]
    assert run(*events)[2] == ["the-fingerprint", "acme/r-1", "acme/r-1", "acme/r-1"]


def test_a_batch_keeps_its_order_and_fields_of_a_newer_release() -> None:
    newer = Missed.model_validate_json(json.dumps(json.loads(missed([LONG]).model_dump_json()) | {"added_later": {"a": 1}}))
    events, _, _ = run(missed([ANSWER]), newer, missed([LONG]))
    assert [len(e.prompt.documents[0].text) < len(LONG) for e in events] == [True, True, True]
    assert (events[1].model_extra or {})["added_later"] == {"a": 1}
    assert events[0].prompt.documents[0].text == ANSWER
    assert Compressed.model_validate_json(events[1].model_dump_json()) == events[1]


texts = st.lists(
    st.sampled_from([LONG, TABLE, JSON, CODE, ANSWER, FILLER * 4, "```\n" + FILLER + "```\n" + LONG]) | st.text(max_size=300), max_size=4
)


@given(texts, st.floats(0.05, 1))
def test_messages_and_params_never_change_and_the_prompt_never_grows(documents: list[str], rate: float) -> None:
    before = missed(documents, rate=rate)
    (event,), _, _ = run(before)
    assert event.prompt.messages == before.prompt.messages
    assert event.prompt.params == before.prompt.params
    assert (event.facts, event.plan) == (before.facts, before.plan)
    assert event.tokens.after <= event.tokens.before
    originals = {d.id: d.text for d in before.prompt.documents}
    for document in event.prompt.documents:
        rest = iter(originals[document.id])
        assert all(c in rest for c in document.text)


@given(st.floats(0.2, 0.9))
def test_compressing_again_keeps_the_answer(rate: float) -> None:
    once, _ = one([LONG], rate=rate)
    again, _ = one([d.text for d in once.prompt.documents], rate=rate)
    assert ANSWER in again.prompt.documents[0].text
