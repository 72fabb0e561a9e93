"""Are the books right? Every figure of the ledger computed again from the rows below it, by SQL and arithmetic of this module's own.

An attempt's cost comes from its tokens and the price row it was made at, a counter from the attempts that name it, a request's figures from
its attempts, and the stored `Response` and `CostRecord` must say what the rows say. It stands on the standard library and the database
driver alone: code that is to be checked is not asked. It may run while the fleet does: it reads one snapshot, blocks nobody and writes
nothing. A problem names its row and what was found against what was expected; it never holds a prompt or an answer.

Rows are streamed. In memory are the price and worker rows, one request with its attempts, `AHEAD` rows read ahead and the first `LISTED`
problems; sums by counter are the database's work, which spills to its disk. So three million attempts take minutes, not gigabytes.
What cannot be seen: a request that is gone with its attempts and their sums, and figures changed together so that they still agree.
A database that cannot be reached or read raises the driver's own error.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Context, Decimal, InvalidOperation, localcontext
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

import asyncpg  # type: ignore[import-untyped]

LISTED = 1000
"""Problems that are named; more are counted."""
AHEAD = 64
"""Rows of a stream that are read ahead of their check. A stored response may be a megabyte."""

Row = Any
"""A row of either driver: `row["column"]`."""
_EXACT = Context(prec=200, rounding=ROUND_HALF_EVEN)
_UNIT = Decimal("1e-10")  # of the money columns, in dollars
_MICRO = 10_000  # units in the micro-dollar that a request's money is rounded to
_MILLION = 1_000_000

_STATES = ("reserved", "settled", "unconfirmed", "abandoned")
_STATUSES = ("answered", "rejected", "expired", "failed")
_SPOKEN = ("accepted", "escalate")  # the verdicts on an answer
_VERDICTS = (*_SPOKEN, "error", "context")
_USAGE = ("input_tokens", "cached_input_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens")
_LEVERS = ("routing", "cache", "compression", "batch")
_MONEY = ("cost", "unconfirmed", "baseline", *_LEVERS)
_COUNTS = ("reserved_usd", "reserved_tokens", "cost", "used_tokens", *_USAGE)  # of an attempt; none is negative
_FIGURES = (*_MONEY, "revision", "published_revision")  # of a request; some may be
_FACTS = ("request_id", "tenant", "feature", "user", "experiment", "lane")
_RATES = ("input", "cached_input", "cache_write", "output", "reasoning")


@dataclass
class Findings:
    """What the books say, and what is wrong with them. Money in units of 1e-10 dollars."""

    requests: int = 0
    """Claimed ids."""
    attempts: int = 0
    by_state: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_STATES, 0))
    spent: int = 0
    """Of the settled attempts."""
    unconfirmed: int = 0
    """Of the attempts that were cut off, at their worst case."""
    problems: list[str] = field(default_factory=list)
    unlisted: int = 0

    def say(self, row: str, texts: Iterable[str]) -> None:
        for text in texts:
            if len(self.problems) < LISTED:
                self.problems.append(f"{row}: {text}")
            else:
                self.unlisted += 1

    def document(self) -> dict[str, Any]:
        """The findings as JSON; `problems` is empty when the books are right."""
        return {
            "requests": self.requests,
            "attempts": self.attempts,
            "by_state": self.by_state,
            "spent_usd": _dollars(self.spent),
            "unconfirmed_usd": _dollars(self.unconfirmed),
            "problems": self.problems + ([f"and {self.unlisted} more problems"] if self.unlisted else []),
        }


async def verify(url: str, *, stale_s: float, grace_s: float, keep_days: float) -> Findings:
    """Check the ledger at `url` (`sqlite+aiosqlite:///…` or `postgresql+asyncpg://…`), whose schema is of this version.

    A worker that is silent for `stale_s` is lost. What it left reserved is a problem if no sweep has written it off `grace_s` later, and at
    once if it has no row. Answers of requests that never ended are purged after `keep_days`.
    """
    found = Findings()
    async with _sqlite(url) if url.startswith("sqlite") else _postgres(url) as database:
        [now] = [_time(row["now"]) async for row in database.rows(database.now)]
        assert now is not None, "a database tells the time"
        prices = {row["id"]: row async for row in database.rows("SELECT * FROM price")}
        beats = {row["id"]: _time(row["beat"]) async for row in database.rows("SELECT id, beat FROM worker")}
        rules = _Rules(now, timedelta(seconds=stale_s), timedelta(seconds=grace_s), timedelta(days=keep_days), beats)
        for price_id, row in prices.items():
            rules.prices[price_id] = _rates(row)
            found.say(f"price {price_id}", _check_price(row, rules.prices[price_id]))
        async for request, attempts in _requests(database):
            _check(found, request, attempts, rules)
        await _check_counters(found, database)
        async for row in database.rows(_SHARED):
            found.say(_name(row, row["n"]), [f"asked for by {row['worker']} ({row['seq']}), which asked that for another request"])
    return found


# ---- the databases


@dataclass(frozen=True)
class _Database:
    """One state of a database."""

    rows: Callable[[str], AsyncIterator[Row]]
    """The rows of a query, as a stream; several may be read in turns."""
    now: str
    """The query of its clock."""
    named: str
    """Joins each attempt `a` with the counters it names, as `named.value`."""


@asynccontextmanager
async def _sqlite(url: str) -> AsyncIterator[_Database]:
    # mode=ro: a file that is not there is an error, and not made.
    path = quote(url.partition(":///")[2].partition("?")[0])
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None, timeout=30)) as connection:
        connection.row_factory = sqlite3.Row
        connection.execute("BEGIN")  # the first read takes the snapshot

        async def rows(query: str) -> AsyncIterator[Row]:
            for row in connection.execute(query):
                yield row

        yield _Database(
            rows,
            now="SELECT strftime('%Y-%m-%d %H:%M:%f', 'now') AS now",
            named="JOIN json_each(CASE WHEN json_valid(a.usage_ids) THEN a.usage_ids ELSE '[]' END) AS named",
        )


@asynccontextmanager
async def _postgres(url: str) -> AsyncIterator[_Database]:
    parts = urlsplit(url.replace("+asyncpg", "", 1))
    # What stands behind the question mark are the driver's arguments, and some of SQLAlchemy's own.
    options: dict[str, Any] = {name: value for name, value in parse_qsl(parts.query) if not name.startswith("prepared_statement")}
    connection = await asyncpg.connect(parts._replace(query="").geturl(), timeout=30, **options)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):

            async def rows(query: str) -> AsyncIterator[Row]:
                async for row in connection.cursor(query, prefetch=AHEAD):
                    yield row

            yield _Database(rows, now="SELECT now() AS now", named="CROSS JOIN LATERAL unnest(a.usage_ids) AS named(value)")
    finally:
        await connection.close(timeout=10)


_REQUESTS = f"""\
SELECT id, body_hash, purpose, created_at, ended_at, status, reason_code, tier, model, source, response, cost_record, revision,
       published_revision, {", ".join(f'"{name}"' for name in (*_FACTS, *_MONEY))}
