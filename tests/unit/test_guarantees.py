"""docs/guarantees.md names the tests of every promise, and those exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "guarantees.md").read_text()
NAMED = sorted(
    {*re.findall(r"`(tests/[\w/]+\.py(?:::\w+)?)", PAGE), *(f"tests/crash/{name}" for name in re.findall(r"`(test_\w+\.py::\w+)", PAGE))}
)


@pytest.mark.parametrize("named", NAMED)
def test_a_test_that_is_named_exists(named: str) -> None:
    path, _, test = named.partition("::")
    text = (ROOT / path).read_text()
    assert not test or re.search(rf"^ *(async )?def {test}\(", text, re.MULTILINE)


def test_every_promise_names_tests() -> None:
    promised = re.findall(r"^(\d)\. \*\*", PAGE, re.MULTILINE)
    assert promised == re.findall(r"^\| (\d) \| .*`tests/", PAGE, re.MULTILINE)


def test_every_case_of_the_budgets_exists() -> None:
    section = PAGE.partition("## Budgets under fire")[2].partition("\n## ")[0]
    cases = {case for row in re.findall(r"^\| [^|]+ \| ([^|]+) \| \w+ \|$", section, re.MULTILINE) for case in re.findall(r"`(\w+)`", row)}
    there = "\n".join(path.read_text() for path in (ROOT / "tests/unit/ledger/budgets").glob("test_*.py"))
    assert cases
    assert {case for case in cases if not re.search(rf"^ *(async )?def test_{case}\(", there, re.MULTILINE)} == set()
