"""`open` + `settle` in batches of 64 against a bare INSERT of the same rows in the same batches, on PostgreSQL; on SQLite beside it.

Bare is what no ledger could do without: one transaction with the requests and their settled attempts, sent as arrays by the driver, into
the same tables with the same indexes. The two take turns, a batch each, so that a noisy neighbour hits both; a round's ratio is the sum of
the one's times over the sum of the other's. Building the asks is not timed, for either. Each request is new and stands in four budgets: of
one tenant (few counters, all hot), or of one of 50 tenants with four users each (some 165 counters a batch).

CPU is this process's own during the batches, and that of PostgreSQL's backends (/proc), so it needs a server on this machine.
`--growth`: ours alone, on an empty ledger and on one with three million attempts, in turns.
"""

from __future__ import annotations

import itertools
import json
import os
import sqlite3
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from statistics import median
from typing import Any

import asyncpg

from bench.fresh import fresh_ledger
from bench.report import line, quantile, verdict
from schemas import Facts, Usage
from schemas.types import utc_now
from workers.ledger.ledger import Ledger
from workers.ledger.migrate import upgrade
from workers.ledger.types import Answer, Ask, Granted, Hold, Rates, Settlement

BATCH = 64
BATCHES = 20
"""A round of each."""
ROUNDS = 5
WARM_UP = 6
GROWN = 3_000_000
LIMIT_USD, LIMIT_TOKENS = Decimal(10**6), 10**12
RATES = Rates(Decimal("0.15"), Decimal("0.075"), Decimal("0.15"), Decimal("0.60"), "policy")
ANSWER = Answer("It is the one with the blue door, opposite the old mill. " * 7, None, "stop")
USAGE = Usage(input_tokens=700, output_tokens=100)
_number = itertools.count()

Batch = Callable[[list[Ask]], Awaitable[None]]


def asks(tenants: int) -> list[Ask]:
    now = utc_now()
    return [_ask(n, n % tenants, n % 4 if tenants > 1 else 0, now) for n in itertools.islice(_number, BATCH)]


def _ask(n: int, tenant: int, user: int, now: Any) -> Ask:
    of_tenant, of_user = {"tenant": f"t{tenant}"}, {"tenant": f"t{tenant}", "user": f"u{user}"}
    return Ask(
        facts=Facts(
            request_id=f"r-{n:012d}",
            tenant=f"t{tenant}",
            feature="support-bot",
            user=f"u{user}",
            experiment=None,
            lane="interactive",
            body_hash=f"{n:064x}",
            created_at=now,
            deadline_at=now + timedelta(hours=1),
            trace_id=f"{n:032x}",
        ),
        tier="light",
        model="mini",
        provider="openai",
        rates=RATES,
        usd=Decimal("0.0005"),
        tokens=900,
        holds=(
            Hold(json.dumps(of_tenant), "usd", "month", "UTC", LIMIT_USD),
            Hold(json.dumps(of_tenant), "tokens", "day", "UTC", LIMIT_TOKENS),
            Hold(json.dumps(of_user), "usd", "day", "UTC", LIMIT_USD),
            Hold("{}", "usd", "day", "UTC", LIMIT_USD),
        ),
        after=0,
        max_attempts=6,
        ttl_s=300.0,
        seq=n,
    )


def verbs(ledger: Ledger) -> Batch:
    """Ours: both verbs, as `call` uses them."""

    async def batch(of: list[Ask]) -> None:
        granted = await ledger.open(of)
        assert all(isinstance(each, Granted) for each in granted), granted[:3]
        settled = await ledger.settle(
            [Settlement(a.facts.tenant or "", a.facts.request_id, 1, USAGE, RATES.cost(USAGE), "accepted", "accepted", ANSWER) for a in of]
        )
        assert all(each.before == "reserved" for each in settled), settled[:3]

    return batch


# ---- bare

_REQUEST = ("tenant", "request_id", "body_hash", "feature", "user", "lane", "purpose", "created_at")
_ATTEMPT = (
    *("n", "worker", "seq", "tier", "model", "provider", "state", "price_id", "reserved_usd", "reserved_tokens", "input_tokens"),
    *("output_tokens", "cost", "used_tokens", "verdict", "outcome", "answer", "opened_at", "expires_at", "settled_at"),
)
_ARRAYS = {str: "text[]", int: "bigint[]", bytes: "bytea[]"}
_STORED = json.dumps({"content": ANSWER.content, "tool_calls": None, "finish_reason": "stop"}).encode()
_COST = int(RATES.cost(USAGE) / Decimal("1e-10"))


def _rows(of: list[Ask]) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    now = utc_now()
    requests = [
        (f.tenant, f.request_id, f.body_hash, f.feature, f.user, f.lane, f.purpose, f.created_at) for f in (ask.facts for ask in of)
    ]
    attempts = [
        *((1, "bare", a.seq, a.tier, a.model, a.provider, "settled", "0" * 32, 5_000_000, a.tokens, 700, 100, _COST, 800) for a in of),
    ]
    return requests, [(*row, "accepted", "accepted", _STORED, now, now, now) for row in attempts]


