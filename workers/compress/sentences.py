"""Cuts a text into sentences that, put together again, are the text byte for byte. Pure; any text will do.

A sentence ends at a line break, at `.`, `!` or `?` before a space and the start of another sentence, or at one of the full stops of
Chinese, Japanese, Hindi and Arabic. The white space after it belongs to it. Cutting too rarely is safe (a longer sentence is kept or
dropped whole), so known abbreviations and initials do not end one.
"""

from __future__ import annotations

import re
from itertools import pairwise

_END = re.compile(
    r"""
    (?:[.!?…]+ ["'”’»)\]]* [^\S\n]+ (?=["'“‘«(\[]* [^\W_a-zа-яё])   # Latin, Cyrillic, Greek: the next one begins with a capital or a digit
     | [。！？｡।؟]+ ["'”’」』）)]* [^\S\n]*                            # scripts whose full stop needs no space
    )
    | [^\S\n]* \n\s*                                                # a line
    """,
    re.X,
)
_NO_END = re.compile(
    r"(?:^|[\s(\[\"'“‘])(?:[^\W\d_]|\w\.\w|Mr|Mrs|Ms|Dr|Prof|St|Jr|Sr|Gen|Col|Lt|Sgt|Rev|vs|etc|cf|al|No|Nos|Art|Sec|Fig|Figs|Vol|pp?|ca|approx|Inc|Ltd|Co|Corp|Jan|Feb"
    r"|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec|bzw|Nr|Abs|Bd|Hr|Fr|Mme|Mlle|Sra?|Ud|гг?|им|ул|св|рис|стр|тыс|млн)\.$"
)
_LOOK_BACK = 12


def sentences(text: str) -> list[str]:
    """The sentences in order; `"".join(sentences(text)) == text`. White space before the first one belongs to the first."""
    cuts = [0]
    for end in _END.finditer(text):
        before = text[max(0, end.start() - _LOOK_BACK) : end.start() + 1]
        if "\n" not in end[0] and end[0].startswith(".") and _NO_END.search(before):
            continue
        if text[cuts[-1] : end.start()].strip():
            cuts.append(end.end())
    if cuts[-1] < len(text):
        cuts.append(len(text))
    return [text[a:b] for a, b in pairwise(cuts)]
