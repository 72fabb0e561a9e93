"""The words of a text as search terms: folded, without endings, in any script. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u0e00-\u0eff]+|[^\W_]+(?:['’][^\W_]+)*")
_UNSPACED = re.compile(r"[\u0e00-\u9fff\uf900-\ufaff]")
STEM = 6
"""Characters of a word that count. Cutting is a stemmer for every alphabet at once: it joins the forms of inflected languages."""


def terms(text: str) -> Iterator[str]:
    """Words of spaced scripts cut to their stem; of Chinese, Japanese and Thai, each pair of neighbouring characters."""
    for match in _WORD.finditer(text.casefold()):
        word = match[0]
        if _UNSPACED.match(word):
            yield from (word[i : i + 2] for i in range(max(len(word) - 1, 1)))
        else:
            yield word.removesuffix("'s").removesuffix("’s")[:STEM]