FROM request ORDER BY id"""
_ATTEMPTS = f"""\
SELECT request, n, worker, seq, tier, model, provider, state, price_id, reserved_usd, reserved_tokens, cost, used_tokens, verdict, outcome,
       answer IS NOT NULL AS answered, estimated, usage_ids, opened_at, expires_at, settled_at, {", ".join(_USAGE)}
FROM attempt ORDER BY request, n"""
_SHARED = """\
SELECT r.tenant, r.request_id, a.n, a.worker, a.seq
FROM (SELECT worker, seq, max(request) AS request FROM attempt GROUP BY worker, seq HAVING min(request) <> max(request)) AS shared
JOIN attempt AS a ON a.request = shared.request AND a.worker = shared.worker AND a.seq = shared.seq
JOIN request AS r ON r.id = a.request"""


async def _requests(database: _Database) -> AsyncIterator[tuple[Row | None, list[Row]]]:
    """Each request with its attempts; attempts whose request is gone come with None."""
    groups = _by_request(database.rows(_ATTEMPTS))
    attempts = await anext(groups, None)
    async for request in database.rows(_REQUESTS):
        while attempts and attempts[0]["request"] < request["id"]:
            yield None, attempts
            attempts = await anext(groups, None)
        if attempts and attempts[0]["request"] == request["id"]:
            yield request, attempts
            attempts = await anext(groups, None)
        else:
            yield request, []
    while attempts:
        yield None, attempts
        attempts = await anext(groups, None)


async def _by_request(rows: AsyncIterator[Row]) -> AsyncIterator[list[Row]]:
    attempts: list[Row] = []
    async for row in rows:
        if attempts and attempts[0]["request"] != row["request"]:
            yield attempts
            attempts = []
        attempts.append(row)
    if attempts:
        yield attempts


# ---- a request with its attempts


@dataclass(frozen=True)
class _Rules:
    """What a row is held against, apart from itself."""

    now: datetime
    stale: timedelta
    grace: timedelta
    keep: timedelta
    beats: Mapping[str, datetime | None]
    """Of each worker: when it was last heard of."""
    prices: dict[str, _Rates | None] = field(default_factory=dict)


def _check(found: Findings, request: Row | None, attempts: list[Row], rules: _Rules) -> None:
    found.requests += request is not None
    found.attempts += len(attempts)
    countable = True
    for a in attempts:
        found.by_state[a["state"]] = found.by_state.get(a["state"], 0) + 1
        name = f"request {a['request']}#{a['n']}" if request is None else _name(request, a["n"])
        if request is None:
            found.say(name, ["an attempt of a request that is not in the books"])
        if uncountable := _uncountable(a, _COUNTS):
            countable = False
            found.say(name, uncountable)
            continue
        found.spent += a["cost"] if a["state"] == "settled" else 0
        found.unconfirmed += a["cost"] if a["state"] == "unconfirmed" else 0
        found.say(name, _check_attempt(a, rules))
    if request is None:
        return
    if uncountable := _uncountable(request, _FIGURES):
        found.say(_name(request), uncountable)
        return
    if not countable:
        return
    found.say(_name(request), _check_order(attempts))
    if request["ended_at"] is None and request["status"] is None:
        found.say(_name(request), _check_under_way(request))
    else:
        found.say(_name(request), _check_ended(request, attempts))
    found.say(_name(request), _check_answers(request, attempts, rules))


def _name(request: Row, n: int | None = None) -> str:
    return f"{request['tenant']}/{request['request_id']}" + ("" if n is None else f"#{n}")


def _uncountable(row: Row, names: Sequence[str]) -> list[str]:
    """Figures that are none: SQLite keeps any text in a column of integers."""
    wrong = [n for n in names if not isinstance(row[n], int) or (names is _COUNTS and row[n] < 0)]
    return [f"{name} is {_short(row[name])}" for name in wrong]


def _check_order(attempts: Sequence[Row]) -> Iterator[str]:
    """Attempts are numbered from 1, one after another, and one at a time is under way."""
    for expected, a in enumerate(attempts, start=1):
        if a["n"] != expected:
            yield f"its attempts are {[a['n'] for a in attempts]}, not {list(range(1, len(attempts) + 1))}"
            break
    for before, after in itertools.pairwise(attempts):
        if before["state"] == "reserved":
            yield f"attempt {before['n']} is still reserved, but {after['n']} was opened"
    asked: dict[Any, int] = {}
    for a in attempts:
        first = asked.setdefault((a["worker"], a["seq"], a["opened_at"]), a["n"])
        if first != a["n"]:
            yield f"attempt {a['n']} is attempt {first} again: the same ask of the same worker at the same time"


def _check_attempt(a: Row, rules: _Rules) -> Iterator[str]:
    """What one row must say of itself."""
    state, price_id = a["state"], a["price_id"]
    rates = rules.prices.get(price_id)
    if price_id is not None and price_id not in rules.prices:
        yield f"its price {price_id} is not in the books"
    elif rates is not None and (a["model"], a["provider"]) != (rates.model, rates.provider):
        yield f"made with {a['model']} of {a['provider']}, but priced as {rates.model} of {rates.provider}"
    if state == "settled":
        if price_id is None:
            yield from _differ("cost", a["cost"], 0, "since its price is unknown", _usd)
        elif rates is not None:
            yield from _differ("cost", a["cost"], rates.cost(a), f"by its tokens at price {price_id}", _usd)
        yield from _differ("used_tokens", a["used_tokens"], a["input_tokens"] + a["output_tokens"], "input and output")
    else:
        worst = state == "unconfirmed"
        why = "the worst case it was reserved at" if worst else f"since it is {state}"
        yield from _differ("cost", a["cost"], a["reserved_usd"] if worst else 0, why, _usd)
        yield from _differ("used_tokens", a["used_tokens"], a["reserved_tokens"] if worst else 0, why)
        for name in _USAGE:
            yield from _differ(name, a[name], 0, f"since it is {state}")
        if a["answered"]:
            yield f"it has an answer, though it is {state}"
    if state not in _STATES:
        yield f"its state is {state!r}"
    if a["verdict"] not in (_VERDICTS if state == "settled" else (None,) if state == "reserved" else (None, *_VERDICTS)):
        yield f"its verdict is {a['verdict']!r}, though it is {state}"
    if (a["settled_at"] is None) != (state == "reserved"):
        yield f"it is {state}, but its settled_at is {a['settled_at']}"
    counters = _list(a["usage_ids"])
    if counters is None or len(set(counters)) < len(counters):
        yield f"its counters are {a['usage_ids']}: not a list, or one twice"
    if state == "reserved":
        yield from _check_owner(a, rules)


def _check_owner(a: Row, rules: _Rules) -> Iterator[str]:
    """Somebody must be going to settle it. The sweep of any `attribute` writes off what nobody will."""
    if a["worker"] not in rules.beats:
        yield f"an orphan reservation: its owner {a['worker']} is not among the workers, and no sweep has written it off"
        return
    beat, expires = rules.beats[a["worker"]], _time(a["expires_at"])
    if beat is None or expires is None:
        yield f"an orphan reservation: its owner was last heard of at {beat}, and it expires at {a['expires_at']}"
        return
    lost = min(beat + rules.stale, expires)
    if lost + rules.grace < rules.now:
        yield f"an orphan reservation: its owner {a['worker']} lost it at {lost}, and no sweep has written it off by {rules.now}"


def _check_under_way(r: Row) -> Iterator[str]:
    for name in ("reason_code", "tier", "model", "source", "response", "cost_record"):
        if r[name] is not None:
            yield f"it has not ended, but has its {name}"
    for name in _FIGURES:
        yield from _differ(name, r[name], 0, "since it has not ended")


def _check_ended(r: Row, attempts: Sequence[Row]) -> Iterator[str]:
    if missing := [n for n in ("tenant", "request_id", "feature", "body_hash", "lane", "purpose", "created_at", "ended_at") if not r[n]]:
        yield f"it has ended as {r['status']}, but its facts are not there: {', '.join(missing)}"
    if r["status"] not in _STATUSES or (r["reason_code"] is None) != (r["status"] == "answered"):
        yield f"its ending is {r['status']!r} with the reason {r['reason_code']!r}"
    if not 1 <= r["published_revision"] <= r["revision"]:
        yield f"its revision is {r['revision']}, of which {r['published_revision']} is published"
    settled = [a for a in attempts if a["state"] == "settled"]
    yield from _differ("cost", r["cost"], _rounded(settled), "the sum of its settled attempts", _usd)
    cut_off = [a for a in attempts if a["state"] == "unconfirmed"]
    yield from _differ("unconfirmed", r["unconfirmed"], _rounded(cut_off), "the sum of its unconfirmed attempts", _usd)
    saved = sum(r[lever] for lever in _LEVERS)
    yield from _differ(" + ".join(_LEVERS), saved, r["baseline"] - r["cost"], "baseline - cost", _usd)
    if r["status"] != "answered":
        for name in ("baseline", "cache", "compression", "batch"):
            yield from _differ(name, r[name], 0, "since nothing was answered", _usd)
    if r["source"] != "batch":
        yield from _differ("batch", r["batch"], 0, f"since its source is {r['source']}", _usd)
    yield from _check_record(r, attempts, settled)
    yield from _check_response(r, attempts, settled)


def _rounded(attempts: Sequence[Row]) -> int:
    """The sum of their costs, rounded half-even to the micro-dollar; in units."""
    total: int = sum(a["cost"] for a in attempts)
    whole, rest = divmod(total, _MICRO)
    up = 2 * rest > _MICRO or (2 * rest == _MICRO and whole % 2 == 1)
    return (whole + up) * _MICRO


def _check_answers(r: Row, attempts: Sequence[Row], rules: _Rules) -> Iterator[str]:
    """An answer is kept until its request's response is purged."""
    if r["ended_at"] is not None and r["response"] is None:
        for a in attempts:
            if a["answered"]:
                yield f"its response is gone, but the answer of attempt {a['n']} is kept"
        return
    created = _time(r["created_at"])
    if created is not None and created + rules.keep <= rules.now:
        return  # they may have been purged before it ended
    silent = [a for a in attempts if a["state"] == "settled" and a["verdict"] in _SPOKEN and not a["answered"]]
    if r["revision"] > 1:
        # What was settled after the ending keeps no answer. The response was made without it, and so without its tokens.
        response = _document(r["response"]) or {}
        billed = sum(n for name in ("input_tokens", "output_tokens") if isinstance(n := _at(response, ("usage", name)), int))
        if billed + sum(a["used_tokens"] for a in silent) <= sum(a["used_tokens"] for a in attempts if a["state"] == "settled"):
            return
    for a in silent:
        yield f"attempt {a['n']} is settled as {a['verdict']}, but its answer is gone"


