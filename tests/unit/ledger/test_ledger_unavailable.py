"""What counts as unreachable, and what such an error may say."""

from __future__ import annotations

import asyncio
import traceback
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.ext.asyncio import AsyncConnection

from tests.unit.ledger.conftest import Start
from tests.unit.ledger.scenario import HELLO, ask, drift, ending, execute, hold, settlement
from workers.ledger.database import TRIES, Database, make_engine
from workers.ledger.ledger import Ledger
from workers.ledger.types import Granted, Settled
from workers.outcomes import Unavailable


def backends(url: str) -> sa.TextClause:
    return sa.text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid != pg_backend_pid()")


async def test_a_refused_connection() -> None:
    ledger = Ledger("postgresql+asyncpg://scrimp@127.0.0.1:1/none", heartbeat_s=5, stale_s=15, keep_days=7, pool_size=1)
    for reaches in (ledger.start, ledger.check, ledger.sweep, ledger.purge):
        with pytest.raises(Unavailable) as told:
            await reaches()
        assert told.value.dependency == "ledger"
    await ledger.close()


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
@pytest.mark.parametrize(("changed", "code"), [({"database": "dropped"}, "3D000"), ({"username": "barred"}, "28")])
async def test_a_database_that_is_gone_or_lets_nobody_in(url: str, changed: dict[str, str], code: str) -> None:
    other = sa.make_url(url).set(**changed).render_as_string(hide_password=False)  # type: ignore[arg-type]
    ledger = Ledger(other, heartbeat_s=5, stale_s=15, keep_days=7, pool_size=1)
    for reaches in (ledger.start, ledger.check):
        with pytest.raises(Unavailable, match=code):
            await reaches()
    await ledger.close()


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
async def test_a_lost_connection_is_unavailable_once(start: Start, url: str) -> None:
    ledger = await start()
    same = ask("r")
    await ledger.open([same])
    await execute(url, backends(url))
    with pytest.raises(Unavailable, match="connection lost"):
        await ledger.open([same])
    assert await ledger.open([same]) == [Granted(1, ())]


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
async def test_connections_cut_at_random_lose_and_double_nothing(start: Start, url: str) -> None:
    ledger = await start("cut", pool_size=3)
    budget = hold("100")
    asks = [ask(f"r{i}", "1", 10, budget) for i in range(40)]

    async def insistent(i: int) -> None:
        for verb, item in ((ledger.open, asks[i]), (ledger.settle, settlement(f"r{i}", cost="0.5")), (ledger.end, ending(f"r{i}"))):
            while True:
                try:
                    await verb([item])  # type: ignore[operator]
                    break
                except Unavailable:
                    await asyncio.sleep(0.01)

    async def cutter() -> None:
        while True:
            await execute(url, backends(url))
            await asyncio.sleep(0.05)

    cuts = asyncio.create_task(cutter())
    await asyncio.gather(*(insistent(i) for i in range(40)))
    cuts.cancel()
    assert await drift(url) == {}
    rows = await execute(url, "SELECT a.n, a.state, r.status FROM attempt a JOIN request r ON r.id = a.request")
    assert {tuple(r) for r in rows} == {(1, "settled", "answered")}
    assert len(rows) == 40


async def test_a_database_held_by_another_is_a_time_out(url: str) -> None:
    holder = make_engine(url, 1)
    database = Database(url, 1, timeout_s=0.4)

    async def write(connection: AsyncConnection) -> None:
        await connection.execute(sa.text("UPDATE worker SET id = 'x'"))

    async with holder.begin() as connection:
        if connection.dialect.name == "postgresql":
            await connection.execute(sa.text("LOCK TABLE worker IN ACCESS EXCLUSIVE MODE"))
        with pytest.raises(Unavailable, match=r"timed out|database is locked"):
            await database.transact(write)
    await holder.dispose()
    await database.transact(write)
    await database.close()


async def test_all_connections_taken_is_unavailable(url: str) -> None:
    database = Database(url, 1, timeout_s=0.4)

    async def wait(connection: AsyncConnection) -> None:
        await asyncio.sleep(0.3)

    results = await asyncio.gather(*(database.transact(wait) for _ in range(4)), return_exceptions=True)
    assert {type(r) for r in results} == {type(None), Unavailable}
    await database.close()


async def test_a_refused_value_is_a_bug_and_says_no_value(url: str) -> None:
    database = Database(url, 1)

    async def null(connection: AsyncConnection) -> None:
        await connection.execute(
            sa.text("INSERT INTO price (id, model) VALUES (:id, :secret)"), {"id": "x", "secret": "what the user asked"}
        )

    with pytest.raises(IntegrityError) as told:
        await database.transact(null)
    assert "what the user asked" not in str(told.value)
    await database.close()


async def test_a_table_that_is_missing_is_a_bug(url: str) -> None:
    database = Database(url, 1)

    async def lost(connection: AsyncConnection) -> None:
        await connection.execute(sa.text("SELECT 1 FROM no_such_table"))

    with pytest.raises((ProgrammingError, DBAPIError), match="no_such_table"):
        await database.transact(lost)
    await database.close()


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
async def test_an_unavailable_ledger_says_nothing_of_the_answer(start: Start, url: str) -> None:
    ledger = await start()
    await ledger.open([ask("r")])
    await execute(url, backends(url))
    with pytest.raises(Unavailable) as told:
        await ledger.settle([settlement("r", answer=HELLO)])
    assert "hello" not in "".join(traceback.format_exception(told.value))
    assert await ledger.settle([settlement("r")]) == [Settled("reserved", overrun=False)]


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
async def test_a_deadlock_is_tried_again(url: str) -> None:
    await execute(url, "INSERT INTO worker VALUES ('a', now(), now()), ('b', now(), now())")
    database = Database(url, 2)
    met = asyncio.Barrier(2)
    runs = []

    async def cross(connection: AsyncConnection, order: str) -> None:
        runs.append(order)
        await connection.execute(sa.text("UPDATE worker SET beat = now() WHERE id = :id"), {"id": order[0]})
        if len(runs) <= 2:
            await met.wait()
        await connection.execute(sa.text("UPDATE worker SET beat = now() WHERE id = :id"), {"id": order[1]})

    await asyncio.gather(database.transact(lambda c: cross(c, "ab")), database.transact(lambda c: cross(c, "ba")))
    assert len(runs) == 3
    await database.close()


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
async def test_deadlocks_without_end_are_unavailable(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    database = Database(url, 1)
    runs = 0

    async def unlucky(connection: AsyncConnection) -> None:
        nonlocal runs
        runs += 1
        await connection.execute(sa.text("DO $$ BEGIN RAISE EXCEPTION 'met' USING ERRCODE = '40P01'; END $$"))

    with pytest.raises(Unavailable, match="deadlocks"):
        await database.transact(unlucky)
    assert runs == TRIES
    await database.close()


async def test_a_ledger_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_text("not a database, but long enough to look like one " * 20)
    ledger = Ledger(f"sqlite+aiosqlite:///{tmp_path / 'ledger.db'}", heartbeat_s=5, stale_s=15, keep_days=7, pool_size=1)
    with pytest.raises(DBAPIError, match="not a database"):
        await ledger.check()
    await ledger.close()