def _insert(table: str, columns: Sequence[str], row: Sequence[Any], *, more: str = "", select: str = "") -> str:
    arrays = ", ".join(f"${i}::{_ARRAYS.get(type(value), 'timestamptz[]')}" for i, value in enumerate(row, 1))
    return f"INSERT INTO {table} ({', '.join(map(_quoted, columns))}{more}) SELECT given.*{select} FROM unnest({arrays}) AS given"


def _quoted(column: str) -> str:
    return f'"{column}"'


def bare(connection: asyncpg.Connection) -> Batch:
    """The same rows, by the driver alone."""

    async def batch(of: list[Ask]) -> None:
        requests, attempts = _rows(of)
        async with connection.transaction():
            insert = _insert("request", _REQUEST, requests[0])
            ids = [row["id"] for row in await connection.fetch(f"{insert} RETURNING id", *zip(*requests, strict=True))]
            owned = [(request, *row) for request, row in zip(ids, attempts, strict=True)]
            insert = _insert("attempt", ("request", *_ATTEMPT), owned[0], more=", usage_ids", select=", '{1,2,3,4}'::bigint[]")
            await connection.execute(insert, *zip(*owned, strict=True))

    return batch


def bare_sqlite(path: Path) -> Batch:
    """The same rows, by the standard library's driver, on this thread."""
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA synchronous=FULL")

    async def batch(of: list[Ask]) -> None:
        requests, attempts = _rows(of)
        db.execute("BEGIN IMMEDIATE")
        ids = itertools.count(db.execute("SELECT coalesce(max(id), 0) + 1 FROM request").fetchone()[0])
        db.executemany(_values("request", ("id", *_REQUEST)), [(next(ids), *map(_plain, row)) for row in requests])
        ids = itertools.count(next(ids) - len(of))
        named = _values("attempt", ("request", *_ATTEMPT, "usage_ids"))
        db.executemany(named, [(next(ids), *map(_plain, row), "[1, 2, 3, 4]") for row in attempts])
        db.execute("COMMIT")

    return batch


def _values(table: str, columns: Sequence[str]) -> str:
    return f"INSERT INTO {table} ({', '.join(map(_quoted, columns))}) VALUES ({', '.join('?' * len(columns))})"


def _plain(value: Any) -> Any:
    return str(value) if hasattr(value, "isoformat") else value


# ---- measuring


@dataclass(slots=True)
class Side:
    """One of the two that take turns. `backends` gives the processes that work for it on the server."""

    batch: Batch
    backends: Callable[[], Awaitable[list[int]]] | None = None
    times: list[float] = field(default_factory=list)
    """Seconds, of each batch of the round."""
    client: float = 0.0
    server: float = 0.0
    """CPU seconds of the round."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one side in one round."""

    wall: float
    times: list[float]
    cpu_ms: float
    """Per request, client and server."""
    client_ms: float
    server_ms: float

    @property
    def rate(self) -> float:
        return BATCH * len(self.times) / self.wall


async def take_turns(sides: Sequence[Side], tenants: int, batches: int) -> list[Figures]:
    for side in sides:
        side.times, side.client = [], 0.0
        side.server = -await _server_seconds(side)
    for _ in range(batches):
        for side in sides:
            of = asks(tenants)
            begin, cpu = time.perf_counter(), time.process_time()
            await side.batch(of)
            side.client += time.process_time() - cpu
            side.times.append(time.perf_counter() - begin)
    figures = []
    for side in sides:
        side.server += await _server_seconds(side)
        client, server = (1e3 * seconds / (BATCH * batches) for seconds in (side.client, side.server))
        figures.append(Figures(sum(side.times), side.times, client + server, client, server))
    return figures


async def _server_seconds(side: Side) -> float:
    return 0.0 if side.backends is None else sum(map(_cpu_seconds, await side.backends()))


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def compare(sides: Sequence[Side], tenants: int, rounds: int = ROUNDS) -> list[list[Figures]]:
    """The figures of each side in each round."""
    await take_turns(sides, tenants, WARM_UP)
    return list(zip(*[await take_turns(sides, tenants, BATCHES) for _ in range(rounds)], strict=True))  # type: ignore[arg-type]


def tell(name: str, rounds: Sequence[Figures]) -> None:
    print(line(f"{name}", [f.rate for f in rounds], "req/s"))
    times = [1e3 * seconds for f in rounds for seconds in f.times]
    print(f"  {name + ', a batch':<44} p50 {quantile(times, 0.5):.1f} ms, p99 {quantile(times, 0.99):.1f} ms")
    client, server = (median(getattr(f, side) for f in rounds) for side in ("client_ms", "server_ms"))
    print(f"  {name + ', CPU a request':<44} client {client:.3f} ms, server {server:.3f} ms")


# ---- where


