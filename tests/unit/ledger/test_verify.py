"""Books that somebody spoiled by hand, each found and named. The histories that leave them right are in `test_verify_machine.py`."""

from __future__ import annotations

import ast
import asyncio
import re
import shutil
import sqlite3
import sys
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import sqlalchemy as sa

import workers.ledger.verify as verifier
from schemas import Usage
from tests.unit.ledger.conftest import Start
from tests.unit.ledger.history import LONG, ODD, PLAIN, asked, ended, settled
from tests.unit.ledger.scenario import HELLO, execute, facts, hold, silence
from workers.ledger.ledger import Ledger
from workers.ledger.migrate import upgrade
from workers.ledger.tables import attempt, request
from workers.ledger.types import Rates, to_dollars, to_units
from workers.ledger.verify import Findings, verify

USED = Usage(input_tokens=321, cached_input_tokens=40, cache_write_tokens=9, output_tokens=77, reasoning_tokens=11)
HOLDS = (hold("1"), hold(100_000, {}), hold("1", {"user": "u"}, "day"))


async def look(url: str, *, grace_s: float = 60, keep_days: float = 7) -> Findings:
    return await verify(url, stale_s=600, grace_s=grace_s, keep_days=keep_days)


async def call(
    ledger: Ledger, request_id: str, n: int = 1, rates: Rates | None = PLAIN, used: Usage | None = USED, user: str = "u", **told: Any
) -> None:
    """Grant attempt `n`, and settle it if it `used` anything."""
    one = asked(request_id, "0.01", 1000, *HOLDS, rates=rates, user=user, after=n - 1)
    await ledger.open([one])
    if used:
        await ledger.settle([settled(one, n, used, **told)])


async def keep_books(ledger: Ledger) -> None:
    """r1 escalated and was answered; r2's first call was cut off; r3 came from the cache; r4 and r5 are under way."""
    await call(ledger, "r1", verdict="escalate", outcome="refusal")
    await call(ledger, "r1", 2, rates=LONG)
    await call(ledger, "r2", rates=ODD, state="unconfirmed", verdict="error", answer=None)
    await call(ledger, "r2", 2, rates=ODD)
    await call(ledger, "r4", used=None)
    await call(ledger, "r5", rates=None)
    await ledger.end([ended(facts("r1", user="u")), ended(facts("r2", user="u")), ended(facts("r3", user="u"), "cache_exact")])


