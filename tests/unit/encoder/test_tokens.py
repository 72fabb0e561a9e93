"""Counting tokens: right against known counts, bounded on hostile text, and never slower than it must be."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import Document, Message, Params, Prompt
from workers.encoder import tokens

WORDS = st.text(alphabet=st.sampled_from("ab Z9 \n\t\r.,'\u00e9\u6f22\U0001f600\u0301-_\x1c<|>"), max_size=300)
ANY = st.one_of(WORDS, st.text(max_size=200))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", 0),
        ("hello world", 2),
        ("tiktoken is great!", 6),
        ("antidisestablishmentarianism", 6),
        ("2 + 2 = 4", 7),
        ("お誕生日おめでとう", 9),
    ],
)
def test_counts_that_openai_publishes(text: str, expected: int) -> None:
    assert tokens.count(text) == expected


def test_special_tokens_are_text() -> None:
    assert tokens.count("<|endoftext|>") > 1


def test_litellm_is_not_imported() -> None:
    """In a process of its own: other tests of this one do import it."""
    program = "import sys; from workers.encoder import tokens; tokens.count('x'); sys.exit('litellm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize("character", ["a", "=", " ", "\n", "\u00e9", "\u6f22", "1", "\ud800"])
def test_the_largest_request_of_one_character(character: str) -> None:
    size = len(character.encode("utf-8", "surrogatepass"))
    n = 900_000 // size
    assert n * size / tokens.LONGEST_TOKEN <= tokens.count(character * n) <= n * size


@given(st.lists(WORDS, min_size=1, max_size=30), st.integers(200, 2_000))
@settings(max_examples=60)
def test_a_cut_before_a_space_changes_no_count(parts: list[str], repeat: int) -> None:
    text = "x end".join(parts * repeat)[:120_000]
    whole = len(tokens._encoding().encode_ordinary(text))
    chunks = list(tokens._chunks(text))
    assert tokens.count(text) == whole
    assert max(map(len, chunks)) <= tokens._CHUNK


@pytest.mark.parametrize("character", ["a", "\u00e9", "\u6f22", "=", "\n"])
def test_a_cut_where_no_space_is_costs_a_few_tokens(character: str) -> None:
    text = character * (3 * tokens._CHUNK)
    assert 0 <= tokens.count(text) - len(tokens._encoding().encode_ordinary(text)) <= 6


@given(ANY)
def test_chunks_are_the_text(text: str) -> None:
    assert "".join(tokens._chunks(text * 200)) == text * 200


@given(ANY)
def test_the_bounds_are_true(text: str) -> None:
    n = tokens.count(text)
    assert n <= tokens._size(text)
    assert n >= tokens._size(text) / tokens.LONGEST_TOKEN
    assert n >= len(text.split())


def test_the_vocabulary_allows_the_bounds() -> None:
    entries = tokens._encoding().token_byte_values()
    assert max(map(len, entries)) == tokens.LONGEST_TOKEN
    assert all(len(entry.decode("utf-8", "replace").split()) <= 1 for entry in entries)


@given(st.lists(ANY, max_size=5), st.integers(0, 400))
def test_more_than_agrees_with_counting(texts: list[str], limit: int) -> None:
    assert tokens.more_than(texts, limit) == (sum(map(tokens.count, texts)) > limit)


@given(st.lists(ANY, max_size=4))
def test_more_than_is_exact_at_the_threshold(texts: list[str]) -> None:
    n = sum(map(tokens.count, texts))
    assert not tokens.more_than(texts, n)
    assert n == 0 or tokens.more_than(texts, n - 1)


def test_far_from_the_threshold_nothing_is_tokenized(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "_counts", lambda text: pytest.fail("the length had said it"))
    assert not tokens.more_than(["short", "text"], 500)
    assert tokens.more_than(["word " * 501], 500)
    assert tokens.more_than(["x" * 900_000], 5_000)


def prompt(*messages: Message, **rest: object) -> Prompt:
    return Prompt(messages=messages, **rest)  # type: ignore[arg-type]


def test_a_conversation_as_openai_counts_it() -> None:
    # 3 for each message, 3 for the reply's start.
    got = tokens.count_messages(prompt(Message(role="system", content="hello world"), Message(role="user", content="hello world")))
    assert got == (3 + 2) + (3 + 2) + 3


def test_every_part_of_a_prompt_is_counted() -> None:
    user = Message(role="user", content="hello world")
    base = tokens.count_messages(prompt(user))
    assert tokens.count_messages(prompt(user, documents=(Document(text="hello world"),))) == base + 3 + 2
    parts = Message(role="user", content=({"type": "text", "text": "hello world"}, {"type": "image_url", "image_url": {"url": "data:x"}}))
    assert tokens.count_messages(prompt(parts)) == base
    called = Message.model_validate({"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "{}"}}]})
    assert tokens.count_messages(prompt(called, user)) > base + 10
    named = Message.model_validate({"role": "user", "content": "hello world", "name": "ann"})
    assert tokens.count_messages(prompt(named)) == base + 1 + tokens.count("ann")
    tools = Params(tools=({"type": "function", "function": {"name": "weather", "description": "the weather of a city"}},))
    assert tokens.count_messages(prompt(user, params=tools)) > base + 10