# ---- the stored documents


def _check_record(r: Row, attempts: Sequence[Row], settled: Sequence[Row]) -> Iterator[str]:
    """The CostRecord is of the newest revision, so it says what the rows say, to the last figure."""
    record = _document(r["cost_record"])
    if record is None:
        yield "it has ended, but its CostRecord is missing or is no JSON object"
        return
    expected = _said(r, _LEVERS) | {"purpose": r["purpose"], "revision": r["revision"], "usage": _usage(settled)}
    expected |= {"cost_usd": _dollars(r["cost"]), "unconfirmed_usd": _dollars(r["unconfirmed"])}
    if any(a["price_id"] is None for a in settled):
        expected["price_unknown"] = True
    if any(a["estimated"] for a in attempts):
        expected["estimated"] = True
    yield from _compare("CostRecord", record, expected)
    yield from _compare_time("CostRecord", record, "occurred_at", r["ended_at"])
    listed = record.get("attempts")
    if not isinstance(listed, list) or len(listed) != len(attempts):
        yield f"its CostRecord lists {len(listed) if isinstance(listed, list) else 'no'} attempts, the books hold {len(attempts)}"
        return
    for i, (said, a) in enumerate(zip(listed, attempts, strict=True)):
        expected = {name: a[name] for name in ("n", "model", "provider", "state", "outcome")}
        yield from _compare("CostRecord", said, expected | {"cost_usd": _dollars(a["cost"]), "usage": _usage([a])}, f"attempts.{i}.")


