"""The ledger's rows by plain SQL, and what must hold between them, the provider's log and what was published."""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

import asyncpg

from tests.kafka.fleet import STALE_S, Fleet
from tests.kafka.provider import digest
from tests.kafka.topics import Topics, eventually, key
from workers.ledger.verify import verify

UNIT = Decimal("1e-10")
MICRO = Decimal("0.000001")
ROWS = """\
SELECT r.tenant, r.request_id, r.status, a.n, a.state, a.cost FROM request r LEFT JOIN attempt a ON a.request = r.id ORDER BY r.id, a.n"""
SPENDING = "SELECT scope, spent, reserved FROM budget_usage WHERE kind = 'usd'"


@dataclass
class Row:
    """A request in the books."""

    status: str | None
    states: list[str]
    """Of its attempts, in order."""
    costs: list[Decimal]
    """Dollars of its attempts, in order."""

    @property
    def sent(self) -> list[str]:
        """The states without `abandoned`: a worker too starved to beat in time holds its call back, which is free, and asks again."""
        return [state for state in self.states if state != "abandoned"]

    def dollars(self, state: str) -> Decimal:
        """What the attempts in this state cost, as a request's money is rounded."""
        return sum((c for s, c in zip(self.states, self.costs, strict=True) if s == state), Decimal(0)).quantize(MICRO, ROUND_HALF_EVEN)


async def rows(fleet: Fleet) -> dict[str, Row]:
    """Every request in the ledger, by `tenant/request_id`."""
    found: dict[str, Row] = {}
    for tenant, request_id, status, n, state, cost in await select(fleet.ledger_url, ROWS):
        row = found.setdefault(f"{tenant}/{request_id}", Row(status, [], []))
        if n is not None:
            assert n == len(row.states) + 1, f"{tenant}/{request_id}: attempt {n} after {len(row.states)}"
            row.states.append(state)
            row.costs.append(cost * UNIT)
    return found


async def spending(fleet: Fleet, tenant: str) -> tuple[Decimal, Decimal]:
    """Dollars spent and reserved in the budget windows of this tenant."""
    counted = await select(fleet.ledger_url, SPENDING)
    mine = [(spent * UNIT, reserved * UNIT) for scope, spent, reserved in counted if json.loads(scope) == {"tenant": tenant}]
    return sum((spent for spent, _ in mine), Decimal(0)), sum((reserved for _, reserved in mine), Decimal(0))


async def select(url: str, query: str) -> list[tuple[Any, ...]]:
    """What this SQL without parameters finds in the ledger."""
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.partition(":///")[2], timeout=20)) as connection:
            return connection.execute(query).fetchall()
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        return [tuple(row) for row in await connection.fetch(query)]
    finally:
        await connection.close()


@dataclass
class Account:
    """What three witnesses say of one request: the topics, the ledger, the provider."""

    responses: list[bytes]
    response: dict[str, Any]
    cost: dict[str, Any]
    """The newest cost record."""
    costs: set[bytes]
    """Every value of it there was."""
    row: Row
    calls: int


async def account(
    fleet: Fleet, topics: Topics, requests: Iterable[Mapping[str, Any]], lanes: Sequence[str] = ("interactive",)
) -> dict[str, Account]:
    """What `witnesses` say, held to what is true of every response as it went out: its money is that of the settled attempts and of the
    unconfirmed ones. (A settlement after the ending changes the books and the cost record, not the response.)"""
    accounts = await witnesses(fleet, topics, requests, lanes)
    for name, one in accounts.items():
        assert Decimal(one.response["cost_usd"]) == one.row.dollars("settled"), name
        assert Decimal(one.response["unconfirmed_usd"]) == one.row.dollars("unconfirmed"), name
    return accounts


async def witnesses(
    fleet: Fleet, topics: Topics, requests: Iterable[Mapping[str, Any]], lanes: Sequence[str] = ("interactive",)
) -> dict[str, Account]:
    """Wait until each of these requests is answered and the fleet is quiet; the account of each by request id.

    Holds every account to what is always true: one ending, however many copies; no attempt left open; the books' money in the cost record;
    the levers add up; no call without an attempt, no settled attempt without a call. The whole ledger is right too.
    """
    requests = list(requests)
    await topics.answers(requests)
    for lane in lanes:
        await topics.quiet(lane)
    copies: dict[str, list[bytes]] = defaultdict(list)
    for record in topics.seen("responses"):
        copies[(record.key or b"").decode()].append(record.value)
    costs: dict[str, set[bytes]] = defaultdict(set)
    for record in topics.seen("costs"):
        costs[(record.key or b"").decode()].add(record.value)
    booked, counts = await rows(fleet), fleet.provider.counts()
    accounts: dict[str, Account] = {}
    for request in requests:
        name = key(request)
        response, cost, row = topics.responses(name)[name][0], topics.costs(name)[name], booked[name]
        calls = counts[digest(request)]
        assert len(set(copies[name])) == 1, f"{name}: copies of the response differ"
        assert row.status == response["status"] == cost["status"], name
        assert "reserved" not in row.states, f"{name}: {row.states}"
        assert row.sent.count("settled") <= calls <= len(row.sent), f"{name}: {calls} of {row.states}"
        assert [a["state"] for a in cost["attempts"]] == row.states, name
        for state, money in (("settled", "cost_usd"), ("unconfirmed", "unconfirmed_usd")):
            assert Decimal(cost[money]) == row.dollars(state), name
        for told in (response, cost):
            saved = sum(map(Decimal, told["saved_usd"].values()), Decimal(0))
            assert Decimal(told["baseline_usd"]) - Decimal(told["cost_usd"]) == saved, name
        accounts[request["request_id"]] = Account(copies[name], response, cost, costs[name], row, calls)
    await assert_right(fleet)
    return accounts


async def assert_right(fleet: Fleet) -> None:
    """`scrimp ledger verify` finds nothing in the whole ledger, once the sweep has seen to what a process left behind."""
    problems: list[str] = []

    async def right() -> bool:
        problems[:] = (await verify(fleet.ledger_url, stale_s=STALE_S, grace_s=60, keep_days=7)).problems
        return not problems

    await eventually(right, lambda: "the books are wrong: " + "; ".join(problems))


def assert_answered_once(accounts: Mapping[str, Account]) -> None:
    """Nothing was lost and nothing repeated: one answer, one copy of it, one settled attempt, one call."""
    for name, one in accounts.items():
        told = (one.response["status"], len(one.responses), one.row.sent, one.calls)
        assert told == ("answered", 1, ["settled"], 1), f"{name}: {told}"
