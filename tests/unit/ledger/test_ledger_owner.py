"""The heartbeat, and what a worker that lost it may do."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tests.unit.ledger.conftest import Start
from tests.unit.ledger.scenario import execute
from workers.ledger.ledger import Ledger
from workers.outcomes import Unavailable


async def eventually(true: Callable[[], Awaitable[bool]]) -> None:
    while not await true():  # noqa: ASYNC110 - another process, or the database, is what changes
        await asyncio.sleep(0.01)


async def test_a_started_worker_is_fresh_until_it_closes(start: Start) -> None:
    ledger = await start("a")
    assert ledger.fresh
    await ledger.check()
    await ledger.close()
    assert not ledger.fresh


async def test_it_goes_on_beating(start: Start, url: str) -> None:
    ledger = await start("a", heartbeat_s=0.01, stale_s=600)
    (first,) = await execute(url, "SELECT beat, started_at FROM worker")

    async def beaten_again() -> bool:
        (now,) = await execute(url, "SELECT beat, started_at FROM worker")
        return bool(now.beat > first.beat and now.started_at == first.started_at)

    await eventually(beaten_again)
    assert ledger.fresh


async def test_without_a_beat_it_is_fresh_no_longer(start: Start) -> None:
    ledger = await start("a", heartbeat_s=3600, stale_s=1.5)

    async def stale() -> bool:
        return not ledger.fresh

    await eventually(stale)


async def test_two_starts_are_two_owners(start: Start, url: str) -> None:
    one, two = await start("same"), await start("same")
    assert one.owner != two.owner
    assert len(await execute(url, "SELECT 1 FROM worker")) == 2
    await one.close()
    assert [row.id for row in await execute(url, "SELECT id FROM worker")] == [two.owner]


async def test_a_failed_beat_is_reported_and_tried_again(
    start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = await start("a", heartbeat_s=0.01, stale_s=600)
    beats = ledger._beats
    real, failures = beats.transact, iter(range(3))

    async def flaky(work: object, **options: object) -> object:
        if next(failures, None) is not None:
            raise Unavailable("ledger", "connection lost")
        return await real(work, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(beats, "transact", flaky)
    before = ledger._heartbeat._beaten_at

    async def beaten_again() -> bool:
        return ledger._heartbeat._beaten_at != before

    await eventually(beaten_again)
    assert "heartbeat failed: ledger: connection lost" in caplog.text
    await ledger.check()


async def test_a_refused_beat_is_reported_and_tried_again(start: Start, url: str, caplog: pytest.LogCaptureFixture) -> None:
    ledger = await start("a", heartbeat_s=0.01, stale_s=600)
    await execute(url, "ALTER TABLE worker RENAME TO elsewhere")
    try:

        async def refused() -> bool:
            ledger._heartbeat.check()
            return "heartbeat refused: " in caplog.text

        await eventually(refused)
    finally:
        await execute(url, "ALTER TABLE elsewhere RENAME TO worker")
    before = ledger._heartbeat._beaten_at

    async def beaten_again() -> bool:
        return ledger._heartbeat._beaten_at != before

    await eventually(beaten_again)
    await ledger.check()


async def test_a_broken_heartbeat_shows_in_the_check(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = await start("a", heartbeat_s=0.01, stale_s=600)

    async def broken(work: object, **options: object) -> object:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(ledger._beats, "transact", broken)

        async def done() -> bool:
            return ledger._heartbeat._task is not None and ledger._heartbeat._task.done()

        await eventually(done)
    with pytest.raises(ZeroDivisionError):
        await ledger.check()


async def test_a_worker_that_cannot_register_does_not_start() -> None:
    nowhere = "sqlite+aiosqlite:////no/such/folder/ledger.db"
    ledger = Ledger(nowhere, heartbeat_s=5, stale_s=15, keep_days=7, pool_size=1)
    with pytest.raises(Unavailable, match="ledger: there is no folder /no/such/folder"):
        await ledger.start()
    assert not ledger.fresh
    await ledger.close()
