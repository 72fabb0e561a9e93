"""How patterns and word lists are written down here. A broken pattern fails at import."""

from __future__ import annotations

import re
from collections.abc import Iterator

EDGES = (r"\b", "^", "")
"""How an alternative can begin: at the edge of a word, at the beginning of the text, anywhere."""


def any_of(*alternatives: str) -> re.Pattern[str]:
    """One pattern that finds any of them. Those that begin alike are tried together, so that most places of a text are done with after
    one look: hundreds of alternatives that each look for themselves take several times as long."""
    split = [branch for each in alternatives for branch in branches(each)]
    grouped = ((edge, [b.removeprefix(edge) for b in split if edge == _edge(b)]) for edge in EDGES)
    return re.compile("|".join(f"{edge}(?:{'|'.join(rest)})" for edge, rest in grouped if rest))


def _edge(branch: str) -> str:
    return next(edge for edge in EDGES if branch.startswith(edge))


def branches(pattern: str) -> Iterator[str]:
    """The alternatives of a pattern's outermost level."""
    begin, depth = 0, 0
    for token in _TOKEN.finditer(pattern):
        depth += {"(": 1, ")": -1}.get(token[0], 0)
        if token[0] == "|" and not depth:
            yield pattern[begin : token.start()]
            begin = token.end()
    yield pattern[begin:]


_TOKEN = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|[()|]", re.S)
"""What can hold or be one of the characters `(`, `)` and `|`: an escape, a set of characters, the characters themselves."""


def words(text: str) -> frozenset[str]:
    """The words of a text, as a set."""
    return frozenset(text.split())
