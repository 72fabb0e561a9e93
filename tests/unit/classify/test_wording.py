"""How patterns are put together must not change what they find."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.classify.wording import asker, moment, patterns, pointing

TRICKY = (
    r"\bab|^ca*|(?:b|c)d",
    r"^a(?:b|(?:c|d)b)|[|(]x|[^)|]y$",
    r"\(a|b\)|\|c|[]|]d|[^]|]e",
    r"\\|(?<!a)b(?! (?:c|d))",
    "",
)


@given(st.text("abcdexy|()[]\\ ", max_size=12), st.lists(st.sampled_from(TRICKY), min_size=1))
def test_any_of_finds_what_its_alternatives_find(text: str, alternatives: list[str]) -> None:
    assert bool(patterns.any_of(*alternatives).search(text)) == any(re.search(a, text) for a in alternatives)


@pytest.mark.parametrize("pattern", TRICKY)
def test_alternatives_are_told_apart_where_they_are(pattern: str) -> None:
    branches = list(patterns.branches(pattern))
    assert "|".join(branches) == pattern
    for branch in branches:
        re.compile(branch)


def test_the_large_patterns_look_once_at_most_places() -> None:
    for pattern in (moment.STATE, moment.MOMENT, asker.ACT, pointing.POINTS, pointing.CONTINUES):
        edges = [branch for branch in patterns.branches(pattern.pattern) if branch.startswith((r"\b", "^"))]
        assert len(edges) <= 2, pattern.pattern
