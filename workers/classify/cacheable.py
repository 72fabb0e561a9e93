"""Does the answer to this text depend on the moment, on who asks, or on something that is not in the text? Rules; pure.

An error here costs money on one side (a cacheable text called volatile) and is a wrong answer on the other, so doubt means no.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

Verdict = Literal["cacheable", "volatile", "personal", "deictic"]

_VOLATILE = re.compile(
    r"\b(now|today|tonight|tomorrow|yesterday|current(ly)?|latest|this (week|month|year|morning|evening)|weather|news|price|status)\b", re.I
)
_PERSONAL = re.compile(r"\b(my|mine|i)\b", re.I)
_HOW_TO = re.compile(r"^\W*how (do|can|should|could|would) i\b", re.I)
_DEICTIC = re.compile(r"\b(this|these|above|attached|continue|go on|that one)\b", re.I)


def verdict(text: str, *, earlier: Sequence[str] = (), documents: bool = False) -> Verdict:
    """`earlier`: the user turns before it; `documents`: background stands beside it."""
    if any(_PERSONAL.search(t) and not _HOW_TO.search(t) for t in (text, *earlier)):
        return "personal"
    if any(_VOLATILE.search(t) for t in (text, *earlier)):
        return "volatile"
    if _DEICTIC.search(text) and not earlier and not documents:
        return "deictic"
    return "cacheable"


def same_for_all(text: str) -> bool:
    """Whether the rules are sure that any asker gets the same answer."""
    return not _PERSONAL.search(text) or bool(_HOW_TO.search(text))
