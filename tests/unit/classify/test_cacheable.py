"""The no-cache rules against sentences that were labelled before them, and what context changes."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.classify.cacheable import same_for_all, verdict

_spec = importlib.util.spec_from_file_location("cacheable_cases", Path(__file__).with_name("cacheable_cases.py"))
assert _spec is not None
assert _spec.loader is not None
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)
CASES: list[tuple[str, str]] = _module.cases()
NEVER = [(label, text) for label, text in CASES if label != "cacheable"]
SHARED = [text for label, text in CASES if label == "cacheable"]


@pytest.mark.parametrize(("label", "text"), NEVER)
def test_what_must_not_be_cached_is_not(label: str, text: str) -> None:
    assert verdict(text) != "cacheable"


def test_at_most_a_tenth_of_what_may_be_cached_is_blocked() -> None:
    blocked = [text for text in SHARED if verdict(text) != "cacheable"]
    assert len(blocked) <= len(SHARED) / 10, blocked


def test_the_class_itself_is_mostly_right() -> None:
    # Only a label in metrics, so a rough bound: what is both personal and volatile has two right answers.
    wrong = [(label, text, verdict(text)) for label, text in NEVER if verdict(text) != label]
    assert len(wrong) <= 0.2 * len(NEVER), wrong


@pytest.mark.parametrize(
    "text",
    [
        "WHAT IS MY BALANCE?",
        "what\u2019s my balance",
        "  What   is my balance  ",
        "Ｗｈａｔ is my balance",
        "Thanks! Now, what is my balance?",
    ],
)
def test_the_writing_makes_no_difference(text: str) -> None:
    assert verdict(text) == "personal"


def test_personal_wins_over_volatile() -> None:
    assert verdict("What is my balance right now?") == "personal"
    assert verdict("Is my flight on time today?") == "personal"


@pytest.mark.parametrize("text", ["How do I reset my password?", "how can i change my pin", "What are the steps to close my account?"])
def test_a_plain_how_to_is_shared_though_it_says_my(text: str) -> None:
    assert verdict(text) == "cacheable"
    assert same_for_all(text)


@pytest.mark.parametrize("text", ["What should I cook for a vegan guest?", "I want to learn how sails work.", "why do my knees crack"])
def test_a_first_person_beyond_a_how_to_leaves_a_doubt(text: str) -> None:
    assert verdict(text) == "cacheable"
    assert not same_for_all(text)


def test_material_in_the_text_is_not_what_is_asked() -> None:
    assert verdict("Translate to French: where is my parcel now?") == "cacheable"
    assert verdict('What does "see you tomorrow" mean?') == "cacheable"
    assert verdict("What does this function do?\n```python\ndef now(): return my.clock()\n```") == "cacheable"


@pytest.mark.parametrize(
    "text",
    [
        '"What did I say my budget was?"',
        "```where is my parcel```",
        "Answer ```where is my parcel```",
        "cancel order with code 55",
        "change payment method to the blue card for order 55821",
        "Write me a line. And what is my balance?",
        "Please answer: what is the weather in Rome now?",
        'Answer "where is my order" for me.',
        "convert: 50 usd to gbp",
    ],
)
def test_a_colon_or_quotes_hide_no_question(text: str) -> None:
    assert verdict(text) != "cacheable"


def test_documents_are_what_a_pointing_word_points_at() -> None:
    assert verdict("What does this document say about fees?") == "deictic"
    assert verdict("What does this document say about fees?", documents=True) == "cacheable"
    assert verdict("Continue.", documents=True) == "deictic"
    assert verdict("Where is my parcel?", documents=True) == "personal"


def test_earlier_turns_are_what_a_follow_up_points_at() -> None:
    earlier = ["How tall is Mount Kenya?"]
    assert verdict("And how old is that one?", earlier=["Tell me about the pyramid of Giza."]) != "deictic"
    assert verdict("Why?", earlier=earlier) == "cacheable"
    assert verdict("Summarise the attached file.", earlier=earlier) == "deictic"


@pytest.mark.parametrize(("first", "expected"), [("What's the weather in Paris?", "volatile"), ("What is my balance?", "personal")])
def test_a_follow_up_inherits_what_an_earlier_turn_asked_for(first: str, expected: str) -> None:
    assert verdict("And in London?", earlier=[first]) == expected


@pytest.mark.parametrize(
    "text",
    [
        "今日の天気は？",
        "오늘 날씨 어때?",
        "ما هو رصيدي؟",
        "Jaka jest dzisiaj pogoda nad morzem koło Gdańska?",
        "gdzie jest paczka",
        "   ",
        "",
    ],
)
def test_a_language_without_rules_is_not_cached(text: str) -> None:
    assert verdict(text) != "cacheable"


def test_the_end_of_a_long_text_is_read() -> None:
    filler = "The committee met in the old hall and discussed the drainage of the lower fields. " * 200
    assert verdict(filler + "\nWhat is my balance?") == "personal"
    assert verdict("What is the weather in Turin?\n" + filler) == "volatile"


@given(st.text(max_size=300), st.lists(st.text(max_size=50), max_size=3), st.booleans())
def test_any_text_has_a_verdict(text: str, earlier: list[str], documents: bool) -> None:
    assert verdict(text, earlier=earlier, documents=documents) in {"cacheable", "volatile", "personal", "deictic", "uncacheable"}
    same_for_all(text)


@given(st.sampled_from(NEVER), st.sampled_from(["Hi! ", "Please ", "Quick question: ", "So, "]))
def test_courtesy_opens_no_door(case: tuple[str, str], greeting: str) -> None:
    label, text = case
    if label in ("personal", "volatile"):
        assert verdict(greeting + text) != "cacheable"
