"""The keys: anything that can change an answer, or who may see it, gives another scope; nothing else does."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import Classified, Document, Message, Params, Prompt
from tests.unit.cache.events import ask
from workers.cache.scope import SCHEMA, point_id, same, scope

SYSTEM = Message(role="system", content="You are brief.")
IMAGE = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


def of(event: Classified, encoder: str = "minilm@1") -> str:
    return scope(event.facts, event.prompt, event.plan, encoder)


def message(**fields: object) -> Message:
    return Message.model_validate({"role": "user", "content": "q"} | fields)


OTHERS: dict[str, Callable[[], Classified]] = {
    "tenant": lambda: ask("q", tenant="other"),
    "share": lambda: ask("q", cache={"share": "user"}),
    "user": lambda: ask("q", cache={"share": "user"}, user="bob"),
    "system message": lambda: ask("q", earlier=(SYSTEM,)),
    "another system message": lambda: ask("q", earlier=(Message(role="system", content="You are verbose."),)),
    "the same words of a developer": lambda: ask("q", earlier=(Message(role="developer", content="You are brief."),)),
    "the same words of a user": lambda: ask("q", earlier=(Message(role="user", content="You are brief."),)),
    "earlier turns": lambda: ask("q", earlier=(SYSTEM, Message(role="user", content="a"), Message(role="assistant", content="b"))),
    "earlier turns in another order": lambda: ask(
        "q", earlier=(Message(role="user", content="a"), SYSTEM, Message(role="assistant", content="b"))
    ),
    "a tool call": lambda: ask("q", earlier=(Message.model_validate({"role": "assistant", "tool_calls": [{"id": "1"}]}),)),
    "another tool call": lambda: ask("q", earlier=(Message.model_validate({"role": "assistant", "tool_calls": [{"id": "2"}]}),)),
    "instruction": lambda: ask("q", plan={"instruction": "You are brief."}),
    "document": lambda: ask("q", documents=(Document(id="a", text="b"),)),
    "document text": lambda: ask("q", documents=(Document(id="a", text="c"),)),
    "document id": lambda: ask("q", documents=(Document(id="b", text="b"),)),
    "document without id": lambda: ask("q", documents=(Document(text="b"),)),
    "documents": lambda: ask("q", documents=(Document(id="a", text="b"), Document(id="a", text="c"))),
    "documents the other way round": lambda: ask("q", documents=(Document(id="a", text="c"), Document(id="a", text="b"))),
    "role of the last": lambda: ask("q", last=message(role="tool")),
    "id of the answered call": lambda: ask("q", last=message(role="tool", tool_call_id="1")),
    "name of the asker": lambda: ask("q", last=message(name="ann")),
    "list form": lambda: ask("q", last=message(content=({"type": "text", "text": "q"},))),
    "image": lambda: ask("q", last=message(content=({"type": "text", "text": "q"}, IMAGE))),
    "image first": lambda: ask("q", last=message(content=(IMAGE, {"type": "text", "text": "q"}))),
    "tools": lambda: ask("q", params=Params(tools=(TOOL,))),
    "tool_choice": lambda: ask("q", params=Params(tools=(TOOL,), tool_choice="none")),
    "another tool_choice": lambda: ask("q", params=Params(tools=(TOOL,), tool_choice={"type": "function"})),
    "parallel_tool_calls": lambda: ask("q", params=Params(tools=(TOOL,), parallel_tool_calls=False)),
    "response_format": lambda: ask("q", params=Params(response_format={"type": "json_object"})),
    "temperature": lambda: ask("q", params=Params(temperature=0)),
    "another temperature": lambda: ask("q", params=Params(temperature=1)),
    "top_p": lambda: ask("q", params=Params(top_p=1)),
    "seed": lambda: ask("q", params=Params(seed=1)),
    "presence_penalty": lambda: ask("q", params=Params(presence_penalty=1)),
    "frequency_penalty": lambda: ask("q", params=Params(frequency_penalty=1)),
    "reasoning_effort": lambda: ask("q", params=Params(reasoning_effort="low")),
    "stop": lambda: ask("q", params=Params(stop="\n")),
    "the policy's stop": lambda: ask("q", plan={"stop": ("\n",)}),
    "forced tier": lambda: ask("q", plan={"forced": True}),
    "another forced tier": lambda: ask("q", plan={"forced": True, "tier": "heavy"}),
}


def test_every_difference_gives_another_scope() -> None:
    scopes = {name: of(make()) for name, make in OTHERS.items()} | {"plain": of(ask("q")), "encoder": of(ask("q"), "minilm@2")}
    assert len(set(scopes.values())) == len(scopes)


@pytest.mark.parametrize(
    "alike",
    [
        ask("another question"),
        ask("q", user="bob"),
        ask("q", plan={"tier": "heavy"}),
        ask("q", params=Params(max_tokens=5)),
        ask("q", cache={"ttl_s": 5, "read": False}),
    ],
)
def test_what_changes_no_answer_changes_no_scope(alike: Classified) -> None:
    assert of(alike) == of(ask("q"))


def test_a_field_that_we_do_not_know_may_change_the_answer() -> None:
    event = ask("q")
    newer = event.model_copy(update={"prompt": Prompt.model_validate({"messages": event.prompt.messages, "newer_field": 1})})
    assert of(newer) != of(event)


def test_a_new_meaning_leaves_the_old_entries_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    before = of(ask("q"))
    monkeypatch.setattr("workers.cache.scope.SCHEMA", SCHEMA + 1)
    assert of(ask("q")) != before


def test_nobody_owns_nothing() -> None:
    with pytest.raises(ValueError, match="tenant"):
        of(ask("q", tenant=None))
    with pytest.raises(ValueError, match="user"):
        of(ask("q", user=None, cache={"share": "user"}))


IDS = st.text(alphabet=st.sampled_from('ab"/:,{}[]\\| \u00e9'), min_size=1, max_size=4)
SETUPS = st.tuples(IDS, IDS, st.sampled_from(["user", "tenant"]), st.lists(st.tuples(IDS, IDS), max_size=2), st.lists(IDS, max_size=2))


@given(SETUPS, SETUPS)
def test_two_setups_have_one_scope_only_if_they_are_one(a: tuple, b: tuple) -> None:  # type: ignore[type-arg]
    def make(setup: tuple) -> Classified:  # type: ignore[type-arg]
        tenant, user, share, documents, earlier = setup
        return ask(
            "q",
            tenant=tenant,
            user=user,
            cache={"share": share},
            documents=tuple(Document(id=i, text=t) for i, t in documents),
            earlier=tuple(Message(role="user", content=t) for t in earlier),
        )

    def owner(setup: tuple) -> tuple:  # type: ignore[type-arg]
        tenant, user, share, *rest = setup
        return (tenant, share, user if share == "user" else None, *rest)

    assert (of(make(a)) == of(make(b))) == (owner(a) == owner(b))


@pytest.mark.parametrize(
    ("a", "b"),
    [("What is it?", "  What is it?\n"), ("What  is\tit?", "What is it?"), ("caf\u00e9?", "cafe\u0301?"), ("a\r\nb", "a\nb")],
)
def test_one_wording(a: str, b: str) -> None:
    assert point_id("s", a) == point_id("s", b)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("Does it affect us?", "Does it affect US?"),
        ("What is 5\u00b2?", "What is 52?"),
        ("What is it", "What is it?"),
        ("if a:\n  b", "if a:\nb"),
        ("Is 'a  b' one word?", "Is 'a b' one word?"),
        ("C++", "C#"),
        ("猫は何", "犬は何"),
    ],
)
def test_two_wordings(a: str, b: str) -> None:
    assert point_id("s", a) != point_id("s", b)


@given(st.text(max_size=50), st.text(max_size=50))
def test_an_id_stands_for_one_wording_of_one_scope(a: str, b: str) -> None:
    assert (point_id("s", a) == point_id("s", b)) == (same(a) == same(b))
    assert point_id("s", a) != point_id("t", a)
