"""Does the answer to this text depend on the moment, on who asks, or on something that is not in the text? Rules; pure; cannot fail.

An error costs a little money on one side (a cacheable text called volatile) and is a wrong answer on the other, so doubt means no,
and so does a language without rules. The patterns are in `wording`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from workers.classify.wording import asker, languages, moment, pointing

Verdict = Literal["cacheable", "volatile", "personal", "deictic", "uncacheable"]

FIRST: tuple[Verdict, ...] = ("personal", "volatile", "deictic")
"""Which verdict is told where several apply. An answer about the asker is the worst one to serve to another."""

TERSE = 3
"""Words. A text with fewer is too short to tell a language by its commonest words."""

HEAD = TAIL = 1500
"""Characters read of each end of a long text: what is asked stands at its beginning or its end, the middle is material."""

_SPELT_OUT = [
    (re.compile(r"\b(what|where|when|who|how|why|that|it|there|here)'?s\b(?<!\bits)(?<!\btheres)(?<!\bheres)"), r"\1 is"),
    (re.compile(r"\b(i)'?m\b"), r"\1 am"),
    (re.compile(r"\b(i|you|we|they)'ve\b|\b(i)ve\b"), r"\1\2 have"),
    (re.compile(r"\b(i|you|we|they|he|she)'d\b"), r"\1 would"),
    (re.compile(r"\b(i|you|we|they|he|she|it)'ll\b"), r"\1 will"),
    (re.compile(r"\b(you|we|they)'re\b"), r"\1 are"),
    (re.compile(r"\bhow'?re\b"), "how are"),
]
_FENCE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]+`", re.S)
_QUOTED = re.compile(r"\"[^\"\n]{1,2000}\"|“[^”]{1,2000}”|«[^»]{1,2000}»|「[^」]{1,2000}」|(?<!\w)'[^'\n]{1,300}'(?!\w)")
_TRANSFORM = re.compile(
    r"\b(?:translat\w+|summar\w+|classif\w+|rewrit\w+|rephras\w+|paraphras\w+|proofread|correct|extract|fix|edit|shorten"
    r"|simplif\w+|expand"
    r"|sentiment|grammar|spelling|sort|ascending|descending|debug|refactor|categori[sz]e|explain what (?:this|the)"
    r"|(?:following|this|these) (?:text|sentence|paragraph|passage|review|e-?mail|code|function|statement|numbers|words"
    r"|list)"
    r"|übersetz\w*|fasse|zusammen\w*|traduc\w+|traduz\w+|tradui\w+|resum\w+|résum\w+|перевед\w+)\b|翻译|总结",
    re.I,
)
"""Says what to do with a text rather than asking what the text asks: what follows its colon is material."""
_MENTION = re.compile(
    r"\b(?:say|says|means?|meaning|words?|phrase|term|sentence|statement|spell|pronounce|define|synonyms?|headed|titled|called)\b", re.I
)
"""Speaks about words: what stands in quotes is material."""
_OF_CODE = re.compile(
    r"\b(?:code|functions?|snippet|query|config\w*|output|outputs?|errors?|exception|raises?|returns?|bugs?|wrong|test"
    r"|optimi[sz]e|improve)\b"
)
_AFTER_COLON = re.compile(r"^(?P<task>[^\n:：]{3,200})[:：]\s*(?P<material>\S[\s\S]*)$")
_PLAIN_SAY = re.compile(
    r"^(?:please |can you |could you |tell me |show me |how to |what is the (?:correct |right )?way to "
    r"|how (?:do|would|can|does|should) (?:you|i|we|one|they|someone) )*"
    r"(?:say|spell|pronounce) (?!(?:it|this|that|these|those|them)\b)(?P<material>.+)$"
)
_SAY_IN = re.compile(
    r"^(?P<task>.{0,80}?\b(?:say|translate|spell|pronounce|ask for|ask)\b )"
    r"(?!(?:it|this|that|these|those|them|the \w+|my \w+|everything)\b)(?P<material>.{2,}?)(?P<rest> (?:in|into|to) \w+\W*)$"
)
_SENTENCE = re.compile(r"[.?!;。？！]+(?:\s+|$)|\n+")
_HAN = re.compile(r"[\u3400-\u9fff]")
_CYRILLIC = re.compile(r"[а-яё]")
_THANKS = re.compile(r"[\s,]*\b(?:please|pls|thanks|thank you)\W*$")
_WORD = re.compile(r"[^\W_]+(?:'\w+)?")


def verdict(text: str, *, earlier: Sequence[str] = (), documents: bool = False) -> Verdict:
    """Whether an answer to `text`, the last user turn, may be stored and served.

    `earlier` holds the user turns before it, `documents` says that background stands beside it; both are part of an entry's scope,
    word for word. So a deictic turn with earlier turns points into its own scope and may be cached. What an earlier turn asks about the
    moment or the asker carries over to it ("and in London?"), so those make the whole conversation uncacheable.
    """
    turns = [_read(turn) for turn in (*earlier, text)]
    # The language is told by all turns together: "And Ravel?" alone could be any.
    if not text.strip() or not known_language("\n".join(turn.asked for turn in turns)):
        return "uncacheable"
    said = [_alone(turn, last=False, follows=False, documents=documents) for turn in turns[:-1]]
    said.append(_alone(turns[-1], last=True, follows=bool(earlier), documents=documents))
    return next((no for no in FIRST if no in said), "cacheable")


def same_for_all(text: str) -> bool:
    """Whether the rules are sure that any asker gets the same answer: nobody speaks of themselves, or only in a plain how-to."""
    return all(
        asker.HOW_TO.search(s)
        or (not asker.FIRST_PERSON.search(s) and not any(r["personal"].search(s) and not r["how_to"].search(s) for r in _others(s)))
        for s in _read(text).cores
    )


def plain(text: str) -> str:
    """The text as the patterns expect it: NFKC, lower case, straight apostrophes, single spaces, contractions spelt out."""
    text = unicodedata.normalize("NFKC", text).replace("’", "'").replace("`", "'").lower()
    for pattern, full in _SPELT_OUT:
        text = pattern.sub(full, text)
    return re.sub(r"[ \t]+", " ", text).strip()


@dataclass(frozen=True, slots=True)
class _Turn:
    """A turn, read once for all questions about it."""

    asked: str
    material: bool
    sentences: list[str]
    cores: list[str]
    """The sentences without their courtesies."""


@lru_cache(maxsize=1)  # whoever asks for the verdict asks next with whom an answer may be shared
def _read(text: str) -> _Turn:
    instruction, material = _instruction(text)
    asked = plain(instruction)
    sentences = _sentences(asked)
    return _Turn(asked, material, sentences, [asker.COURTESY.sub("", s) for s in sentences])


def _alone(turn: _Turn, *, last: bool, follows: bool, documents: bool) -> Verdict:
    if any(map(_personal, turn.cores)):
        return "personal"
    if any(map(_volatile, turn.cores)):
        return "volatile"
    if last and _deictic(turn.asked, turn.sentences, material=turn.material, follows=follows, documents=documents):
        return "deictic"
    return "cacheable"


def _instruction(text: str) -> tuple[str, bool]:
    """What is asked, without the material it is asked about, and whether there is such material (quoted, fenced, after a colon)."""
    if len(text) > HEAD + TAIL:
        text = f"{text[:HEAD]}\n{text[-TAIL:]}"
    rest, material = text, False
    # Only a task outside the marks makes what they hold material: a question in quotes is still a question.
    unfenced = _FENCE.sub(" ", text)
    if unfenced != text and any(p.search(plain(unfenced)) for p in (_TRANSFORM, _MENTION, _OF_CODE, moment.PROGRAMMING)):
        rest, material = unfenced, True
    unquoted = _QUOTED.sub(" _ ", rest)
    if unquoted != rest and (_TRANSFORM.search(unquoted) or _MENTION.search(unquoted)):
        rest, material = unquoted, True
    if _TRANSFORM.search(rest) or _MENTION.search(rest):
        if (m := _AFTER_COLON.match(rest)) and _TRANSFORM.search(m["task"]):
            return m["task"], True
        if m := _SAY_IN.match(rest.lower()):
            return m["task"] + "_" + m["rest"], True
        if m := _PLAIN_SAY.match(rest.lower()):
            return "how do you say _", True
    return rest, material


def known_language(asked: str) -> bool:
    """Whether there are rules for the language: its letters, and in a text of some length one of its commonest words."""
    if languages.OTHER_SCRIPT.search(asked):
        return False
    return (
        bool(_HAN.search(asked) or _CYRILLIC.search(asked) or languages.FUNCTION_WORDS.search(asked)) or len(_WORD.findall(asked)) < TERSE
    )


def _sentences(asked: str) -> list[str]:
    return [s.strip(" ,-¿¡\"'") for s in _SENTENCE.split(asked) if s.strip(" ,-¿¡\"'")]


def _personal(sentence: str) -> bool:
    programming = moment.PROGRAMMING.search(sentence)
    if asker.PLACE.search(sentence) and not programming:
        return True
    if any(r["personal"].search(sentence) and not r["how_to"].search(sentence) for r in _others(sentence)):
        return True
    if asker.HOW_TO.search(sentence):
        return False
    if not programming and (asker.ACT.search(asker.OPENING.sub("", sentence)) or asker.OWN.search(sentence)):
        return True
    general = asker.GENERAL.search(sentence)
    if asker.WISH.search(sentence) and not (general or programming):
        return True
    return bool(asker.FIRST_PERSON.search(sentence) and (not general or asker.MY_RECORD.search(sentence)))


def _volatile(sentence: str) -> bool:
    programming = bool(moment.PROGRAMMING.search(sentence))
    if moment.MOMENT.search(sentence) or any(r["volatile"].search(sentence) for r in _others(sentence)):
        return True
    if (
        moment.CURRENT.search(sentence)
        and not moment.CURRENT_OF_PHYSICS.search(sentence)
        and not (programming and moment.CURRENT_OF_PROGRAMS.search(sentence))
    ):
        return True
    if moment.CHANCE.search(sentence) and not programming:
        return True
    return bool(moment.STATE.search(sentence)) and not any(p.search(sentence) for p in (moment.DEFINITION, asker.HOW_TO, moment.EXERCISE))


def _deictic(asked: str, sentences: Sequence[str], *, material: bool, follows: bool, documents: bool) -> bool:
    asked = _THANKS.sub("", asked)
    sentences = [_THANKS.sub("", s) for s in sentences]
    if pointing.ATTACHED.search(asked) and not documents and not material:
        return True
    if follows:
        return False
    if any(map(pointing.CONTINUES.search, sentences)):
        return True
    if documents or material:
        return False
    bare = asker.OPENING.sub("", asked)
    first = sentences[0] if sentences else ""
    if any(r["deictic"].search(s) for s in sentences for r in _others(s)):
        return True
    if pointing.POINTS.search(bare) or pointing.POINTS.search(asked):
        return True
    if "between" not in asked and not pointing.EXPLETIVE.search(first):
        if (m := pointing.PRONOUN.search(asked)) and not _names(asked[: m.start()]):
            return True
        if (m := pointing.OBJECT.search(bare)) and _names(bare[: m.end(1)]) == [m[1]]:
            return True
    return (
        not _names(asked, pointing.GENERIC) and not re.search(r"\byou\b", asked) and not _HAN.search(asked) and not _CYRILLIC.search(asked)
    )


def _names(text: str, empty: frozenset[str] = pointing.NAMELESS) -> list[str]:
    return [word for word in _WORD.findall(text) if word not in empty]


@lru_cache(maxsize=64)  # each sentence is asked several times; none has more than HEAD + TAIL characters
def _others(sentence: str) -> list[dict[str, re.Pattern[str]]]:
    """The rules of the other languages that the sentence may be in, by its letters and its commonest words."""
    if _HAN.search(sentence):
        return [languages.OTHER_LANGUAGES["zh"]]
    if _CYRILLIC.search(sentence):
        return [languages.OTHER_LANGUAGES["ru"]]
    english = len(languages.ENGLISH.findall(sentence))
    return [
        languages.OTHER_LANGUAGES[code] for code, hint in languages.HINTS.items() if (n := len(hint.findall(sentence))) and n >= english
    ]
