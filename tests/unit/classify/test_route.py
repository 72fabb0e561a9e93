"""The customer's three rules, their order, and their figures."""

from __future__ import annotations

from collections.abc import Iterable
from typing import get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import Document, Message
from schemas.types import Tier
from workers.classify.route import Thresholds, route, words
from workers.settings import Classify


def tokens(texts: Iterable[str], limit: int) -> bool:
    """A tokenizer for tests: a word is a token."""
    return sum(len(text.split()) for text in texts) > limit


def routed(last: str, *, before: str = "", documents: str = "", thresholds: Thresholds | None = None) -> tuple[Tier, str]:
    messages = ([Message(role="system", content=before)] if before else []) + [Message(role="user", content=last)]
    return route(messages, [Document(text=documents)] if documents else [], thresholds or Thresholds(), tokens)


def n(count: int) -> str:
    return " ".join(["word"] * count)


def test_short_and_little_context_is_light_even_with_a_signal() -> None:
    assert routed("Compare cats and dogs, explain why") == ("light", "short")


@pytest.mark.parametrize(("last", "context", "tier"), [(19, 499, "light"), (20, 499, "standard"), (19, 500, "standard"), (19, 0, "light")])
def test_fewer_than_twenty_words_and_fewer_than_five_hundred_tokens(last: int, context: int, tier: str) -> None:
    assert routed(n(last), before=n(context))[0] == tier


@pytest.mark.parametrize("signal", ["explain why", "compare", "design", "analyze", "implement"])
def test_a_signal_anywhere_in_a_longer_turn_is_heavy(signal: str) -> None:
    assert routed(f"{n(20)} {signal.upper()}d") == ("heavy", "signal")


def test_a_signal_in_the_context_is_none() -> None:
    assert routed(n(30), before="compare and implement") == ("standard", "ordinary")


@pytest.mark.parametrize(("context", "tier"), [(10_000, "standard"), (10_001, "heavy")])
def test_more_than_ten_thousand_context_tokens_is_heavy(context: int, tier: str) -> None:
    assert routed("Why?", documents=n(context - 2), before=n(2))[0] == tier


def test_messages_and_documents_are_context_together() -> None:
    assert routed("Why?", before=n(250), documents=n(249))[0] == "light"
    assert routed("Why?", before=n(250), documents=n(250))[0] == "standard"


def test_every_figure_is_a_parameter() -> None:
    own = Thresholds(short_words=3, short_context_tokens=2, long_context_tokens=5, signals=("prove",))
    assert routed("one two", before="one", thresholds=own) == ("light", "short")
    assert routed("one two three", thresholds=own) == ("standard", "ordinary")
    assert routed("please prove it now", thresholds=own) == ("heavy", "signal")
    assert routed("compare one two three", before=n(6), thresholds=own) == ("heavy", "long_context")
    assert routed("a", thresholds=Thresholds(short_words=0)) == ("standard", "ordinary")
    assert routed("a", thresholds=Thresholds(short_context_tokens=0)) == ("standard", "ordinary")


def test_the_settings_have_the_same_figures() -> None:
    settings = Classify()
    assert Thresholds(**{name: getattr(settings, name) for name in get_type_hints(Thresholds)}) == Thresholds()


def test_a_script_without_spaces_is_counted_by_characters() -> None:
    assert words("量子力学の歴史を詳しく説明してください。" * 3) >= 20
    assert routed("请详细解释量子力学的历史以及它对现代技术的影响并给出例子和参考文献以及时间线和主要人物介绍")[0] == "standard"
    assert routed("法国的首都是哪里？")[0] == "light"


def test_one_endless_word_is_not_a_short_question() -> None:
    assert routed("x" * 10_000)[0] == "standard"
    assert routed("Summarise https://example.org/" + "a" * 60)[0] == "light"


@given(st.text("abc \n\t", max_size=200))
def test_words_are_the_customers_count(text: str) -> None:
    assert words(text) == len(text.split())


@given(st.integers(0, 60), st.integers(0, 1200), st.sampled_from(["", "compare", "DESIGN", "plain"]))
def test_the_rules_are_the_customers(last: int, context: int, extra: str) -> None:
    query, background = f"{n(last)} {extra}", n(context * 10)
    if len(query.split()) < 20 and context * 10 < 500:
        expected = "light"
    elif any(s in query.lower() for s in ("explain why", "compare", "design", "analyze", "implement")) or context * 10 > 10_000:
        expected = "heavy"
    else:
        expected = "standard"
    assert routed(query, before=background)[0] == expected