def _check_response(r: Row, attempts: Sequence[Row], settled: Sequence[Row]) -> Iterator[str]:
    """The Response keeps the figures of the ending. Later revisions differ from it in the attempts, and so in cost and routing."""
    if r["response"] is None:  # purged, or forgotten
        return
    response = _document(r["response"])
    if response is None:
        yield "its response is no JSON object"
        return
    first = r["revision"] == 1
    expected = _said(r, _LEVERS if first else ("cache", "compression", "batch"))
    if r["status"] != "answered":
        expected["reason"] = {"code": r["reason_code"]}
    if first:
        expected |= {"cost_usd": _dollars(r["cost"]), "unconfirmed_usd": _dollars(r["unconfirmed"]), "usage": _usage(settled)}
        expected["attempts"] = sum(a["state"] != "abandoned" for a in attempts)
    yield from _compare("response", response, expected)
    yield from _compare_time("response", response, "finished_at", r["ended_at"])
    baseline, cost, *saved = (_decimal(_at(response, path)) for path in _LEVERED)
    if baseline is None or cost is None or None in saved or baseline - cost != sum(filter(None, saved)):
        yield "the levers in its response do not add up to its baseline - cost"


_LEVERED = (("baseline_usd",), ("cost_usd",), *(("saved_usd", lever) for lever in _LEVERS))


