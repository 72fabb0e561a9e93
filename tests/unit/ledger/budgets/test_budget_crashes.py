"""Budgets and kill -9: reserved money stays booked, nothing is counted twice, no call is made that the books do not show.

The same cuts on Kafka, through whole workers: tests/crash.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

from tests.servers.process import Process
from tests.unit.ledger.budgets.dying import deliver
from tests.unit.ledger.conftest import Start
from tests.unit.ledger.scenario import counters, drift, execute
from workers.ledger.verify import verify
from workers.outcomes import Retry

COST = 20 * 10**4
"""12 and 8 tokens at a dollar a million, in units of 1e-10 dollars."""


async def killed(url: str, log: Path, point: str) -> None:
    command = (sys.executable, "-m", "tests.unit.ledger.budgets.dying", url, str(log), point)
    process = Process(command, log.with_suffix(".said"), lambda: False, folder=Path(__file__).parents[4], forked=True)
    process.launch()
    while process.running:  # noqa: ASYNC110  looked at from outside on purpose
        await asyncio.sleep(0.01)
    assert process.ended(1) == -signal.SIGKILL


async def books(url: str) -> tuple[list[str], tuple[int, int]]:
    """The states of the attempts; (reserved, spent) of the fleet. Everything else is as it should be."""
    assert await drift(url) == {}
    rows = await execute(url, "SELECT state FROM attempt ORDER BY n")
    return [row.state for row in rows], (await counters(url))["{}", "usd", "month"]


async def silent(url: str) -> None:
    """The dead one's heartbeat is found to be old."""
    then = "datetime('now', '-1 day')" if "sqlite" in url else "now() - interval '1 day'"
    await execute(url, f"UPDATE worker SET beat = {then} WHERE id LIKE 'victim%'")


def billed(log: Path) -> int:
    return len(log.read_text().splitlines()) if log.exists() else 0


async def taken_over(start: Start, url: str, log: Path, before: int) -> None:
    """Whoever gets the request next is held; once the dead one is stale, its attempt is unconfirmed, and the next one answers."""
    states, (worst, spent) = await books(url)
    assert (states, spent, billed(log)) == (["reserved"], 0, before)
    assert worst > COST
    heir = await start("heir")
    assert isinstance(await deliver(heir, log), Retry)
    assert (billed(log), (await books(url))[1]) == (before, (worst, 0))
    await silent(url)
    assert isinstance(await deliver(heir, log), bytes)
    assert await books(url) == (["unconfirmed", "settled"], (0, worst + COST))
    assert billed(log) == before + 1
    assert (await verify(url, stale_s=600, grace_s=0, keep_days=7)).problems == []


async def test_crash_between_reserve_and_call(start: Start, url: str, tmp_path: Path) -> None:
    await killed(url, tmp_path / "log", "opened")
    await taken_over(start, url, tmp_path / "log", before=0)


async def test_crash_between_call_and_settle(start: Start, url: str, tmp_path: Path) -> None:
    await killed(url, tmp_path / "log", "called")
    await taken_over(start, url, tmp_path / "log", before=1)


async def answered_again(start: Start, url: str, log: Path) -> None:
    assert await books(url) == (["settled"], (0, COST))
    heir = await start("heir")
    first = await deliver(heir, log)
    if isinstance(first, bytes):
        assert b"Ninety-eight" in first
    assert await books(url) == (["settled"], (0, COST))
    assert billed(log) == 1
    assert (await verify(url, stale_s=600, grace_s=0, keep_days=7)).problems == []


async def test_crash_between_settle_and_publish(start: Start, url: str, tmp_path: Path) -> None:
    """The answer in the books goes out."""
    await killed(url, tmp_path / "log", "settled")
    await answered_again(start, url, tmp_path / "log")


async def test_crash_between_settle_and_commit(start: Start, url: str, tmp_path: Path) -> None:
    """The ending is in the books and is read again: the stored bytes, and no second call."""
    await killed(url, tmp_path / "log", "ended")
    (stored,) = await execute(url, "SELECT response FROM request")
    assert b"Ninety-eight" in stored.response
    await answered_again(start, url, tmp_path / "log")
    assert await execute(url, "SELECT response FROM request") == [stored]


async def test_sigkill_loses_nothing(url: str, tmp_path: Path) -> None:
    """What the ledger has said yes to is in the database: there is no queue in the process that could be lost with it."""
    await killed(url, tmp_path / "log", "settled")
    assert await books(url) == (["settled"], (0, COST))


async def test_shutdown_flushes(start: Start, url: str, tmp_path: Path) -> None:
    """A stop leaves nothing to write, and nothing that anybody must wait for. Of whole workers: tests/kafka/test_stop.py."""
    worker = await start("worker")
    assert isinstance(await deliver(worker, tmp_path / "log"), bytes)
    await worker.close()
    assert await books(url) == (["settled"], (0, COST))
    assert await execute(url, "SELECT 1 FROM worker") == []
