"""What counts as unreachable, and what such an error may say."""

from __future__ import annotations

import asyncio
import traceback
import uuid
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.unit.ledger.conftest import Start
from tests.unit.ledger.scenario import HELLO, ask, drift, ending, execute, hold, settlement
from workers.ledger.connection import Connection
from workers.ledger.database import REFUSALS, TRIES, Database, make_engine
from workers.ledger.ledger import Ledger
from workers.ledger.migrate import check, upgrade
from workers.ledger.tables import worker
from workers.ledger.types import Granted, Settled
from workers.outcomes import Unavailable

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)


def backends(url: str) -> sa.TextClause:
    return sa.text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid != pg_backend_pid()")


async def waits(url: str) -> None:
    """Returns when a session of this database waits for a lock."""
    while not await execute(url, "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"):  # noqa: ASYNC110
        await asyncio.sleep(0.01)


async def seen(url: str) -> list[str]:
    return [row.id for row in await execute(url, "SELECT id FROM worker ORDER BY id")]


async def test_a_refused_connection() -> None:
    ledger = Ledger("postgresql+asyncpg://scrimp@127.0.0.1:1/none", heartbeat_s=5, stale_s=15, keep_days=7, pool_size=1)
    for reaches in (ledger.start, ledger.check, ledger.sweep, ledger.purge):
        with pytest.raises(Unavailable) as told:
            await reaches()
        assert told.value.dependency == "ledger"
    await ledger.close()


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
@pytest.mark.parametrize(
    ("changed", "told"), [({"database": "dropped"}, r"no such database \(3D000\)"), ({"username": "barred"}, r"user is not let in \(28")]
)
async def test_a_database_that_is_gone_or_lets_nobody_in(url: str, changed: dict[str, str], told: str) -> None:
    other = sa.make_url(url).set(**changed).render_as_string(hide_password=False)  # type: ignore[arg-type]
    ledger = Ledger(other, heartbeat_s=5, stale_s=15, keep_days=7, pool_size=1)
    # By SQLAlchemy and by the driver, which name the error differently.
    for reaches in (ledger.start, ledger.check, partial(check, other)):
        with pytest.raises(Unavailable, match=told):
            await reaches()
    await ledger.close()


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
async def test_a_user_without_rights_is_told_so_and_waited_for(url: str) -> None:
    """As any but the owner is since PostgreSQL 15: let in, and allowed nothing."""
    stranger = f"stranger_{uuid.uuid4().hex}"
    other = sa.make_url(url).set(username=stranger, password="x").render_as_string(hide_password=False)
    await execute(url, f"CREATE ROLE {stranger} LOGIN PASSWORD 'x'")
    ledger = Ledger(other, heartbeat_s=5, stale_s=15, keep_days=7, pool_size=1)
    try:
        for reaches in (ledger.start, ledger.sweep, partial(check, other), partial(upgrade, other)):
            with pytest.raises(Unavailable, match=r"ledger.*lacks a right .*\(42501\)"):
                await reaches()
        await ledger.close()
    finally:
        await execute(url, f"DROP ROLE {stranger}")


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("waits_s", [0, 0.2])
async def test_a_connection_lost_between_two_verbs_costs_one_at_most(start: Start, url: str, waits_s: float) -> None:
    """None where the driver has noticed meanwhile."""
    ledger = await start()
    same = ask("r")
    await ledger.open([same])
    await execute(url, backends(url))
    await asyncio.sleep(waits_s)
    with suppress(Unavailable):
        await ledger.open([same])
    assert await ledger.open([same]) == [Granted(1, ())]


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
async def test_a_connection_lost_within_a_transaction_is_unavailable_once(url: str) -> None:
    database = Database(url, 2)
    begun = asyncio.Event()

    async def insert(connection: Connection) -> None:
        await connection.execute(sa.text("INSERT INTO worker VALUES ('a', now(), now())"))

    async def cut(connection: Connection) -> None:
        await insert(connection)
        begun.set()
        await connection.execute(sa.text("SELECT pg_sleep(60)"))

    waiting = asyncio.ensure_future(database.transact(cut))
    await asyncio.wait_for(begun.wait(), 20)
    await execute(url, backends(url))
    with pytest.raises(Unavailable, match=r"ledger.*(connection lost|57P01)"):
        await waiting
    await database.transact(insert)
    assert await seen(url) == ["a"]
    await database.close()


