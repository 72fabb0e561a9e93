"""How patterns and word lists are written down here. A broken pattern fails at import."""

from __future__ import annotations

import re


def any_of(*alternatives: str) -> re.Pattern[str]:
    """One pattern that finds any of them."""
    return re.compile("|".join(f"(?:{a})" for a in alternatives))


def words(text: str) -> frozenset[str]:
    """The words of a text, as a set."""
    return frozenset(text.split())
