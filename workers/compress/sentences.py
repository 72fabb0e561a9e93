"""Cuts a text into sentences that, put together again, are the text byte for byte. Pure; any text will do.

A sentence ends at a blank line, at the end of a line that is not merely wrapped, at `.`, `!` or `?` before a space and the start of
another sentence, or at a full stop of Chinese, Japanese, Hindi or Arabic. The white space after it belongs to it. Cutting too rarely
is safe (a longer sentence is kept or dropped whole), so known abbreviations and initials do not end one.
"""

from __future__ import annotations

import re
from itertools import pairwise

_END = re.compile(
    r"""
      (?<![.!?…]) [.!?…]++ ["'”’»)\]]*+ [^\S\n]++ (?=["'“‘«(\[]*+ [^\W_a-zа-яё])   # spaced: before a capital or a digit
    | (?<![。！？｡।؟]) [。！？｡।؟]++ ["'”’」』）)]*+ [^\S\n]*+                           # full stops that need no space
    | (?<![^\S\n]) [^\S\n]*+ \n\s*+                                                # a line
    """,
    re.VERBOSE,
)
"""Possessive, and begun only where a run begins: a page of dots or blanks must cost no more than a page of prose."""
_ABBREVIATED = re.compile(
    r"(?:^|[\s(\[\"'“‘])(?:[^\W\d_]|\w\.\w|Mr|Mrs|Ms|Dr|Prof|St|Jr|Sr|Gen|Col|Lt|Sgt|Rev|vs|etc|cf|al|Nos?|Art|Sec|Figs?|Vol|pp?|ca|approx"
    r"|Inc|Ltd|Co|Corp|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec|bzw|Nr|Abs|Bd|Hr|Fr|Mme|Mlle|Sra?|Ud|гг?|им|ул|св|рис|стр|тыс|млн)\.$"
)
_LOOK_BACK = 12
"""Characters: longer than the longest abbreviation."""

WRAPPED = 60
"""Characters. A line at least this long that ends without punctuation was broken by its width, not by its author."""


def sentences(text: str) -> list[str]:
    """The sentences in order; `"".join(sentences(text)) == text`. White space before the first one belongs to the first."""
    cuts = [0]
    for end in _END.finditer(text):
        if text[cuts[-1] : end.start()].strip() and not _goes_on(text, end):
            cuts.append(end.end())
    if text[cuts[-1] :].strip() or (text and len(cuts) == 1):
        cuts.append(len(text))
    cuts[-1] = len(text)
    return [text[a:b] for a, b in pairwise(cuts)]


def _goes_on(text: str, end: re.Match[str]) -> bool:
    """Whether the sentence goes on behind what looked like its end."""
    if end[0].count("\n") == 1:
        line = text[text.rfind("\n", 0, end.start()) + 1 : end.start()]
        following = text[end.end() : end.end() + 1]
        return line[-1:] not in set(".!?:;。！？…") and (following.islower() or (len(line) >= WRAPPED and following.isalnum()))
    return end[0].startswith(".") and bool(_ABBREVIATED.search(text[max(0, end.start() - _LOOK_BACK) : end.start() + 1]))