@pytest.mark.parametrize("between", [True, False], ids=["between statements", "in a statement"])
async def test_a_transaction_that_is_cancelled_leaves_nothing_and_takes_no_place(url: str, between: bool) -> None:
    database = Database(url, 1)
    begun = asyncio.Event()

    async def insert(connection: Connection, who: str) -> None:
        await connection.execute(sa.insert(worker).values(id=who, started_at=NOON, beat=NOON))

    async def half(connection: Connection) -> None:
        await insert(connection, "half")
        begun.set()
        if between or not connection.on_postgres:
            await asyncio.sleep(60)
        await connection.execute(sa.text("SELECT pg_sleep(60)"))

    for _ in range(3):
        begun.clear()
        cancelled = asyncio.ensure_future(database.transact(half))
        await asyncio.wait_for(begun.wait(), 20)
        await asyncio.sleep(0.02)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
    assert await seen(url) == []
    if url.startswith("postgresql"):  # and what it had begun is called off, not left to run
        assert await execute(url, "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND state = 'active'") == []
    await asyncio.gather(*(database.transact(partial(insert, who=who)) for who in "abc"))
    assert await seen(url) == ["a", "b", "c"]
    await database.close()


async def test_an_error_of_the_work_itself_leaves_nothing(url: str) -> None:
    database = Database(url, 1)

    async def broken(connection: Connection) -> None:
        await connection.execute(sa.insert(worker).values(id="half", started_at=NOON, beat=NOON))
        raise KeyError("a bug")

    for _ in range(3):
        with pytest.raises(KeyError):
            await database.transact(broken)
    await database.transact(lambda c: c.execute(sa.text("SELECT 1 AS one")))
    assert await seen(url) == []
    await database.close()


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
async def test_a_transaction_that_failed_unnoticed_is_not_called_committed(url: str) -> None:
    database = Database(url, 1)

    async def deaf(connection: Connection) -> None:
        with suppress(*REFUSALS):
            await connection.execute(sa.text("SELECT 1 FROM no_such_table"))

    with pytest.raises(RuntimeError, match="rolled back"):
        await database.transact(deaf)
    await database.transact(lambda c: c.execute(sa.text("SELECT 1 AS one")))
    await database.close()


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
async def test_a_table_changed_under_way_is_met_without_an_error(url: str) -> None:
    """Statements stay prepared, and an upgrade of the ledger may come while workers run."""
    await execute(url, "CREATE TABLE changing (a integer)")
    database = Database(url, 1)
    read = sa.text("SELECT * FROM changing")
    try:
        await database.transact(lambda c: c.execute(read))
        await execute(url, "ALTER TABLE changing ADD COLUMN b integer")
        await execute(url, "INSERT INTO changing VALUES (1, 2)")
        assert await database.transact(lambda c: c.execute(read)) == [(1, 2)]
    finally:
        await database.close()
        await execute(url, "DROP TABLE changing")


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
async def test_a_value_that_the_driver_refuses_is_not_told(url: str) -> None:
    database = Database(url, 1)

    secret = " ".join(["what", "the", "user", "asked"])  # not as it stands in this file, which a traceback shows

    async def half_of_a_pair(connection: Connection) -> None:
        await connection.execute(sa.text("SELECT CAST(:text AS text)"), {"text": secret + "\ud83d"})

    with pytest.raises(REFUSALS) as told:
        await database.transact(half_of_a_pair)
    assert secret not in "".join(traceback.format_exception(told.value))
    await database.close()


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("option", ["timeout", "server_settings", "prepared_statement_cache_size"])
async def test_options_in_the_url_do_not_break_our_own(url: str, option: str) -> None:
    database = Database(f"{url}{'&' if '?' in url else '?'}{option}=0", 1)
    [row] = await database.transact(lambda c: c.execute(sa.text("SELECT current_setting('application_name') AS name")))
    assert row.name == "scrimp"
    await database.close()


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

    async def write(connection: Connection) -> None:
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
    database = Database(url, 1, timeout_s=1.5)

    async def wait(connection: Connection) -> None:
        await asyncio.sleep(0.9)

    await database.transact(wait)  # to connect takes its time on a busy machine
    results = await asyncio.gather(*(database.transact(wait) for _ in range(4)), return_exceptions=True)
    assert {type(r) for r in results} == {type(None), Unavailable}
    await database.close()