def _said(r: Row, levers: Sequence[str]) -> dict[str, Any]:
    """What both documents say of a request. Money is decimal text, without an exponent and without zeros at its end."""
    expected: dict[str, Any] = {name: r[name] for name in (*_FACTS, "status", "tier", "model")}
    expected["source"] = r["source"] if r["status"] == "answered" else None
    expected["baseline_usd"] = _dollars(r["baseline"])
    expected["saved_usd"] = {lever: _dollars(r[lever]) for lever in levers}
    return expected


def _usage(attempts: Sequence[Row]) -> dict[str, int]:
    return {name: sum(a[name] for a in attempts) for name in _USAGE}


def _compare(what: str, document: Any, expected: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Where a document does not say what is expected; it may say more."""
    told = document if isinstance(document, dict) else {}
    for name, want in expected.items():
        said = told.get(name)
        if isinstance(want, dict):
            yield from _compare(what, said, want, f"{path}{name}.")
        elif said != want:
            yield f"{path}{name} in its {what} is {_short(said)}, in the books {_short(want)}"


def _compare_time(what: str, document: Any, name: str, stored: Any) -> Iterator[str]:
    said, want = _time(_at(document, (name,))), _time(stored)
    if said is None or said != want:
        yield f"{name} in its {what} is {said}, in the books {_short(stored)}"


def _at(document: Any, path: Sequence[str]) -> Any:
    for name in path:
        document = document.get(name) if isinstance(document, dict) else None
    return document


# ---- counters

_SUMS = """\
WITH said AS (
    SELECT named.value AS id,
           sum(CASE WHEN a.state = 'reserved' THEN a.reserved_usd ELSE 0 END) AS reserved_usd,
           sum(CASE WHEN a.state = 'reserved' THEN a.reserved_tokens ELSE 0 END) AS reserved_tokens,
           sum(CASE WHEN a.state = 'reserved' THEN 0 ELSE a.cost END) AS spent_usd,
           sum(CASE WHEN a.state = 'reserved' THEN 0 ELSE a.used_tokens END) AS spent_tokens
    FROM attempt AS a {named} GROUP BY named.value
), expected AS (
    SELECT b.*, coalesce(CASE b.kind WHEN 'usd' THEN said.reserved_usd ELSE said.reserved_tokens END, 0) AS reserved_of_rows,
           coalesce(CASE b.kind WHEN 'usd' THEN said.spent_usd ELSE said.spent_tokens END, 0) AS spent_of_rows
    FROM budget_usage AS b LEFT JOIN said ON said.id = b.id
)
SELECT * FROM expected WHERE reserved <> reserved_of_rows OR spent <> spent_of_rows ORDER BY id"""
_MISSING = """\
SELECT a.request, a.n, r.tenant, r.request_id, named.value AS counter
FROM attempt AS a {named} LEFT JOIN request AS r ON r.id = a.request LEFT JOIN budget_usage AS b ON b.id = named.value
WHERE b.id IS NULL ORDER BY a.request, a.n"""


async def _check_counters(found: Findings, database: _Database) -> None:
    """A counter holds what the attempts that name it have reserved and spent, to the unit."""
    async for c in database.rows(_SUMS.format(named=database.named)):
        show = _usd if c["kind"] == "usd" else None
        name = f"counter {c['scope']} {c['kind']}/{c['window']} from {_time(c['starts_at'])}"
        for column in ("reserved", "spent"):
            found.say(name, _differ(column, c[column], int(c[f"{column}_of_rows"]), "by its attempts", show))
    async for a in database.rows(_MISSING.format(named=database.named)):
        name = f"request {a['request']}#{a['n']}" if a["tenant"] is None else _name(a, a["n"])
        found.say(name, [f"it counts in counter {a['counter']}, which is not in the books"])


# ---- prices


@dataclass(frozen=True)
class _Rates:
    """Dollars per million tokens, of a price row."""

    model: str
    provider: str
    steps: tuple[tuple[int, Mapping[str, Decimal]], ...]
    """The rates of requests of more input tokens than each threshold, ascending from -1."""

    def cost(self, a: Row) -> int:
        """Units that an attempt's tokens cost, rounded half-even. Input includes cached and written tokens, output includes reasoning."""
        rates = next(rates for threshold, rates in reversed(self.steps) if a["input_tokens"] > threshold)
        reasoning = min(a["reasoning_tokens"], a["output_tokens"])
        counts = {
            "input": max(a["input_tokens"] - a["cached_input_tokens"] - a["cache_write_tokens"], 0),
            "cached_input": a["cached_input_tokens"],
            "cache_write": a["cache_write_tokens"],
            "output": a["output_tokens"] - reasoning,
            "reasoning": reasoning,
        }
        with localcontext(_EXACT):
            dollars = sum((count * rates[kind] for kind, count in counts.items()), Decimal(0)) / _MILLION
            return int((dollars / _UNIT).to_integral_value())


def _rates(row: Row) -> _Rates | None:
    """None: they cannot be read."""
    above = [] if row["above"] is None else _list(row["above"])
    steps = [[-1, {name: row[name] for name in _RATES}], *(above or ())]
    read: list[tuple[int, Mapping[str, Decimal]]] = []
    for step in steps:
        if not (isinstance(step, list) and len(step) == 2 and isinstance(step[0], int) and isinstance(step[1], dict)):
            return None
        texts = step[1] | {"reasoning": step[1].get("output") if step[1].get("reasoning") is None else step[1]["reasoning"]}
        rates = {name: value for name in _RATES if (value := _decimal(texts.get(name))) is not None}
        if len(rates) < len(_RATES) or min(rates.values()) < 0:
            return None
        read.append((step[0], rates))
    return _Rates(row["model"], row["provider"], tuple(read)) if above is not None else None


def _check_price(row: Row, rates: _Rates | None) -> Iterator[str]:
    """The row is content-addressed: its id is the digest of the rest."""
    if rates is None:
        yield "its rates cannot be read, so no attempt at it can be checked"
    fields = {name: row[name] for name in ("model", "provider", *_RATES, "source", "above")}
    digest = hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:32]
    if digest != row["id"]:
        yield f"a rate was changed: its id is the digest of other rates than it holds ({digest})"


