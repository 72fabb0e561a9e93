"""Which sentences of the documents a question needs: BM25, smoothed over neighbours and passages, filled to a share of the tokens. Pure.

Nothing is reordered, reworded or cut inside a sentence. Where the question gives nothing to choose by, `select` says so and nothing is
dropped: a summary made from half of a text is a worse answer, not a cheaper one.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from workers.compress.bm25 import bm25
from workers.compress.protect import blocks, normative, urgent
from workers.compress.sentences import sentences
from workers.compress.terms import terms

NEIGHBOUR = 0.25
"""Share of a neighbouring sentence's score that a sentence gets: an answer often stands beside the words of its question."""
PASSAGE = 0.5
"""Share of its paragraph's best score that a sentence gets: it belongs to the text that the question is about."""
NORMATIVE = 0.1
"""Bonus of a sentence that forbids, demands or excepts, as a share of the best score."""

LONG_LINE = 200
"""Characters. A text with such lines has one paragraph a line; in any other a blank line parts them."""

_LINE = re.compile(r"\n\s*+$")
_BLANK_LINE = re.compile(r"\n[^\S\n]*+\n\s*+$")

STOP = frozenset(terms(
    "a an the of to in on at by for with from as is are was were be been being and or but if than then that this these those it its he"
    " she they them his her their we us our you your i me my do does did done have has had having will would can could may might shall"
    " should not no nor so such into about after before when where which who whom whose what why how all any both each there here"
    " der die das den dem des ein eine einer eines und oder ist sind war waren wird werden wurde in im am auf aus bei mit von zu zum zur"
    " wer was wie wo wann warum welche welcher welches le la les un une des du de et ou est sont qui que quoi quel quelle quand comment"
    " pourquoi el los las una y o es son en del que quien cual cuando como donde por para и в во не на с со что как а по к но из у за от"
    " это кто где когда почему какой какая какие 什么 哪个 哪些 谁的 多少 为什 怎么 如何 的是 是什 在哪 哪里"
))  # fmt: skip
"""Words that tell sentences apart in no language here."""

_WHOLE = re.compile(
    r"\b(?:summar\w+|overview|tl;?dr|gist|key (?:points?|takeaways?|facts?)|main (?:points?|ideas?|topics?)|takeaways?|outline|translat\w+"
    r"|proof-?read\w*|rewrite|rephrase|paraphrase|(?:list|extract|find|count) (?:all|every|each)|what is (?:this|it|the \w+) about"
    r"|zusammenfass\w*|fass\w*|übersetz\w*|überblick|résum\w+|tradui\w+|resum\w+|traduc\w+|traduz\w+)\b|перевед|кратко|резюм|обзор|总结|摘要|概括|翻译",
    re.I,
)


@dataclass(frozen=True, slots=True)
class Selection:
    texts: tuple[str, ...]
    """The documents after compression, in order; an empty one lost every sentence."""
    why: str
    """`selected`, or the reason why the texts are the original ones."""


@dataclass(frozen=True, slots=True)
class _Segment:
    text: str
    document: int
    paragraph: int
    """Counted through all documents."""
    fixed: bool
    """Kept in any case and outside the budget: protected blocks and urgent sentences."""


def select(texts: Sequence[str], question: str, rate: float, count: Callable[[str], int]) -> Selection:
    """Keep about `rate` of the prose's tokens (`count`), never more than that plus one sentence."""
    original = tuple(texts)
    if _WHOLE.search(question):
        return Selection(original, "whole_document")
    wanted = set(terms(question)) - STOP
    segments = _segments(texts)
    loose = [s for s in segments if not s.fixed]
    scores = _scores(loose, wanted)
    if not any(scores):
        return Selection(original, "generic")
    # The space behind a sentence becomes part of the next one's first token.
    kept = _fill([count(s.text.rstrip(" ")) for s in loose], scores, rate)
    chosen = {id(loose[i]) for i in kept}
    parts = [[s.text for s in segments if s.document == n and (s.fixed or id(s) in chosen)] for n in range(len(texts))]
    after = tuple("".join(p) for p in parts)
    return Selection(after, "selected") if after != original else Selection(original, "nothing_dropped")


def _segments(texts: Sequence[str]) -> list[_Segment]:
    segments: list[_Segment] = []
    paragraph = 0
    for n, text in enumerate(texts):
        long_lines = any(len(line) > LONG_LINE for line in text.splitlines())
        for piece, protected in blocks(text):
            paragraph += 1
            for part in [piece] if protected else sentences(piece):
                segments.append(_Segment(part, n, paragraph, fixed=protected or urgent(part)))
                paragraph += bool((_LINE if long_lines else _BLANK_LINE).search(part))
    return segments


def _scores(segments: Sequence[_Segment], wanted: set[str]) -> list[float]:
    raw = bm25([Counter(terms(s.text)) for s in segments], wanted)
    best = max(raw, default=0.0)
    if best == 0:
        return raw
    top: dict[int, float] = {}
    for segment, score in zip(segments, raw, strict=True):
        top[segment.paragraph] = max(top.get(segment.paragraph, 0.0), score)
    smooth = []
    for i, segment in enumerate(segments):
        beside = sum(raw[j] for j in (i - 1, i + 1) if 0 <= j < len(segments) and segments[j].document == segment.document)
        smooth.append(raw[i] + NEIGHBOUR * beside + PASSAGE * top[segment.paragraph] + NORMATIVE * best * normative(segment.text))
    return smooth


def _fill(tokens: Sequence[int], scores: Sequence[float], rate: float) -> list[int]:
    """Which sentences to keep: the best first, skipping what no longer fits; the very best in any case. Equal scores: the earlier one."""
    budget = rate * sum(tokens)
    kept: list[int] = []
    used = 0
    for i in sorted(range(len(tokens)), key=lambda i: (-scores[i], i)):
        if not kept or used + tokens[i] <= budget:
            kept.append(i)
            used += tokens[i]
    return kept
