"""`scrimp ledger verify` as a process. What it finds is in `tests/unit/ledger/test_verify.py`."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import closing
from pathlib import Path

from tests.unit.cli.test_main import scrimp
from workers.ledger.migrate import upgrade

A_COUNTER = """\
INSERT INTO budget_usage (scope, kind, "window", starts_at, spent) VALUES ('{}', 'usd', 'day', '2026-03-01 00:00:00.000000', 15000000000)"""


def test_without_a_ledger_there_is_nothing_to_verify(tmp_path: Path) -> None:
    result = scrimp(tmp_path, "ledger", "verify", "--json")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "scrimp: there is no ledger at scrimp.db; `scrimp ledger upgrade` makes one\n"
    assert not list(tmp_path.iterdir())


def test_right_books_are_exit_0_and_wrong_ones_exit_1(tmp_path: Path) -> None:
    asyncio.run(upgrade(f"sqlite+aiosqlite:///{tmp_path / 'scrimp.db'}"))
    result = scrimp(tmp_path, "ledger", "verify", "--json")
    right = {"requests": 0, "attempts": 0, "by_state": {"reserved": 0, "settled": 0, "unconfirmed": 0, "abandoned": 0}}
    right |= {"spent_usd": "0", "unconfirmed_usd": "0", "problems": []}
    assert (result.returncode, json.loads(result.stdout), result.stderr) == (0, right, "")
    with closing(sqlite3.connect(tmp_path / "scrimp.db")) as connection:
        connection.execute(A_COUNTER)
        connection.commit()
    problem = "counter {} usd/day from 2026-03-01 00:00:00+00:00: spent is $1.5, expected $0 (by its attempts)"
    result = scrimp(tmp_path, "ledger", "verify", "--json")
    assert (result.returncode, json.loads(result.stdout)["problems"], result.stderr) == (1, [problem], "")
    result = scrimp(tmp_path, "ledger", "verify")
    assert (result.returncode, result.stderr) == (1, "")
    assert result.stdout.splitlines()[-2:] == [f"PROBLEM {problem}", "the books are wrong"]