async def test_a_refused_value_is_a_bug_and_says_no_value(url: str) -> None:
    database = Database(url, 1)
    secret = " ".join(["what", "the", "user", "asked"])  # not as it stands in this file, which a traceback shows

    async def null(connection: Connection) -> None:
        await connection.execute(sa.text("INSERT INTO price (id, model) VALUES (:id, :secret)"), {"id": "x", "secret": secret})

    with pytest.raises(REFUSALS, match=r"(?i)not.null") as told:
        await database.transact(null)
    assert secret not in "".join(traceback.format_exception(told.value))
    await database.close()


async def test_a_table_that_is_missing_is_a_bug(url: str) -> None:
    database = Database(url, 1)

    async def lost(connection: Connection) -> None:
        await connection.execute(sa.text("SELECT 1 FROM no_such_table"))

    with pytest.raises(REFUSALS, match="no_such_table"):
        await database.transact(lost)
    await database.close()


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
async def test_an_unavailable_ledger_says_nothing_of_the_answer(start: Start, url: str) -> None:
    ledger = await start()
    await ledger.open([ask("r")])
    locked = sa.text("SELECT 1 AS one FROM attempt FOR UPDATE")
    holder = make_engine(url, 1)
    async with holder.connect() as connection:
        await connection.execute(locked)
        settling = asyncio.ensure_future(ledger.settle([settlement("r", answer=HELLO)]))
        await waits(url)
        await execute(url, backends(url))
        await connection.invalidate()
    await holder.dispose()
    with pytest.raises(Unavailable) as told:
        await settling
    assert "hello" not in "".join(traceback.format_exception(told.value))
    assert await ledger.settle([settlement("r")]) == [Settled("reserved", overrun=False)]


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
async def test_a_deadlock_is_tried_again(url: str) -> None:
    await execute(url, "INSERT INTO worker VALUES ('a', now(), now()), ('b', now(), now())")
    database = Database(url, 2)
    met = asyncio.Barrier(2)
    runs = []

    async def cross(connection: Connection, order: str) -> None:
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

    async def unlucky(connection: Connection) -> None:
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
    with pytest.raises(Unavailable, match="ledger: file is not a database"):
        await ledger.check()
    await ledger.close()


async def test_a_ledger_file_that_is_a_folder(tmp_path: Path) -> None:
    ledger = Ledger(f"sqlite+aiosqlite:///{tmp_path}", heartbeat_s=5, stale_s=15, keep_days=7, pool_size=1)
    with pytest.raises(Unavailable, match=f"ledger: {tmp_path} is a folder"):
        await ledger.check()
    await ledger.close()


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
async def test_a_server_without_tls_says_so(url: str) -> None:
    ledger = Ledger(f"{url}{'&' if '?' in url else '?'}ssl=require", heartbeat_s=5, stale_s=15, keep_days=7, pool_size=1)
    with pytest.raises(Unavailable, match=r"ledger: PostgreSQL server at .* rejected SSL upgrade"):
        await ledger.check()
    await ledger.close()