# ---- values


def _differ(name: str, found: Any, expected: Any, why: str, show: Callable[[Any], str] | None = None) -> Iterator[str]:
    if found != expected:
        show = show or _short
        yield f"{name} is {show(found)}, expected {show(expected)} ({why})"


def _usd(units: int) -> str:
    return f"${_dollars(units)}"


def _dollars(units: int) -> str:
    """Plain decimal, no exponent, no trailing zeros."""
    whole, rest = divmod(abs(units), 10**10)
    return f"{'-' if units < 0 else ''}{whole}.{rest:010}".rstrip("0").rstrip(".")


def _decimal(value: Any) -> Decimal | None:
    """Of a decimal string; None of anything else."""
    try:
        number = Decimal(value) if isinstance(value, str) else None
    except InvalidOperation:
        return None
    return number if number is not None and number.is_finite() else None


def _time(value: Any) -> datetime | None:
    """Of a time or its text, which without a zone is UTC (as SQLite keeps it); None of anything else."""
    try:
        time = datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        return None
    return time.replace(tzinfo=time.tzinfo or UTC) if isinstance(time, datetime) else None


def _document(stored: Any) -> dict[str, Any] | None:
    try:
        document = json.loads(stored)
    except (TypeError, ValueError):
        return None
    return document if isinstance(document, dict) else None


def _list(stored: Any) -> list[Any] | None:
    """A list, or the JSON of one."""
    try:
        value = json.loads(stored) if isinstance(stored, str) else stored
    except ValueError:
        return None
    return value if isinstance(value, list) else None


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 100 else f"{text[:100]}…"
