"""The budgets seen from outside: plain SQL over a connection of its own, which shares no code with the ledger. PostgreSQL.

Each question is one statement, so it sees one moment of the database, also while workers write and die.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from decimal import Decimal

import asyncpg

_OVER = "SELECT scope, kind, reserved + spent AS used FROM budget_usage"
_DRIFT = """
    WITH told AS (
        SELECT counter,
               sum(CASE a.state WHEN 'reserved' THEN 1 ELSE 0 END * a.reserved_usd) AS reserved_usd,
               sum(CASE a.state WHEN 'reserved' THEN 1 ELSE 0 END * a.reserved_tokens) AS reserved_tokens,
               sum(CASE a.state WHEN 'settled' THEN a.cost WHEN 'unconfirmed' THEN a.reserved_usd ELSE 0 END) AS spent_usd,
               sum(CASE a.state WHEN 'settled' THEN a.input_tokens + a.output_tokens WHEN 'unconfirmed' THEN a.reserved_tokens ELSE 0 END)
                   AS spent_tokens
          FROM attempt a, unnest(a.usage_ids) AS counter GROUP BY counter)
    SELECT u.scope, u.kind, u.reserved, u.spent, told.*
      FROM budget_usage u LEFT JOIN told ON told.counter = u.id
     WHERE u.reserved <> coalesce(CASE u.kind WHEN 'usd' THEN reserved_usd ELSE reserved_tokens END, 0)
        OR u.spent <> coalesce(CASE u.kind WHEN 'usd' THEN spent_usd ELSE spent_tokens END, 0)"""
_WRONG_REQUESTS = """
    SELECT r.request_id FROM request r LEFT JOIN attempt a ON a.request = r.id GROUP BY r.id
    HAVING r.status IS NOT NULL AND r.cost <> coalesce(sum(a.cost) FILTER (WHERE a.state = 'settled'), 0)
        OR count(a.n) <> coalesce(max(a.n), 0)"""


class Outside:
    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    async def used(self) -> dict[tuple[str, str], int]:
        """What is reserved or spent, by scope and kind: 1e-10 dollars, or tokens."""
        return {(row["scope"], row["kind"]): row["used"] for row in await self._connection.fetch(_OVER)}

    async def over(self, limits: Mapping[str, str | int]) -> list[tuple[str, str, int, int]]:
        """Counters above their limit: scope, kind, used, limit. Limits by scope as in the policy."""
        found = []
        for (scope, kind), used in (await self.used()).items():
            limit = _limit(json.loads(scope), limits)
            units = int(Decimal(limit) * 10**10) if isinstance(limit, str) else limit
            assert kind == ("usd" if isinstance(limit, str) else "tokens")
            if used > units:
                found.append((scope, kind, used, units))
        return found

    async def drift(self) -> list[asyncpg.Record]:
        """Counters that do not say what the attempts say."""
        found: list[asyncpg.Record] = await self._connection.fetch(_DRIFT)
        return found

    async def wrong_requests(self) -> list[str]:
        """Requests that cost something else than their attempts, or lack one."""
        return [row["request_id"] for row in await self._connection.fetch(_WRONG_REQUESTS)]

    async def states(self) -> dict[str, int]:
        """How many attempts are in each state."""
        return dict(await self._connection.fetch("SELECT state, count(*) FROM attempt GROUP BY state"))

    async def deadlocks(self) -> int:
        found: int = await self._connection.fetchval("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
        return found


def _limit(scope: dict[str, str], limits: Mapping[str, str | int]) -> str | int:
    (limit,) = (limits[text] for text in limits if json.loads(text).keys() == scope.keys())
    return limit


@asynccontextmanager
async def outside(url: str) -> AsyncIterator[Outside]:
    connection = await asyncpg.connect(url.replace("+asyncpg", "", 1))
    try:
        yield Outside(connection)
    finally:
        await connection.close()
