"""What is sent: the user's messages as they came, one message of background, the instruction with the system's."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from schemas import Document, Message, Prompt
from workers.call.messages import build


def prompt(*messages: dict[str, Any], documents: tuple[Document, ...] = ()) -> Prompt:
    return Prompt(messages=tuple(Message.model_validate_json(json.dumps(m)) for m in messages), documents=documents)


ASK = {"role": "user", "content": "How tall is a heron?"}
SYSTEM = {"role": "system", "content": "You know birds."}


def test_messages_reach_the_model_as_they_came() -> None:
    turns = (
        SYSTEM,
        {
            "role": "user",
            "content": [{"type": "text", "text": "Hm?"}, {"type": "image_url", "image_url": {"url": "data:,x"}}],
            "name": "kim",
        },
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "98 cm"},
    )
    assert build(prompt(*turns), None) == [dict(t) for t in turns]


def test_nothing_is_added_that_was_not_there() -> None:
    assert build(prompt({"role": "assistant"}, ASK), None)[0] == {"role": "assistant"}


def test_documents_are_one_user_message_before_the_last() -> None:
    sent = build(prompt(SYSTEM, ASK, documents=(Document(id="kb-7", text="Herons are tall."), Document(text="Storks too."))), None)
    assert sent == [SYSTEM, {"role": "user", "content": "[kb-7]\nHerons are tall.\n\nStorks too."}, ASK]


def test_documents_that_were_compressed_to_nothing_leave_no_message() -> None:
    assert build(prompt(ASK, documents=(Document(id="kb-7", text=""),)), None) == [ASK]


def test_documents_do_not_part_a_tool_from_its_call() -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "a"}, {"id": "b"}]}
    results = [{"role": "tool", "tool_call_id": i, "content": "1"} for i in ("a", "b")]
    sent = build(prompt(ASK, call, *results, documents=(Document(text="Herons."),)), None)
    assert sent == [ASK, {"role": "user", "content": "Herons."}, call, *results]


def test_an_instruction_joins_the_system_message() -> None:
    assert build(prompt(SYSTEM, ASK), "Be brief.")[0] == {"role": "system", "content": "You know birds.\n\nBe brief."}
    assert build(prompt(ASK), "Be brief.") == [{"role": "system", "content": "Be brief."}, ASK]
    listed = {"role": "developer", "content": [{"type": "text", "text": "You know birds."}]}
    assert build(prompt(listed, ASK), "Be brief.")[0]["content"] == [*listed["content"], {"type": "text", "text": "Be brief."}]


@given(
    st.lists(st.builds(lambda role, text: {"role": role, "content": text}, st.sampled_from(["system", "user", "assistant"]), st.text())),
    st.text(),
    st.lists(st.text(max_size=20), max_size=3),
    st.none() | st.text(min_size=1, max_size=20),
)
def test_what_users_wrote_stays_equal_and_the_question_stays_last(
    turns: list[dict[str, Any]], question: str, texts: list[str], instruction: str | None
) -> None:
    last = {"role": "user", "content": question}
    sent = build(prompt(*turns, last, documents=tuple(Document(text=t) for t in texts)), instruction)
    assert sent[-1] == last
    background = 1 if any(texts) else 0
    own = [m for m in sent[: len(sent) - 1 - background] if m["role"] != "system"]
    assert own == [t for t in turns if t["role"] != "system"]
