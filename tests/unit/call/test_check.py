"""What counts as a good answer. The sets below were written before the rules."""

from __future__ import annotations

import json
from typing import Any

import pytest

from schemas import Params
from workers.call.check import check
from workers.ledger.types import Answer


def judge(
    content: str | None,
    finish: str | None = "stop",
    calls: tuple[dict[str, Any], ...] | None = None,
    written: int = 10,
    limit: int = 100,
    **params: Any,
) -> tuple[str, str]:
    return check(Answer(content, calls, finish), Params(**params), limit=limit, written=written)


REFUSALS = [
    "I'm sorry, but I can't help with that.",
    "I’m sorry, but I can’t assist with that request.",
    "I am sorry, but I cannot provide that information.",
    "Sorry, but I can't do that.",
    "Sorry, I'm not able to help with this.",
    "I apologize, but I cannot fulfil this request.",
    "I cannot help with that request.",
    "I can't assist with that.",
    "I'm unable to provide medical advice.",
    "I am not able to comply with this.",
    "I won't be able to help with that.",
    "As an AI language model, I cannot have opinions.",
    "As an AI, I'm not able to browse the internet.",
    "Unfortunately, I can't help with that.",
    "I must decline to answer.",
    "  \n I'm sorry, but I can't help with that.",
    "**I'm sorry, but I can't help with that.**",
    "Es tut mir leid, aber dabei kann ich nicht helfen.",
    "Tut mir leid, das kann ich nicht beantworten.",
    "Leider kann ich dir dabei nicht helfen.",
    "Ich kann dabei nicht helfen.",
    "Lo siento, pero no puedo ayudarte con eso.",
    "No puedo ayudarte con esa solicitud.",
    "Je suis désolé, mais je ne peux pas vous aider.",
    "Désolé, je ne peux pas répondre à cette demande.",
    "Desculpe, mas não posso ajudar com isso.",
    "Mi dispiace, ma non posso aiutarti con questa richiesta.",
    "抱歉，我无法协助处理这个请求。",
    "对不起，我不能回答这个问题。",
    "申し訳ありませんが、そのご要望にはお応えできません。",
]
ANSWERS = [
    "I'm sorry to hear that your parcel is late. It will be there on Monday.",
    "Sorry for the delay: the store opens at nine.",
    "I can't recommend this book enough; it is a joy.",
    "Unfortunately, the last train leaves at ten.",
    "I cannot be divided by two, said the seven, and laughed.",
    "I can help with that. First, open the settings.",
    "As an AI researcher you will want a good workstation.",
    "Sorry is the hardest word, as the song goes.",
    "No. The heron nests in trees.",
    "No puedo creer lo bonito que es: así empieza la novela.",
    "Leider fällt der Kurs heute aus.",
    "Es tut mir leid, dass Ihr Paket zu spät kommt. Es kommt am Montag.",
    "Desolate moors lie to the north.",
    "The letter begins: I'm sorry, but I can't come.",
    "You cannot help with that from abroad; ask the embassy.",
    "对不起的英文是 sorry。",
    "42",
    "{}",
]


@pytest.mark.parametrize("text", REFUSALS)
def test_a_refusal_is_recognised(text: str) -> None:
    assert judge(text) == ("escalate", "refusal")


@pytest.mark.parametrize("text", ANSWERS)
def test_an_answer_is_no_refusal(text: str) -> None:
    assert judge(text) == ("accepted", "accepted")


@pytest.mark.parametrize("text", [None, "", "  \n\t"])
def test_empty(text: str | None) -> None:
    assert judge(text) == ("escalate", "empty")


def test_a_tool_call_is_content() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": '{"q": "heron"}'}}
    assert judge(None, "tool_calls", (call,)) == ("accepted", "accepted")
    broken = {"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": '{"q": "her'}}
    assert judge(None, "tool_calls", (broken,)) == ("escalate", "bad_tool_call")


def test_a_tool_call_without_arguments_is_a_call() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "now", "arguments": ""}}
    assert judge(None, "tool_calls", (call,)) == ("accepted", "accepted")


TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "look_up"}}])
def test_a_tool_was_demanded_and_none_came(choice: Any) -> None:
    assert judge("The heron.", tools=(TOOL,), tool_choice=choice) == ("escalate", "no_tool_call")
    assert judge("The heron.", tools=(TOOL,), tool_choice="auto") == ("accepted", "accepted")


def test_an_answer_cut_by_our_limit_fails() -> None:
    assert judge("The heron nests", "length", written=100) == ("escalate", "truncated")


def test_an_answer_cut_by_the_limit_the_user_set_is_what_was_asked() -> None:
    assert judge("The heron nests", "length", written=3, limit=3, max_tokens=3) == ("accepted", "cut_as_asked")
    # The cap was lower than what the user asked for: the cut is ours.
    assert judge("The heron nests", "length", written=100, limit=100, max_tokens=500) == ("escalate", "truncated")
    # The provider stopped early: the user's limit did not do it.
    assert judge("The heron nests", "length", written=3, limit=256, max_tokens=256) == ("escalate", "truncated")


def test_a_filtered_answer_fails() -> None:
    assert judge("The heron", "content_filter") == ("escalate", "filtered")


JSON = {"response_format": {"type": "json_object"}}


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ('{"bird": "heron"}', "accepted"),
        (' {"bird": "heron"}\n', "accepted"),
        ("The heron.", "bad_json"),
        ('{"bird": "her', "bad_json"),
        ('```json\n{"bird": "heron"}\n```', "bad_json"),
        ("[1, 2]", "bad_json"),
        ("null", "bad_json"),
        ("[" * 100_000, "bad_json"),
    ],
)
def test_json_object(text: str, outcome: str) -> None:
    assert judge(text, **JSON)[1] == outcome


def test_json_cut_by_the_limit_the_user_set_is_still_no_json() -> None:
    assert judge('{"bird": "her', "length", written=3, limit=3, max_tokens=3, **JSON) == ("escalate", "bad_json")


def schema(body: dict[str, Any]) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "bird", "schema": body}}}


BIRD = {"type": "object", "properties": {"legs": {"type": "integer"}}, "required": ["legs"], "additionalProperties": False}


def test_json_schema() -> None:
    assert judge('{"legs": 2}', **schema(BIRD)) == ("accepted", "accepted")
    assert judge('{"legs": "two"}', **schema(BIRD)) == ("escalate", "bad_schema")
    assert judge("{}", **schema(BIRD)) == ("escalate", "bad_schema")
    assert judge("legs: 2", **schema(BIRD)) == ("escalate", "bad_json")
    assert judge("[2]", **schema({"type": "array", "items": {"type": "integer"}})) == ("accepted", "accepted")


FANNING = {"$defs": {f"a{i}": {"allOf": [{"$ref": f"#/$defs/a{i + 1}"}] * 2} for i in range(40)} | {"a40": {}}, "$ref": "#/$defs/a0"}
"""Two references a level: a validator that follows them all needs 2^40 steps."""


def test_a_schema_that_cannot_be_used_only_asks_for_json() -> None:
    for body in (
        {"type": "no such type"},
        {"$ref": "https://example.invalid/schema.json"},
        {"$ref": "#"},
        {"$ref": "#/$defs/missing"},
        {"type": "string", "pattern": "(a+)+$"},
        FANNING,
    ):
        assert judge(json.dumps("a" * 40 + "!"), **schema(body)) == ("accepted", "accepted"), body
        assert judge("no json", **schema(body)) == ("escalate", "bad_json"), body
    assert judge("{}", response_format={"type": "json_schema"}) == ("accepted", "accepted")
