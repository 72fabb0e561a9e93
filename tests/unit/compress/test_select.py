"""What is kept answers the question; the rate is met; nothing is reordered, reworded or cut."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.compress.bm25 import bm25
from workers.compress.select import select
from workers.compress.sentences import sentences
from workers.compress.terms import terms

FILLER = [
    "The hall was rebuilt after the flood and painted green.",
    "Its roof is made of slate from the northern quarries.",
    "Visitors praise the quiet garden behind the kitchen.",
    "A narrow path leads from the gate to the boathouse.",
    "In summer the windows stand open until late evening.",
    "The library holds some nine thousand volumes.",
    "Local schools hold their plays on the small stage.",
    "Swallows nest under the eaves every spring.",
]
ANSWER = "The bridge over the Ilme was opened by Queen Sofie."
AFTER = "That happened on a rainy day in 1911."
LONG = " ".join([*FILLER, ANSWER, AFTER, *reversed(FILLER)])


def count(text: str) -> int:
    """A tokenizer for tests: four characters are a token, and every text that holds anything has one."""
    return -(-len(text.strip()) // 4)


def test_the_sentence_that_answers_is_kept_and_about_half_is_dropped() -> None:
    got = select([LONG], "Who opened the bridge over the Ilme?", 0.5, count)
    assert got.why == "selected"
    assert ANSWER in got.texts[0]
    assert 0.4 <= count(got.texts[0]) / count(LONG) <= 0.5


def test_the_neighbour_of_a_good_sentence_is_kept_before_the_rest() -> None:
    got = select([LONG], "Who opened the bridge over the Ilme?", 0.2, count)
    assert AFTER in got.texts[0]


def test_the_order_is_the_documents() -> None:
    document = " ".join([*FILLER, ANSWER, AFTER])
    (text,) = select([document], "Which queen opened the bridge, and where do swallows nest?", 0.4, count).texts
    places = [document.index(s.strip()) for s in sentences(text)]
    assert len(places) > 2
    assert places == sorted(places)


def test_the_paragraph_of_a_good_sentence_is_kept_before_other_paragraphs() -> None:
    other = "\n\n".join(" ".join(FILLER[n:] + FILLER[:n]) for n in range(3))
    near = f"{ANSWER} {FILLER[0]} {FILLER[1]} It replaced a ferry."
    got = select([f"{other}\n\n{near}\n\n{other}"], "Who opened the bridge over the Ilme?", 0.1, count)
    assert "It replaced a ferry." in got.texts[0]


def test_the_document_that_answers_gets_the_budget() -> None:
    other = " ".join(FILLER * 3)
    relevant, dropped = select([LONG, other], "Who opened the bridge over the Ilme?", 0.4, count).texts
    assert ANSWER in relevant
    assert len(dropped) < len(relevant)


@pytest.mark.parametrize(
    "question",
    [
        "Summarise the documents.",
        "Give me an overview",
        "What are the key points?",
        "Translate the text into Danish",
        "List all names",
        "What is the text about?",
        "Fasse den Text zusammen",
        "总结一下",
    ],
)
def test_a_task_over_the_whole_text_gets_the_whole_text(question: str) -> None:
    got = select([LONG], question, 0.5, count)
    assert (got.texts, got.why) == ((LONG,), "whole_document")


@pytest.mark.parametrize("question", ["", "Why?", "And what did he do then?", "Xyzzy plugh!"])
def test_a_question_that_shares_no_word_gets_the_whole_text(question: str) -> None:
    got = select([LONG], question, 0.5, count)
    assert (got.texts, got.why) == ((LONG,), "generic")


def test_urgent_sentences_survive_any_rate() -> None:
    warned = LONG + " WARNING: do not enter the boathouse."
    assert "WARNING: do not enter the boathouse." in select([warned], "Who opened the bridge?", 0.05, count).texts[0]


def test_a_table_inside_survives_any_rate() -> None:
    table = "| year | visitors |\n|---|---|\n| 1911 | 40 |\n"
    assert table in select([f"{LONG}\n{table}{LONG}"], "Who opened the bridge?", 0.05, count).texts[0]


def test_among_equals_a_rule_is_kept_first() -> None:
    text = "The pier has a red lamp. The pier must be left by ten. The pier has a blue lamp. The pier has an old lamp."
    assert select([text], "pier", 0.3, count).texts[0].strip() == "The pier must be left by ten."


@pytest.mark.parametrize(
    ("text", "question", "kept"),
    [
        (
            "Мост открыли осенью. Его строила королева София. Крыша сделана из сланца. Сад очень тихий. Окна открыты летом."
            " Тропа ведёт к лодкам.",
            "Какая королева построила мост?",
            "королева София",
        ),
        (
            "大桥于秋天开放。屋顶由石板制成。花园非常安静。女王索菲主持了仪式。夏天窗户一直开着。小路通向船屋。",
            "哪位女王主持仪式？",
            "女王索菲",
        ),
        (
            "Die Brücke wurde im Herbst eröffnet. Das Dach ist aus Schiefer. Der Garten ist still. Königin Sofie hielt die Rede."
            " Im Sommer stehen die Fenster offen. Ein Pfad führt zum Bootshaus.",
            "Welche Königin hielt eine Rede?",
            "Königin Sofie",
        ),
    ],
)
def test_other_scripts(text: str, question: str, kept: str) -> None:
    got = select([text], question, 0.5, count)
    assert got.why == "selected"
    assert kept in got.texts[0]
    assert len(got.texts[0]) < len(text)


words = st.sampled_from(["bridge", "queen", "green", "slate", "not", "must", "WARNING", "1911", "and", "the", "opened", "Ilme"])
prose = st.lists(st.lists(words, min_size=1, max_size=12).map(lambda ws: " ".join(ws).capitalize() + ". "), min_size=1, max_size=25).map(
    "".join
)
texts = st.lists(prose | st.text(max_size=200), min_size=1, max_size=4)


@given(texts, st.lists(words, max_size=5).map(" ".join), st.floats(0.05, 0.95))
def test_what_is_kept_is_made_of_whole_segments_in_their_order(documents: list[str], question: str, rate: float) -> None:
    got = select(documents, question, rate, count)
    assert len(got.texts) == len(documents)
    for before, after in zip(documents, got.texts, strict=True):
        rest = iter(before)
        assert all(c in rest for c in after)  # a subsequence: nothing new, nothing moved
    assert got.texts == tuple(documents) or sum(map(len, got.texts)) < sum(map(len, documents))


@given(prose, st.lists(words, max_size=5).map(" ".join), st.floats(0.05, 0.95))
def test_the_rate_is_met_but_for_one_sentence_and_what_is_always_kept(document: str, question: str, rate: float) -> None:
    got = select([document], question, rate, count)
    if got.why != "selected":
        return
    sizes = [count(s) for s in sentences(document)]
    always = sum(count(s) for s in sentences(document) if "WARNING" in s.upper())
    kept = sum(count(s) for s in sentences(got.texts[0]))
    assert kept <= rate * sum(sizes) + max(sizes) + always


@given(prose, st.floats(0.3, 0.9))
def test_the_same_question_gives_the_same_text(document: str, rate: float) -> None:
    assert select([document], "queen bridge", rate, count) == select([document], "queen bridge", rate, count)


def test_bm25_prefers_the_rare_word_and_the_short_sentence() -> None:
    rare, common, long, none = (Counter(t.split()) for t in ("queen hall", "hall hall", "queen hall a b c d e f", "x y"))
    scores = bm25([rare, common, long, none], ["queen", "hall"])
    assert scores[0] > scores[2] > scores[1] > scores[3] == 0


def test_bm25_of_nothing() -> None:
    assert bm25([], ["a"]) == []


def test_terms() -> None:
    assert list(terms("The Queen's bridges, 1911!")) == ["the", "queen", "bridge", "1911"]
    assert list(terms("女王索菲")) == ["女王", "王索", "索菲"]
    assert list(terms("雨")) == ["雨"]
    assert list(terms("Королева королевы")) == ["короле", "короле"]
    assert list(terms("?! …")) == []
