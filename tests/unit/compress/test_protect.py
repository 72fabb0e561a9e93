"""Code, JSON, markup, tables and numbers are recognised; prose is not taken for them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.compress.protect import blocks, kind, normative, urgent

PROSE = (
    "The harbour froze in January, and the ferries stopped. For three weeks the island lived on what it had stored.\n"
    "Then, on the 3rd of February, a breaker arrived; it cost 40,000 crowns a day (and was worth it).\n\n"
    "Everyone remembers the first orange. It was shared by a class of 12 children: nobody got more than a slice."
)
PYTHON = "import os\n\ndef total(rows):\n    result = 0\n    for row in rows:\n        result += row.price\n    return result\n"
JAVASCRIPT = "const rows = [];\nfunction add(row) {\n  rows.push(row);\n  return rows.length;\n}\n"
SQL = "SELECT name, price\nFROM rows\nWHERE price > 10\nORDER BY price;\n"
YAML = "name: harbour\nports:\n  - 8080\nlimits:\n  memory: 1Gi\n  cpu: 2\n"
MARKDOWN_TABLE = "| port | ships |\n|---|---|\n| Aarvik | 12 |\n| Bodal | 7 |\n"
TAB_TABLE = "port\tships\tyear\nAarvik\t12\t1990\nBodal\t7\t1991\n"
ALIGNED = "port       ships     year\nAarvik        12     1990\nBodal          7     1991\n"
CSV = "port,ships,year\nAarvik,12,1990\nBodal,7,1991\n"
NUMBERS = "12.5 13.1 14.0\n15.2 11.9 10.4\n9.8 8.1 7.7\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (PROSE, None),
        ("One line of prose.", None),
        ("", None),
        (json.dumps({"a": [1, 2, {"b": None}]}), "json"),
        (json.dumps([{"a": 1}] * 3, indent=2), "json"),
        ('{"a": 1}\n{"a": 2}\n', "json"),
        ("[" * 50_000 + "]" * 50_000, "json"),
        ("<html><body><p>Hello</p></body></html>", "markup"),
        ("<?xml version='1.0'?><a><b/></a>", "markup"),
        (PYTHON, "code"),
        (JAVASCRIPT, "code"),
        (SQL, "code"),
        (YAML, "code"),
        (MARKDOWN_TABLE, "table"),
        (TAB_TABLE, "table"),
        (ALIGNED, "table"),
        (CSV, "table"),
        (NUMBERS, "numbers"),
    ],
)
def test_kind(text: str, expected: str | None) -> None:
    assert kind(text) == expected


@pytest.mark.parametrize(
    "block", [f"```\n{PROSE}\n```\n", f"~~~sh\n{PYTHON}~~~\n", MARKDOWN_TABLE, TAB_TABLE, ALIGNED, CSV, '{"port": "Aarvik"}\n', NUMBERS]
)
def test_a_block_inside_prose_is_protected_as_one(block: str) -> None:
    text = f"{PROSE}\n{block}{PROSE}"
    assert blocks(text) == [(f"{PROSE}\n", False), (block, True), (PROSE, False)]


def test_an_open_fence_protects_the_rest() -> None:
    assert blocks(f"Look:\n```\n{PROSE}")[-1] == (f"```\n{PROSE}", True)


def test_one_line_with_wide_gaps_is_no_table() -> None:
    assert blocks("Chapter one       The harbour       12\nIt was cold.\n") == [
        ("Chapter one       The harbour       12\nIt was cold.\n", False)
    ]


@given(
    st.text(max_size=300)
    | st.lists(st.sampled_from([*PROSE.splitlines(keepends=True), PYTHON, CSV, "```\n", "\r\n", "\x0b", "| a | b |\n"])).map("".join)
)
def test_put_together_the_blocks_are_the_text(text: str) -> None:
    assert "".join(piece for piece, _ in blocks(text)) == text


@pytest.mark.parametrize(
    "sentence", ["IMPORTANT: close the valve.", "You must NOT open it.", "WARNING! Hot.", "ВНИМАНИЕ: горячо.", "警告：高温。"]
)
def test_urgent(sentence: str) -> None:
    assert urgent(sentence)


@pytest.mark.parametrize("sentence", ["It is an important harbour.", "The warning light is green.", "NOTHING is lost.", "A MUSTARD field."])
def test_not_urgent(sentence: str) -> None:
    assert not urgent(sentence)


@pytest.mark.parametrize(
    "sentence",
    [
        "Tenants may not keep dogs.",
        "Don't open it.",
        "Nur mit Helm betreten.",
        "Ne pas ouvrir.",
        "Не открывать.",
        "请勿打开，除非有许可。",
        "No refunds except in May.",
    ],
)
def test_normative(sentence: str) -> None:
    assert normative(sentence)
    assert not normative("The harbour froze in January.")
