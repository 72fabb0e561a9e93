"""What must come out byte for byte: code, JSON, markup, tables, columns of numbers; and sentences that carry an order. Pure.

A wrong "protected" costs a few tokens, a wrong "prose" breaks a program or a table: doubt means protected.
"""

from __future__ import annotations

import json
import re
from typing import Literal

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
_TABLE_LINE = re.compile(r"\|.*\||\t.*\S|\S {2,}\S.* {2,}\S|^\s*[|+]?[-=+|: ]{5,}$")
_NUMBER_LINE = re.compile(r"^[\s\d.,;:%€$£+/()eE-]*\d[\s\d.,;:%€$£+/()eE-]*$")
_FENCE = re.compile(r"^\s*(```|~~~)")
_INDENTED = re.compile(r"^(?: {4}|\t)\s*\S")
_URGENT = re.compile(
    r"\b(?:IMPORTANT|WARNING|CAUTION|DANGER|MUST|SHALL|NEVER|NOT|ONLY|REQUIRED|PROHIBITED)\b|(?:ВАЖНО|ВНИМАНИЕ|ACHTUNG|WICHTIG)\b|注意|警告|重要"
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
    lines = [line for line in stripped.splitlines() if line.strip()]
    if _share(_NUMBER_LINE, lines) >= 0.6:
        return "numbers"
    if len(lines) >= 3 and (_share(_TABLE_LINE, lines) >= 0.6 or _is_csv(lines)):
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
    pieces: list[tuple[str, bool]] = []
    fence: str | None = None
    for line in text.splitlines(keepends=True):
        mark = _FENCE.match(line)
        if fence is None and mark:
            fence, protected = mark[1], True
        elif fence is not None:
            fence, protected = (None if mark and mark[1] == fence else fence), True
        else:
            protected = _line_protected(line.rstrip("\r\n"))
        if pieces and pieces[-1][1] == protected:
            pieces[-1] = (pieces[-1][0] + line, protected)
        else:
            pieces.append((line, protected))
    return pieces


def _line_protected(line: str) -> bool:
    return bool(_TABLE_LINE.search(line) or _NUMBER_LINE.match(line) or _INDENTED.match(line) or _CODE_LINE.search(line)) or _is_json(
        line.strip()
    )


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


def _is_csv(lines: list[str]) -> bool:
    """Every line has the same number of the same separator, at least two, and cells are short."""
    for mark in (",", ";", "|", "\t"):
        counts = {line.count(mark) for line in lines}
        if len(counts) == 1 and (n := counts.pop()) >= 2 and sum(map(len, lines)) / len(lines) / (n + 1) < 25:
            return True
    return False


def _share(pattern: re.Pattern[str], lines: list[str]) -> float:
    return sum(1 for line in lines if pattern.search(line)) / max(len(lines), 1)
