"""`scrimp report` as a command: what it prints, and that it reads only what is there."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.unit.ledger.scenario import ask, ending, settlement
from workers.cli.main import app
from workers.ledger.ledger import Ledger
from workers.ledger.migrate import LedgerNotReady, upgrade


@pytest.fixture
def ledger_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    url = f"sqlite+aiosqlite:///{tmp_path}/scrimp.db"
    monkeypatch.setenv("SCRIMP_LEDGER__URL", url)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.chdir(tmp_path)
    return url


async def fill(url: str) -> None:
    await upgrade(url)
    ledger = Ledger(url, heartbeat_s=5, stale_s=15, keep_days=7, pool_size=1)
    await ledger.start()
    for i, tenant in enumerate(("acme", "umbrella", "[red]soylent", "acme")):
        await ledger.open([ask(f"r{i}", tenant=tenant)])
        await ledger.settle([settlement(f"r{i}", tenant=tenant, cost=f"0.00{i}1")])
        await ledger.end([ending(f"r{i}", tenant=tenant)])
    await ledger.close()


def test_json_is_one_document(ledger_url: str) -> None:
    asyncio.run(fill(ledger_url))
    done = CliRunner().invoke(app, ["report", "--json"])
    told = json.loads(done.stdout)
    assert (done.exit_code, done.stderr) == (0, "")
    assert list(told["by"]) == ["tenant", "feature", "user", "experiment", "tier", "model", "purpose", "window", "lever"]
    assert (told["total"]["requests"], told["total"]["spent_usd"], told["timezone"]) == (4, "0.0064", "UTC")
    assert [(t["tenant"], t["spent_usd"]) for t in told["by"]["tenant"]] == [
        ("acme", "0.0032"),
        ("[red]soylent", "0.0021"),
        ("umbrella", "0.0011"),
    ]


def test_tables_show_the_dearest_and_what_the_others_come_to(ledger_url: str) -> None:
    asyncio.run(fill(ledger_url))
    done = CliRunner().invoke(app, ["report", "--by", "tenant", "--by", "lever", "--top", "2"])
    assert done.exit_code == 0
    lines = [line.split() for line in done.stdout.splitlines() if line.strip()]
    firsts = [line[0] for line in lines]
    assert firsts == ["all", "4", "tenant", "acme", "[red]soylent", "1", "lever", "routing", "cache", "compression", "batch"]
    assert lines[5] == ["1", "more", "1", "0", "1", "0.0011", "0", "0.01", "0.0089"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--by", "colour"), "'colour' is not one of tenant"),
        (("--window", "week"), "'week' is not one of minute"),
        (("--since", "yesterday"), "'yesterday' is not a date or time"),
    ],
)
def test_what_cannot_be_asked(ledger_url: str, options: tuple[str, ...], told: str) -> None:
    done = CliRunner().invoke(app, ["report", *options])
    assert (done.exit_code, done.stdout) == (2, "")
    assert told in done.stderr


def test_without_a_ledger_nothing_is_made(ledger_url: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["report", "--json"])
    assert isinstance(done.exception, LedgerNotReady)  # which `main` turns into one line and exit code 1
    assert (done.stdout, list(tmp_path.iterdir())) == ("", [])
