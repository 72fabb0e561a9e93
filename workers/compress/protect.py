"""What must come out byte for byte: code, JSON, markup, tables, columns of numbers; and sentences that carry an order. Pure.

A wrong "protected" costs a few tokens, a wrong "prose" breaks a program or a table: doubt means protected.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from typing import Literal

LINE_END = 200
"""Characters looked at from each end of a line."""

SHORT_CELL = 25
"""Characters a cell of comma-separated values has on average at most; clauses of prose are longer."""

Kind = Literal["json", "markup", "code", "table", "numbers"]

_MARKUP = re.compile(r"^\s*<(?:\?xml|!DOCTYPE|[a-zA-Z][\w:.-]*(?:\s[^<>]*)?/?>)", re.I)
_CODE_LINE = re.compile(
    r"""
      [{};]\s*$ | ^\s*[})\]]+[;,]?\s*$                                      # C, Java, JavaScript, Rust, Go, SQL
    | ^\s*(?:def|class|async\ def|with|for|while|if|elif|else|try|except)\b.*:\s*(?:\#.*)?$   # Python
    | ^\s*(?:import|from|return|raise|yield|assert|const|let|var|func|fn|public|private|static|package|using|struct|enum|impl)\b.*[\w)"';{]$
    | ^\s*(?:\#include|\#define|\#!|//|/\*|\*/|--\s|@\w+)
    | ^\s*(?:SELECT|INSERT|UPDATE|DELETE|CREATE|ALTER|FROM|WHERE|JOIN|GROUP\ BY)\b
    | ^\s*\$\s+\S | ^\s*[\w.\[\]"']+\s*(?:=|:=|\+=|->|=>)\s*\S
    | ^\s*[\w.]+\(.*\)[;:]?\s*$
    """,
    re.X,
)
_KEY_VALUE = re.compile(r"^\s*(?:-\s+)?[\w.\"'-]+:(?:\s+\S.{0,60})?$")
_TABLE_LINE = re.compile(r"\|.*\||\S\t+\S|\S {3,}\S.*\S {3,}\S|\S {4,}[-+(]?[$€£]?\d[\d.,%)]*$|^\s*[|+]?[-=+|: ]{5,}$")
_NUMBER_LINE = re.compile(r"^(?=\D*\d)[\s\d.,;:%€$£+/()eE-]++$")
_FENCE = re.compile(r"^\s*(```|~~~)")
_INDENTED = re.compile(r"^(?: {4}|\t)\s*\S")
_URGENT = re.compile(
    r"\b(?:IMPORTANT|WARNING|CAUTION|DANGER|MUST|SHALL|NEVER|NOT|ONLY|REQUIRED|PROHIBITED)\b|(?:ВАЖНО|ВНИМАНИЕ|ACHTUNG|WICHTIG)\b|警告|务必|严禁"
)
_NORMATIVE = re.compile(
    r"\b(?:not|never|must|shall|only|except|unless|without|cannot|may not|prohibited|forbidden|required|mandatory"
    r"|nicht|kein\w*|niemals|nie|muss|müssen|nur|außer|verboten|ne|jamais|doit|doivent|seulement|sauf|interdit"
    r"|no|nunca|debe|deben|solo|sólo|excepto|salvo|prohibido|не|никогда|должен|должны|только|кроме|запрещено)\b|n['’]t\b|不|必须|只|禁止|除",
    re.I,
)


def kind(text: str) -> Kind | None:
    """What a whole document is, where it is to be left alone; None for prose, and for prose with such blocks in it."""
    stripped = text.strip()
    if _is_json(stripped):
        return "json"
    if _MARKUP.match(stripped) and stripped.endswith(">"):
        return "markup"
    lines = [_ends(line) for line in stripped.splitlines() if line.strip()]
    if _share(_NUMBER_LINE, lines) >= 0.6:
        return "numbers"
    if len(lines) >= 2 and sum(_table_rows(lines)) >= 0.6 * len(lines):
        return "table"
    if len(lines) >= 3 and (_share(_CODE_LINE, lines) >= 0.4 or _share(_KEY_VALUE, lines) >= 0.6):
        return "code"
    return None


def urgent(sentence: str) -> bool:
    """It says IMPORTANT, WARNING, NEVER, … in capitals: it is always kept."""
    return bool(_URGENT.search(sentence))


def normative(sentence: str) -> bool:
    """It forbids, demands or makes an exception: among equals it is kept first."""
    return bool(_NORMATIVE.search(sentence))


def blocks(text: str) -> list[tuple[str, bool]]:
    """The text in order as (piece, protected): fenced and indented code, tables, JSON and number lines are protected, prose is not.
    Put together the pieces are the text."""
    lines = text.splitlines(keepends=True)
    runs = groupby(zip(lines, _protected(lines), strict=True), key=itemgetter(1))
    return [("".join(line for line, _ in run), protected) for protected, run in runs]


def _protected(lines: Sequence[str]) -> list[bool]:
    row = _table_rows([_ends(line.rstrip()) for line in lines])
    protected: list[bool] = []
    fence: str | None = None
    for n, line in enumerate(lines):
        mark = _FENCE.match(line)
        if fence is None and mark:
            fence = mark[1]
            protected.append(True)
        elif fence is not None:
            fence = None if mark and mark[1] == fence else fence
            protected.append(True)
        else:
            protected.append(row[n] or _line_protected(line.rstrip()))
    return protected


def _table_rows(lines: Sequence[str]) -> list[bool]:
    """Rows come in runs: two lines with columns, or three with the same number of commas or semicolons. A single line with wide
    gaps is a heading or a justified paragraph."""
    rows = [False] * len(lines)
    for signs, least in (([bool(_TABLE_LINE.search(line)) for line in lines], 2), ([_separators(line) for line in lines], 3)):
        start = 0
        for sign, run in groupby(signs):
            end = start + sum(1 for _ in run)
            if sign and end - start >= least:
                rows[start:end] = [True] * (end - start)
            start = end
    return rows


def _separators(line: str) -> tuple[str, int] | None:
    """The separator of a line of short cells, and how often it occurs; None where it has no such look."""
    for mark in (";", ",", "|", "\t"):
        n = line.count(mark)
        if n >= 2 and len(line) < SHORT_CELL * (n + 1) and not line.endswith((".", "!", "?")):
            return mark, n
    return None


def _line_protected(line: str) -> bool:
    ends = _ends(line)
    return bool(_NUMBER_LINE.match(ends) or _INDENTED.match(ends) or _CODE_LINE.search(ends)) or _is_json(line.strip())


def _ends(line: str) -> str:
    """The line, or both ends of a very long one: what it is shows there, and patterns stay cheap."""
    return line if len(line) <= 2 * LINE_END else f"{line[:LINE_END]} {line[-LINE_END:]}"


def _is_json(text: str) -> bool:
    """An object or an array, one a line as well (JSON lines)."""
    if not text or text[0] not in "{[" or text[-1] not in "}]":
        return False
    try:
        json.loads(text)
    except RecursionError:
        return True
    except ValueError:
        lines = text.splitlines()
        return len(lines) > 1 and all(_is_json(line.strip()) for line in lines if line.strip())
    return True


def _share(pattern: re.Pattern[str], lines: list[str]) -> float:
    return sum(1 for line in lines if pattern.search(line)) / max(len(lines), 1)
