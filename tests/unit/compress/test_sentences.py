"""Sentences are cut where a reader would cut them, and are the text when put together again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.compress.sentences import sentences

PIECES = [
    "The hall was cold.",
    " ",
    "\n",
    "\n\n",
    "Dr. Lund",
    "e.g. ",
    "3.14",
    "“Yes.” ",
    "雨が降る。",
    "Почему? ",
    "x",
    ".",
    "\r\n",
    "\t",
    "\u2028",
]


@given(st.text(max_size=300) | st.lists(st.sampled_from(PIECES)).map("".join))
def test_put_together_they_are_the_text(text: str) -> None:
    cut = sentences(text)
    assert "".join(cut) == text
    assert all(part.strip() for part in cut) or not text.strip()


@pytest.mark.parametrize(
    "parts",
    [
        ["The mill burned down. ", "Nobody was hurt! ", "Who set the fire?"],
        ["He paid 3.50 to Dr. Lund of St. Olaf. ", "Then he left."],
        ["J. R. Moore wrote it, cf. Fig. 3. ", "It sold well."],
        ["“Stay here.” ", "She went on."],
        ["Первый снег выпал рано. ", "Никто не ждал."],
        ["河水上涨。", "桥被冲走了！", "人们离开了。"],
        ["Die Brücke ist bzw. war gesperrt. ", "Über Nacht fiel Schnee."],
        ["A heading\n", "The text begins. ", "It ends.\n\n", "Another paragraph"],
        ["- first item\n", "- second item\n", "1. third item"],
        ["The committee that met on that evening in the old town hall of\nLower Bridge decided nothing.\n", "It met again."],
        ["a short line\nwith a small letter after it.\n", "End"],
    ],
)
def test_cuts(parts: list[str]) -> None:
    assert sentences("".join(parts)) == parts
