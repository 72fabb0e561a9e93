"""Lists as tables inside a statement, and times, in both databases."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta, timezone

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from schemas.types import utc_now
from tests.unit.ledger.scenario import execute
from workers.ledger.connection import Connection
from workers.ledger.database import Database, make_engine
from workers.ledger.given import clock, given, pack, pack_ids
from workers.ledger.tables import Instant, attempt, request, worker

NOON = datetime(2026, 6, 1, 12, 0, 0, 123456, tzinfo=timezone(timedelta(hours=2)))


@pytest.fixture
async def connection(url: str) -> AsyncIterator[AsyncConnection]:
    engine = make_engine(url, 1)
    async with engine.begin() as connection:
        yield connection
    await engine.dispose()


async def test_values_come_through_as_they_are(connection: AsyncConnection) -> None:
    table = given(text=sa.Text, number=sa.BigInteger, at=Instant)
    rows = [
        {"text": 'it\'s "quoted" \\ ünï 😀 $1 ? :x %s', "number": 2**62 + 1, "at": NOON},
        {"text": None, "number": -1, "at": None},
        {"text": "", "number": 0, "at": NOON.replace(microsecond=0)},
    ]
    found = (await connection.execute(sa.select(table).order_by(table.c.number), pack(rows))).all()
    assert [r._asdict() for r in found] == [rows[1], rows[2], rows[0]]


async def test_an_empty_list_is_an_empty_table(connection: AsyncConnection) -> None:
    assert (await connection.execute(sa.select(given(id=sa.BigInteger)), pack_ids([]))).all() == []


async def test_a_value_that_json_has_not_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="bytes"):
        pack([{"x": b"raw"}])


async def test_a_time_is_the_same_moment_however_it_was_stored(connection: AsyncConnection) -> None:
    at = given(at=Instant)
    await connection.execute(sa.insert(worker).values(id="bound", started_at=NOON, beat=NOON))
    same = sa.select(worker.c.started_at).join(at, worker.c.started_at == at.c.at)
    (found,) = (await connection.execute(same, pack([{"at": NOON}]))).scalars()
    assert (found, found.tzinfo) == (NOON, UTC)


async def test_the_clock_is_utc_and_finer_than_a_second(connection: AsyncConnection) -> None:
    now = (await connection.execute(sa.select(clock()))).scalar_one()
    assert abs(now - utc_now()) < timedelta(minutes=5)
    await connection.execute(sa.insert(worker).values([{"id": str(i), "started_at": clock(), "beat": clock()} for i in range(3)]))
    text = (await connection.execute(sa.text("SELECT CAST(started_at AS TEXT) FROM worker"))).scalars().all()
    assert any("." in stored and float("0." + stored.partition(".")[2].partition("+")[0]) > 0 for stored in text)


async def test_values_of_every_kind_come_out_the_same_by_both_ways(url: str) -> None:
    """As the verbs read them, and as SQLAlchemy does. `tables.py` holds no other kinds."""
    counted = sa.select(
        attempt, request.c.response, request.c.ended_at, sa.func.sum(attempt.c.cost).over().label("sum"), clock().label("now")
    ).join(request)
    expected = {"n": 1, "answer": b"\x00\xff", "estimated": True, "usage_ids": [2**40, 3], "opened_at": NOON, "settled_at": None}
    row = {"request": 1, "worker": "w", "seq": 2**40, "tier": "t", "model": "m", "provider": "p", "state": "settled", "expires_at": NOON}
    of = {"id": 1, "tenant": "a", "request_id": "r", "body_hash": "", "lane": "l", "purpose": "p", "created_at": NOON, "response": b"\x01"}

    async def fill(connection: Connection) -> None:
        await connection.execute(sa.insert(request).values(of))
        await connection.execute(sa.insert(attempt).values(row | expected | {"reserved_usd": 1, "reserved_tokens": 2, "cost": 2**62}))

    database = Database(url, 1)
    await database.transact(fill)
    picked = counted.where(attempt.c.opened_at.in_([NOON, NOON + timedelta(days=1)]), attempt.c.state != "reserved")
    (ours,) = await database.transact(lambda c: c.execute(picked))
    await database.close()
    (theirs,) = await execute(url, picked)
    assert {name: getattr(ours, name) for name in expected} == expected
    assert ours._fields == theirs._fields
    assert ours[:-1] == tuple(theirs)[:-1]
    assert list(map(type, ours)) == list(map(type, theirs))
    assert {value.utcoffset() for value in ours if isinstance(value, datetime)} == {timedelta(0)}