@asynccontextmanager
async def _ours(url: str) -> AsyncIterator[Ledger]:
    # No beats meanwhile: on SQLite one would wait for the loop, which waits in `bare_sqlite` for it.
    ledger = Ledger(url, heartbeat_s=3600, stale_s=7200, keep_days=7, pool_size=1, name="bench")
    await ledger.start()
    try:
        yield ledger
    finally:
        await ledger.close()


@asynccontextmanager
async def _driver(url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(url.replace("+asyncpg", "", 1))
    try:
        yield connection
    finally:
        await connection.close()


def _side_of_ours(ledger: Ledger, watch: asyncpg.Connection) -> Side:
    async def backends() -> list[int]:
        theirs = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'scrimp'"
        return [row["pid"] for row in await watch.fetch(theirs)]

    return Side(verbs(ledger), backends)


def _side_of_bare(connection: asyncpg.Connection) -> Side:
    async def backends() -> list[int]:
        return [connection.get_server_pid()]

    return Side(bare(connection), backends)


async def postgres(tenants: int, what: str) -> None:
    async with fresh_ledger() as url, _ours(url) as ledger, _driver(url) as connection:
        fsync = await connection.fetchval("SHOW fsync")
        bare_rounds, our_rounds = await compare([_side_of_bare(connection), _side_of_ours(ledger, connection)], tenants)
    print(f"ledger, PostgreSQL (fsync {fsync}), {what}: batches of {BATCH}, {ROUNDS} rounds of {BATCHES}, in turns")
    tell("bare INSERT", bare_rounds)
    tell("open + settle", our_rounds)
    ratios = [b.wall / o.wall for b, o in zip(bare_rounds, our_rounds, strict=True)]
    print(line("ratio", ratios, "x"))
    print(verdict("ratio (median of the rounds)", median(ratios), 0.15, at_least=True))
    print(verdict("CPU ms a request (median of the rounds)", median(f.cpu_ms for f in our_rounds), 0.7, at_least=False), flush=True)


async def sqlite(tenants: int, what: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "ledger.db")
        url = f"sqlite+aiosqlite:///{path}"
        await upgrade(url)
        async with _ours(url) as ledger:
            bare_rounds, our_rounds = await compare([Side(bare_sqlite(path)), Side(verbs(ledger))], tenants)
    print(f"ledger, SQLite, {what}: batches of {BATCH}, {ROUNDS} rounds of {BATCHES}, in turns")
    tell("bare INSERT", bare_rounds)
    tell("open + settle", our_rounds)
    print(line("ratio", [b.wall / o.wall for b, o in zip(bare_rounds, our_rounds, strict=True)], "x"), flush=True)


async def grown(tenants: int, what: str) -> None:
    async with AsyncExitStack() as on_exit:
        sides = []
        for rows in (0, GROWN):
            url = await on_exit.enter_async_context(fresh_ledger())
            connection = await on_exit.enter_async_context(_driver(url))
            if rows:
                await _fill(connection, rows)
            sides.append(_side_of_ours(await on_exit.enter_async_context(_ours(url)), connection))
        empty, full = await compare(sides, tenants)
    print(f"ledger, PostgreSQL, growth, {what}: an empty ledger and one of {GROWN:,} attempts, in turns")
    tell("open + settle, empty", empty)
    tell("open + settle, grown", full)
    slower = [f.wall / e.wall for e, f in zip(empty, full, strict=True)]
    print(line("slower", slower, "x"))
    print(verdict("slower (median of the rounds)", median(slower), 1.3, at_least=False), flush=True)


async def _fill(connection: asyncpg.Connection, rows: int) -> None:
    began = time.perf_counter()
    await connection.execute(
        f"""
        INSERT INTO request (tenant, request_id, body_hash, feature, "user", lane, purpose, created_at, status, ended_at, revision,
                             published_revision)
        SELECT 't' || i % 50, 'old-' || md5(i::text), md5(i::text), 'support-bot', 'u' || i % 4, 'interactive', 'request',
               now() - interval '30 days', 'answered', now() - interval '30 days', 1, 1 FROM generate_series(1, {rows}) AS i"""
    )
    await connection.execute(
        """
        INSERT INTO attempt (request, n, worker, seq, tier, model, provider, state, price_id, reserved_usd, reserved_tokens, input_tokens,
                             output_tokens, cost, used_tokens, verdict, outcome, usage_ids, opened_at, expires_at, settled_at)
        SELECT id, 1, 'old', id, 'light', 'mini', 'openai', 'settled', 'old', 5000000, 900, 700, 100, 1650000, 800, 'accepted', 'accepted',
               '{1,2,3,4}', created_at, created_at, created_at FROM request"""
    )
    await connection.execute("VACUUM ANALYZE")
    await connection.execute("CHECKPOINT")
    print(f"  {rows:,} attempts filled in in {time.perf_counter() - began:.0f} s", flush=True)


FEW, MANY = (1, "few counters (4)"), (50, "four budgets over 50 tenants")


async def main(*, growth: bool) -> None:
    for case in (FEW, MANY):
        await postgres(*case)
    for case in (FEW, MANY):
        await sqlite(*case)
    if growth:
        await grown(*MANY)