@pytest.fixture
async def books(url: str, ledger: Ledger) -> str:
    """Right books, on either database."""
    await keep_books(ledger)
    return url


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Right books in a SQLite file, whose worker is alive."""
    folder = tmp_path_factory.mktemp("kept")
    url = f"sqlite+aiosqlite:///{folder / 'live.db'}"

    async def keep() -> None:
        await upgrade(url)
        ledger = Ledger(url, heartbeat_s=3600, stale_s=600, keep_days=7, pool_size=1, name="worker")
        await ledger.start()
        await keep_books(ledger)
        with closing(sqlite3.connect(folder / "live.db")) as live, closing(sqlite3.connect(folder / "kept.db")) as copy:
            live.backup(copy)
        await ledger.close()

    asyncio.run(keep())
    return folder / "kept.db"


async def spoil(url: str, statement: str) -> None:
    """Change the books by hand, past what the database itself would refuse."""
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.partition(":///")[2])) as connection:
            connection.executescript(f"PRAGMA foreign_keys=OFF; PRAGMA ignore_check_constraints=ON; {statement}")
        return
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        await connection.execute("ALTER TABLE attempt DROP CONSTRAINT IF EXISTS attempt_state_ck")
        await connection.execute(f"SET session_replication_role = replica; {statement}")  # no trigger looks, so no foreign key does
    finally:
        await connection.close()


async def test_the_figures_of_right_books(books: str) -> None:
    document = (await look(books)).document()
    spent = sum(to_units(rates.cost(USED)) for rates in (PLAIN, LONG, ODD))
    assert document == {
        "requests": 5,
        "attempts": 6,
        "by_state": {"reserved": 1, "settled": 4, "unconfirmed": 1, "abandoned": 0},
        "spent_usd": f"{to_dollars(spent).normalize():f}",
        "unconfirmed_usd": "0.01",
        "problems": [],
    }


async def test_an_empty_ledger_is_right(url: str) -> None:
    assert (await look(url)).document()["problems"] == []


OF_R1 = "(SELECT id FROM request WHERE request_id = 'r1')"
OF_R4 = "(SELECT id FROM request WHERE request_id = 'r4')"
COLUMNS = ", ".join(f'"{c.name}"' for c in attempt.columns if c.name not in ("request", "n"))
REQUEST_COLUMNS = ", ".join(f'"{c.name}"' for c in request.columns if c.name not in ("id", "request_id"))

SPOILED = {
    "a counter off by one": (
        "UPDATE budget_usage SET spent = spent + 1 WHERE kind = 'tokens'",
        r"counter \{\} tokens/month from .*: spent is 2593, expected 2592 \(by its attempts\)",
    ),
    "a reservation off by one": (
        """UPDATE budget_usage SET reserved = reserved + 1 WHERE kind = 'usd' AND "window" = 'day'""",
        r'counter \{"user": "u"\} usd/day from .*: reserved is \$0\.0100000001, expected \$0\.01 ',
    ),
    "a lost attempt": (
        f"DELETE FROM attempt WHERE request = {OF_R1} AND n = 2",
        r"acme/r1: its CostRecord lists 2 attempts, the books hold 1",
    ),
    "a lost attempt before another": (
        f"DELETE FROM attempt WHERE request = {OF_R1} AND n = 1",
        r"acme/r1: its attempts are \[2\], not \[1\]",
    ),
    "a lost attempt of a request under way": (
        f"DELETE FROM attempt WHERE request = {OF_R4}",
        r"counter .* usd/month .*: reserved is \$0\.01, expected \$0 ",
    ),
    "a lost counter": ("DELETE FROM budget_usage WHERE kind = 'tokens'", r"acme/r1#1: it counts in counter \d+, which is not in the books"),
    "a lost price": ("DELETE FROM price WHERE source = 'policy'", r"acme/r1#1: its price \w{32} is not in the books"),
    "a lost request": ("DELETE FROM request WHERE request_id = 'r1'", r"request \d+#1: an attempt of a request that is not in the books"),
    "a doubled attempt": (
        f"INSERT INTO attempt (request, n, {COLUMNS}) SELECT request, 3, {COLUMNS} FROM attempt WHERE request = {OF_R1} AND n = 2",
        r"acme/r1: attempt 3 is attempt 2 again: the same ask of the same worker at the same time",
    ),
    "a doubled attempt of no budget": (
        f"INSERT INTO attempt (request, n, {COLUMNS}) SELECT {OF_R4}, 2, {COLUMNS} FROM attempt WHERE request = {OF_R1} AND n = 2",
        r"acme/r4#2: asked for by worker-.* \(\d+\), which asked that for another request",
    ),
    "a doubled request": (
        f"INSERT INTO request (id, request_id, {REQUEST_COLUMNS}) SELECT 99, 'r9', {REQUEST_COLUMNS} FROM request WHERE request_id = 'r1'",
        r"acme/r9: request_id in its CostRecord is r1, in the books r9",
    ),
    "a changed rate": (
        "UPDATE price SET output = '0.61' WHERE source = 'policy'",
        r"price \w{32}: a rate was changed: ",
    ),
    "a changed rate, by its costs": (
        "UPDATE price SET output = '0.61' WHERE source = 'policy'",
        r"acme/r1#1: cost is \$0\.0000916875, expected \$0\.0000924575 \(by its tokens at price \w{32}\)",
    ),
    "another price": (
        f"UPDATE attempt SET price_id = (SELECT id FROM price WHERE source = 'map-1' AND above IS NULL) WHERE request = {OF_R1} AND n = 1",
        r"acme/r1#1: cost is \$0\.0000916875, expected ",
    ),
    "a changed cost": (
        f"UPDATE attempt SET cost = cost + 1 WHERE request = {OF_R1} AND n = 1",
        r"acme/r1#1: cost is \$0\.0000916876, expected ",
    ),
    "a changed token": (
        f"UPDATE attempt SET cached_input_tokens = 41 WHERE request = {OF_R1} AND n = 1",
        r"acme/r1: usage.cached_input_tokens in its CostRecord is 80, in the books 81",
    ),
    "used tokens": (
        f"UPDATE attempt SET used_tokens = 1 WHERE request = {OF_R1} AND n = 1",
        r"acme/r1#1: used_tokens is 1, expected 398 ",
    ),
    "a worst case": (
        "UPDATE attempt SET cost = 1 WHERE state = 'unconfirmed'",
        r"acme/r2#1: cost is \$0\.0000000001, expected \$0\.01 \(the worst case it was reserved at\)",
    ),
    "a wrong lever": (
        "UPDATE request SET routing = routing + 10000 WHERE request_id = 'r1'",
        r"acme/r1: routing \+ cache \+ compression \+ batch is \$.*, expected \$.* \(baseline - cost\)",
    ),
    "levers that add up": (
        "UPDATE request SET cache = cache + 10000, compression = compression - 10000 WHERE request_id = 'r1'",
        r"acme/r1: saved_usd.cache in its CostRecord is 0, in the books 0\.000001",
    ),
    "a wrong cost": (
        "UPDATE request SET cost = cost + 10000, routing = routing - 10000 WHERE request_id = 'r1'",
        r"acme/r1: cost is \$.*, expected",
    ),
    "an unrounded cost": (
        "UPDATE request SET cost = cost + 1, routing = routing - 1 WHERE request_id = 'r1'",
        r"acme/r1: cost is \$.*, expected",
    ),
    "saved without an answer": (
        "UPDATE request SET status = 'failed', reason_code = 'internal' WHERE request_id = 'r1'",
        r"acme/r1: baseline is \$.*, expected \$0 \(since nothing was answered\)",
    ),
    "a settled attempt without answer": (
        f"UPDATE attempt SET answer = NULL WHERE request = {OF_R1} AND n = 2",
        r"acme/r1: attempt 2 is settled as accepted, but its answer is gone",
    ),
    "the same under way": (
        "UPDATE attempt SET answer = NULL WHERE request = (SELECT id FROM request WHERE request_id = 'r5')",
        r"acme/r5: attempt 1 is settled as accepted, but its answer is gone",
    ),
    "a response purged without its answers": (
        "UPDATE request SET response = NULL WHERE request_id = 'r1'",
        r"acme/r1: its response is gone, but the answer of attempt 1 is kept",
    ),
    "an ending without request": (
        "UPDATE request SET feature = NULL, body_hash = '' WHERE request_id = 'r1'",
        r"acme/r1: it has ended as answered, but its facts are not there: feature, body_hash",
    ),
    "an ending without record": (
        "UPDATE request SET cost_record = NULL WHERE request_id = 'r1'",
        r"acme/r1: it has ended, but its CostRecord is missing or is no JSON object",
    ),
    "an ending without time": (
        "UPDATE request SET ended_at = NULL WHERE request_id = 'r1'",
        r"acme/r1: it has ended as answered, but its facts are not there: ended_at",
    ),
    "an ending taken back": (
        "UPDATE request SET ended_at = NULL, status = NULL WHERE request_id = 'r1'",
        r"acme/r1: it has not ended, but has its response",
    ),
    "an orphan reservation": (
        f"UPDATE attempt SET worker = 'nobody' WHERE request = {OF_R4}",
        r"acme/r4#1: an orphan reservation: its owner nobody is not among the workers",
    ),
    "two at once": (
        f"UPDATE attempt SET state = 'reserved' WHERE request = {OF_R1}",
        r"acme/r1: attempt 1 is still reserved, but 2 was opened",
    ),
    "a state that is none": (f"UPDATE attempt SET state = 'paid' WHERE request = {OF_R1}", r"acme/r1#1: its state is 'paid'"),
    "an abandoned attempt that cost": (
        f"UPDATE attempt SET state = 'abandoned' WHERE request = {OF_R1} AND n = 1",
        r"acme/r1#1: cost is \$0\.0000916875, expected \$0 \(since it is abandoned\)",
    ),
    "a settled attempt without verdict": (
        f"UPDATE attempt SET verdict = NULL WHERE request = {OF_R1}",
        r"acme/r1#1: its verdict is None, though it is settled",
    ),
    "a revision too far": (
        "UPDATE request SET published_revision = 2 WHERE request_id = 'r1'",
        r"acme/r1: its revision is 1, of which 2 is published",
    ),
    "a counter named twice": (
        f"UPDATE attempt SET usage_ids = '[1, 1]' WHERE request = {OF_R4}",
        r"acme/r4#1: its counters are .*: not a list, or one twice",
    ),
    "counters that are no list": (
        f"UPDATE attempt SET usage_ids = 'x' WHERE request = {OF_R4}",
        r"acme/r4#1: its counters are x: not a list, or one twice",
    ),
    "a figure that is none": (f"UPDATE attempt SET cost = 'x' WHERE request = {OF_R1}", r"acme/r1#1: cost is x"),
    "a request's figure that is none": ("UPDATE request SET baseline = 'x' WHERE request_id = 'r1'", r"acme/r1: baseline is x"),
    "a rate that is none": ("UPDATE price SET input = 'x' WHERE source = 'policy'", r"price \w{32}: its rates cannot be read"),
    "long-context rates that are none": ("UPDATE price SET above = '[[1]]'", r"price \w{32}: its rates cannot be read"),
    "a time that is none": ("UPDATE request SET ended_at = 'x' WHERE request_id = 'r1'", r"acme/r1: occurred_at in its CostRecord is 20"),
    "a response that is none": ("UPDATE request SET response = 'x' WHERE request_id = 'r1'", r"acme/r1: its response is no JSON object"),
    "a response of other figures": (
        """UPDATE request SET response = replace(response, '"cost_usd":"0.0', '"cost_usd":"1.0') WHERE request_id = 'r1'""",
        r"acme/r1: the levers in its response do not add up to its baseline - cost",
    ),
}
SEEDED = (
    *("a counter off by one", "a lost attempt", "a lost request", "a lost counter", "a doubled attempt", "a doubled attempt of no budget"),
    *("a changed rate", "a wrong lever", "a settled attempt without answer", "an ending without request", "an orphan reservation"),
)
"""What both databases must show: each has SQL of its own in places."""


@pytest.mark.parametrize("what", SPOILED)
async def test_what_is_spoiled_is_named(kept: Path, tmp_path: Path, what: str) -> None:
    shutil.copy(kept, tmp_path / "books.db")
    url = f"sqlite+aiosqlite:///{tmp_path / 'books.db'}"
    assert (await look(url)).problems == []
    statement, expected = SPOILED[what]
    await spoil(url, statement)
    problems = (await look(url)).problems
    assert [p for p in problems if re.match(expected, p)], problems
    assert str(HELLO.content) not in str(problems), "nobody's answer stands in a problem"


@pytest.mark.postgres
@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("what", SEEDED)
async def test_what_is_spoiled_is_named_on_postgresql(books: str, what: str) -> None:
    assert (await look(books)).problems == []
    statement, expected = SPOILED[what]
    await spoil(books, statement)
    problems = (await look(books)).problems
    assert [p for p in problems if re.match(expected, p)], problems


async def test_a_reservation_is_nobodys_once_the_sweep_should_have_come(url: str, start: Start) -> None:
    ledger, sweeper = await start(), await start()
    await call(ledger, "r", used=None)
    assert (await look(url, grace_s=0)).problems == [], "its owner lives"
    await silence(url, ledger)
    assert (await look(url, grace_s=2 * 86_400)).problems == [], "the next sweep will find it"
    (problem,) = (await look(url)).problems
    assert re.match(rf"acme/r#1: an orphan reservation: its owner {ledger.owner} lost it at ", problem)
    await sweeper.sweep()
    assert (await look(url)).problems == []


async def test_a_reservation_that_its_living_owner_forgot_is_nobodys(url: str, ledger: Ledger) -> None:
    await call(ledger, "r", used=None)
    an_hour_ago = datetime.now(UTC) - timedelta(hours=1)
    await execute(url, sa.update(attempt).values(expires_at=an_hour_ago))
    (problem,) = (await look(url)).problems
    assert "an orphan reservation" in problem


async def test_an_answer_that_came_after_the_ending_is_not_kept_and_not_missed(url: str, ledger: Ledger) -> None:
    await call(ledger, "r", verdict="escalate", outcome="refusal")
    await call(ledger, "r", 2, used=None)
    await ledger.end([ended(facts("r", user="u"))])
    await ledger.settle([settled(asked("r", "0.01", 1000), 2, USED)])
    assert (await look(url)).problems == []
    await execute(url, sa.update(attempt).where(attempt.c.n == 1).values(answer=None))
    problems = (await look(url)).problems
    assert "acme/r: attempt 1 is settled as escalate, but its answer is gone" in problems


async def test_answers_of_requests_that_never_ended_go_with_time(url: str, ledger: Ledger) -> None:
    await call(ledger, "r")
    await execute(url, sa.update(attempt).values(answer=None))
    assert (await look(url)).problems != []
    await execute(url, sa.update(request).values(created_at=datetime.now(UTC) - timedelta(days=8)))
    assert (await look(url)).problems == []


async def test_what_is_written_meanwhile_is_not_looked_at(books: str, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """The prices are read first and the attempts later; between them the fleet makes a call at a new price."""
    requests = verifier._requests

    async def later(database: Any) -> Any:
        await call(ledger, "r6", rates=replace(ODD, input=Decimal(3)))
        async for each in requests(database):
            yield each

    monkeypatch.setattr(verifier, "_requests", later)
    found = await look(books)
    assert (found.requests, found.problems) == (5, [])
    monkeypatch.undo()
    found = await look(books)
    assert (found.requests, found.problems) == (6, [])


async def test_of_many_problems_the_first_are_named_and_the_rest_counted(
    kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(kept, tmp_path / "books.db")
    url = f"sqlite+aiosqlite:///{tmp_path / 'books.db'}"
    await spoil(url, "UPDATE budget_usage SET spent = spent + 1")
    assert len((await look(url)).problems) == 3
    monkeypatch.setattr(verifier, "LISTED", 2)
    problems = (await look(url)).document()["problems"]
    assert (len(problems), problems[-1]) == (3, "and 1 more problems")


async def test_to_look_for_a_file_does_not_make_it(tmp_path: Path) -> None:
    with pytest.raises(sqlite3.OperationalError):
        await look(f"sqlite+aiosqlite:///{tmp_path / 'books.db'}")
    assert not await asyncio.to_thread((tmp_path / "books.db").exists)


@pytest.mark.postgres
@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
async def test_the_options_of_a_url_are_the_drivers(url: str) -> None:
    assert (await look(f"{url}?ssl=disable&prepared_statement_cache_size=10")).problems == []


def test_it_stands_on_the_standard_library_and_the_driver_alone() -> None:
    tree = ast.parse(Path(verifier.__file__).read_text())
    imported = {n.module or "." for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    imported |= {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    assert {name.partition(".")[0] for name in imported} - sys.stdlib_module_names == {"asyncpg"}


@pytest.mark.parametrize("tokens", [10, 30])
async def test_half_a_micro_dollar_goes_to_the_even_one(url: str, ledger: Ledger, tokens: int) -> None:
    await call(ledger, "r", used=Usage(input_tokens=tokens))  # 1.5 or 4.5 micro-dollars
    await ledger.end([ended(facts("r", user="u"))])
    assert (await look(url)).problems == []
