"""`scrimp forget` as a command: it asks, it erases, and its exit code says whether anything is left."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.unit.ledger.scenario import ask, ending, execute, settlement
from workers.cli.main import app
from workers.ledger.ledger import Ledger
from workers.ledger.migrate import LedgerNotReady, upgrade


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    url = f"sqlite+aiosqlite:///{tmp_path}/scrimp.db"
    monkeypatch.setenv("SCRIMP_LEDGER__URL", url)
    monkeypatch.setenv("SCRIMP_QDRANT__PATH", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return url


async def fill(url: str, *, end: bool = True) -> None:
    await upgrade(url)
    ledger = Ledger(url, heartbeat_s=5, stale_s=15, keep_days=7, pool_size=1)
    await ledger.start()
    await ledger.open([ask("r", user="u-42")])
    await ledger.settle([settlement("r")])
    if end:
        await ledger.end([ending("r", user="u-42")])
    await ledger.close()


def responses(url: str) -> list[bytes | None]:
    return [row.response for row in asyncio.run(execute(url, "SELECT response FROM request"))]


def forget(*options: str, answers: str = "") -> Result:
    return CliRunner().invoke(app, ["forget", *options], input=answers)


def test_it_erases_and_may_be_repeated(url: str) -> None:
    asyncio.run(fill(url))
    done = forget("--tenant", "acme", "--user", "u-42", "--yes")
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "ledger: 1 requests erased; 0 counters and alerts no longer name user u-42 of tenant acme",
        "cache: 0 entries erased",
    ]
    assert responses(url) == [None]
    assert forget("--tenant", "acme", "--user", "u-42", "--yes").stdout.startswith("ledger: 0 requests")


def test_it_asks_first(url: str) -> None:
    asyncio.run(fill(url))
    for answers in ("n\n", ""):
        done = forget("--tenant", "acme", answers=answers)
        assert done.exit_code == 1
        assert "Erase what was said in 1 requests of tenant acme? This cannot be undone" in done.output
    assert responses(url) == [b"response"]
    assert forget("--tenant", "acme", answers="y\n").exit_code == 0
    assert responses(url) == [None]


def test_a_cache_in_the_memory_of_another_process(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asyncio.run(fill(url))
    monkeypatch.delenv("SCRIMP_QDRANT__PATH")
    done = forget("--tenant", "acme", "--yes")
    assert done.exit_code == 1
    assert responses(url) == [None]
    (line,) = done.stderr.splitlines()
    assert line.startswith("scrimp: left: cache entries, if `cache` runs, are in its own memory: restart it, or wait until they expire")


def test_a_cache_that_is_down(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asyncio.run(fill(url))
    monkeypatch.setenv("SCRIMP_QDRANT__URL", "http://127.0.0.1:1")
    done = forget("--tenant", "acme", "--yes")
    assert (done.exit_code, responses(url)) == (1, [None])
    assert done.stderr.startswith("scrimp: left: cache entries: qdrant: ")


def test_what_is_under_way_is_left(url: str) -> None:
    asyncio.run(fill(url, end=False))
    done = forget("--tenant", "acme", "--user", "u-42", "--yes")
    assert done.exit_code == 1
    assert done.stderr == "scrimp: left: 1 requests have not ended, and their answers are still owed; forget again when they have\n"


@pytest.mark.parametrize("options", [("--tenant", "a/b"), ("--tenant", "acme", "--user", ""), ("--tenant", "acme", "--user", "a\nb"), ()])
def test_ids_that_nobody_has(url: str, options: tuple[str, ...]) -> None:
    assert forget(*options, "--yes").exit_code == 2


def test_without_a_ledger(url: str) -> None:
    assert isinstance(forget("--tenant", "acme", "--yes").exception, LedgerNotReady)
