"""Which tier answers a request: the customer's rules, in their order. Pure; cannot fail.

1. A last turn of fewer than 20 words with less than 500 tokens of context is `light`, whatever it says.
2. A reasoning signal in the last turn, or more than 10,000 tokens of context, is `heavy`.
3. Everything else is `standard`.

Source of rules and figures: "AI Cost Optimization and Model Routing" (BEE-30011). Every figure is a parameter.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from schemas import Document, Message
from schemas.types import Tier

MoreThan = Callable[[Iterable[str], int], bool]
"""`more_than(texts, limit)`: do the texts together hold more tokens than `limit`? Counts only where length leaves a doubt."""

_UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")
"""A character of a script that puts no spaces between words: Thai, Lao, Burmese, Khmer, Japanese, Chinese."""

CHARACTERS_A_WORD = 2
"""Of such a script. Chinese words have 1.5 to 2 characters on average; the larger figure stays closer to the customer's count."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The customer's figures; the settings `SCRIMP_CLASSIFY__*` carry the same names."""

    short_words: int = 20
    short_context_tokens: int = 500
    long_context_tokens: int = 10_000
    signals: tuple[str, ...] = ("explain why", "compare", "design", "analyze", "implement")


LONGEST_WORD = 50
"""Characters. A piece without spaces beyond it (a pasted key, base64, a long URL) counts as several words."""


def words(text: str) -> int:
    """The customer's count, `len(text.split())`, made safe for what it does not see: a Chinese page and a base64 blob would both be
    one word. Ordinary words of spaced scripts count exactly as the customer's do."""
    pieces = sum(1 + len(piece) // LONGEST_WORD for piece in text.split())
    return pieces + len(_UNSPACED.findall(text)) // CHARACTERS_A_WORD


def route(messages: Sequence[Message], documents: Sequence[Document], thresholds: Thresholds, more_than: MoreThan) -> tuple[Tier, str]:
    """The tier, and why: `short`, `signal`, `long_context` or `ordinary`.

    The last turn is the last message's text; the context is the text of all other messages and of the documents.
    """
    asked = messages[-1].text
    context = [m.text for m in messages[:-1]] + [d.text for d in documents]
    few = thresholds.short_context_tokens - 1
    if few >= 0 and words(asked) < thresholds.short_words and not more_than(context, few):
        return "light", "short"
    folded = asked.casefold()
    if any(signal.casefold() in folded for signal in thresholds.signals):
        return "heavy", "signal"
    if more_than(context, thresholds.long_context_tokens):
        return "heavy", "long_context"
    return "standard", "ordinary"
