"""How the provider counts tokens: pieces of at most seven word characters, and every other sign on its own.

Not a real tokenizer and not the fleet's own count: the two differ, as they do in life, and both are deterministic.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

PER_MESSAGE = 4
"""Tokens that a chat message costs beside its text."""

_PIECE = re.compile(r"\w{1,7}|[^\w\s]")


def count(text: str) -> int:
    return sum(1 for _ in _PIECE.finditer(text))


def first(text: str, tokens: int) -> str:
    """The beginning of `text` that costs `tokens`; all of it when it costs no more."""
    for n, piece in enumerate(_PIECE.finditer(text), 1):
        if n > tokens:
            return text[: piece.start()].rstrip()
    return text


def text_of(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    return "\n".join(part["text"] for part in content or () if isinstance(part.get("text"), str))


def prompt(messages: Sequence[Mapping[str, Any]]) -> int:
    return sum(count(text_of(m)) + PER_MESSAGE for m in messages)
