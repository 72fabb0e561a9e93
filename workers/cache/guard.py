"""May the answer to one question answer another? The last word over what the vectors find near. Pure functions.

Vectors hardly see a number, a "not" or who did what to whom: "convert dollars to rupees" is as near as can be to "convert rupees to
dollars". So both questions are reduced to the words that decide an answer, and they share one only if the same words remain in the
same order. What the guard does not know it takes for a difference: that costs one model call, a wrong answer costs more.

These words are the question's *form*. Only entries of the same form can ever be served, so the cache looks for those first.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

from workers.cache import words as w
from workers.cache.scope import same

Reason = Literal["length", "code", "unreadable", "numbers", "negation", "opposites", "entities", "question", "order", "words"]

MAX_CHARS = 800
"""Longer texts are not compared: encoders read about 256 tokens, and what stands behind them has no part in the similarity."""

_CODE = re.compile(r"[\n`{}\[\]\\|<>=;]|\w\(")
_TOKEN = re.compile(
    r"(?:(?<![\w)])-)?\d+(?:[.,:/\-]\d+)*|[^\W\d_](?:[^\W_]|_)*|[^\s\w.,;:!?¿¡\"'()“”‘’«»…–—\-。、，？！：；「」]|(?<=\s)-(?=\s)|\w+"
)
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?:,\d{3})*(?:\.\d+)?$)")


def form(text: str) -> str | None:
    """What two questions that pass the guard have in common, whatever their wording; None: no other wording of this one could pass."""
    if not text.strip() or len(text) > MAX_CHARS or _CODE.search(text.strip()):
        return None
    clean = _clean(text)
    return " ".join(_tokens(clean) if _unreadable(clean) else map(_stem, _decisive(_words(clean))))


def veto(asked: str, cached: str) -> Reason | None:
    """Why the answer to `cached` must not be served to `asked`; None: nothing speaks against it. Symmetric."""
    if same(asked) == same(cached):
        return None
    a, b = _clean(asked), _clean(cached)
    if max(len(a), len(b)) > MAX_CHARS:
        return "length"
    if _CODE.search(asked.strip()) or _CODE.search(cached.strip()):
        return "code"
    if _unreadable(a + b):
        return None if _tokens(a) == _tokens(b) else "unreadable"
    words_a, words_b = _words(a), _words(b)
    if any({_person(words_a, forms), _person(words_b, forms)} == {"first", "second"} for forms in w.PERSONS):
        return "words"
    return _compare(_decisive(words_a), _decisive(words_b))


def _clean(text: str) -> str:
    straight = unicodedata.normalize("NFC", text).replace("’", "'").replace("‘", "'")
    return " ".join(straight.split())


def _unreadable(text: str) -> bool:
    """No list of ours reads this language: then every word decides."""
    return any(c.isalpha() and not c.isascii() for c in text)


def _tokens(text: str) -> list[str]:
    return [token.lower() for token in _TOKEN.findall(text)]


def _compare(a: list[str], b: list[str]) -> Reason | None:
    stems_a, stems_b = [_stem(word) for word in a], [_stem(word) for word in b]
    if stems_a == stems_b:
        # Nothing but silent words ("what is it?"): that says what neither asks about.
        return None if set(a) - w.QUESTIONS else "words"
    only_a, only_b = _without(a, stems_b), _without(b, stems_a)
    if not only_a and not only_b:
        return "order"
    differing = only_a + only_b
    if any(c.isdigit() for word in differing for c in word):
        return "numbers"
    if any(word in w.NEGATIONS for word in differing) or any(_negates(x, y) for x in only_a for y in only_b):
        return "negation"
    if any(y in w.OPPOSITES.get(x, ()) for x in only_a for y in only_b):
        return "opposites"
    if any(word[0].isupper() for word in differing):
        return "entities"
    if any(word in w.QUESTIONS for word in differing):
        return "question"
    return "words"


def _without(words: list[str], stems: list[str]) -> list[str]:
    """The words left when each of the stems has taken away one of its own."""
    left = Counter(stems)
    kept = []
    for word in words:
        if left[stem := _stem(word)] > 0:
            left[stem] -= 1
        else:
            kept.append(word)
    return kept


def _negates(x: str, y: str) -> bool:
    short, long = sorted((x, y), key=len)
    return any(long == prefix + short for prefix in w.NEGATING_PREFIXES)


@lru_cache(maxsize=128)  # a question is compared with each of its neighbours, and they are near each other's questions too
def _words(text: str) -> tuple[str, ...]:
    """The words, with contractions spelt out and turns of phrase made one."""
    for pattern, replacement in w.CONTRACTIONS if w.CONTRACTED.search(text) else ():
        text = pattern.sub(replacement, text)
    text = " ".join(_cased(text))
    for pattern, replacement in w.PHRASES:
        text, found = pattern.subn(replacement, text)
        if found:
            text = " ".join(text.split())
    return tuple(text.split())


def _person(words: Sequence[str], forms: tuple[frozenset[str], frozenset[str]]) -> Literal["first", "second"] | None:
    """Who is spoken of, where it is one of the two alone."""
    first, second = (not form.isdisjoint(words) for form in forms)
    return None if first == second else "first" if first else "second"


def _decisive(words: Sequence[str]) -> list[str]:
    """The words that decide an answer, each as it is read, in order."""
    return [_read(word) for word in words if word not in w.SILENT]


def _cased(text: str) -> list[str]:
    """Tokens in lower case, but for words that mean another thing with a capital where no sentence begins."""
    tokens = _TOKEN.findall(text)
    return [token if i and token[0].isupper() and token.lower() in w.CASED else token.lower() for i, token in enumerate(tokens)]


def _read(word: str) -> str:
    if word[-1].isdigit() or word[0].isdigit():
        return _THOUSANDS.sub("", word)
    single = _singular(w.NUMBERS.get(word, word))
    return w.SAME_WORD.get(single, single)


def _singular(word: str) -> str:
    if word in w.IRREGULAR:
        return w.IRREGULAR[word]
    if len(word) < 4 or not word.endswith("s") or word.endswith(("ss", "us", "is")) or word in w.NO_PLURAL or not word.islower():
        return word
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("sses", "shes", "ches", "xes", "zes")):
        return word[:-2]
    return word[:-1]


def _stem(word: str) -> str:
    """Without -ing and a final e, so that "exercising" and "exercise" meet. Tenses stay apart: they ask about other times."""
    if word.endswith("ing") and len(word) > 6:
        word = word[:-3]
        if word[-1] == word[-2] and word[-1] not in "lsz":
            word = word[:-1]
    return word[:-1] if word.endswith("e") and len(word) > 4 and word.islower() else word
