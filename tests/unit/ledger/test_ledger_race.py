"""Many workers on one ledger: nobody deadlocks, and the books are right whatever was interleaved."""

from __future__ import annotations

import asyncio
import random

from tests.unit.ledger.conftest import Start
from tests.unit.ledger.scenario import ask, counters, dollars, drift, ending, execute, hold, settlement, silence
from workers.ledger.coalesce import Coalescer
from workers.ledger.ledger import Ledger
from workers.ledger.types import Answered, Ask, Granted, Refused, Stored

SCOPES = [{"tenant": "acme"}, {"tenant": "acme", "user": "u1"}, {"feature": "support"}, {}, {"user": "u2"}, {"tenant": "beta"}]


async def test_anything_at_once_leaves_the_books_right(start: Start, url: str) -> None:
    """Workers share ids; scopes come in any order; settlements overrun, repeat and come late; owners fall silent."""
    workers = [await start(f"w{i}", pool_size=2) for i in range(6)]
    overruns = 0

    async def work(me: int, ledger: Ledger) -> None:
        nonlocal overruns
        rnd = random.Random(me)
        for _ in range(8):
            ids = rnd.sample(range(40), 8)
            asks = []
            for i in ids:
                scopes = random.Random(i).sample(SCOPES, 3)
                rnd.shuffle(scopes)
                budgets = [hold("0.9", s) for s in scopes] + [hold(900, s, "day") for s in scopes]
                asks.append(ask(f"r{i}", f"0.0{i % 9 + 1}", i % 20, *budgets, ttl_s=rnd.choice([0.0, 300.0]), after=rnd.randint(0, 2)))
            answers = await ledger.open(asks)
            settlements = []
            for one, answer in zip(asks, answers, strict=True):
                if isinstance(answer, Granted):
                    cost = rnd.choice(["0", "0.01", "0.1"])
                    state = rnd.choice(["settled", "settled", "unconfirmed", "abandoned"])
                    verdict = rnd.choice(["accepted", "escalate", "error"])
                    settlements.append(settlement(one.facts.request_id, answer.n, cost, rnd.randint(0, 40), state=state, verdict=verdict))
            rnd.shuffle(settlements)
            settled = await ledger.settle(settlements + settlements[:2])
            overruns += sum(s.overrun for s in settled)
            await ledger.end([ending(f"r{i}") for i in ids[:2]])
            if rnd.random() < 0.3:
                await silence(url, rnd.choice(workers))
            if rnd.random() < 0.3:
                await ledger.published(await ledger.sweep())
            await ledger._heartbeat.beat()

    deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    before = [tuple(r) for r in await execute(url, deadlocks)] if "postgres" in url else []
    await asyncio.gather(*(work(i, ledger) for i, ledger in enumerate(workers)))
    assert await drift(url) == {}
    assert overruns
    if "postgres" in url:
        assert [tuple(r) for r in await execute(url, deadlocks)] == before
    rows = await execute(url, "SELECT cost, baseline, routing, cache, compression, batch FROM request WHERE status IS NOT NULL")
    assert rows
    assert all(r.baseline - r.cost == r.routing + r.cache + r.compression + r.batch for r in rows)
    late = """
        SELECT 1 FROM request r JOIN attempt a ON a.request = r.id WHERE r.status IS NOT NULL GROUP BY r.id, r.cost
        HAVING r.cost != sum(CASE a.state WHEN 'settled' THEN a.cost ELSE 0 END)"""
    assert await execute(url, late) == []


async def test_a_fleet_through_its_coalescers(start: Start, url: str) -> None:
    """As `call` and `attribute` use it: every request ends once and is paid once, though each is delivered twice."""
    workers = [await start(f"w{i}") for i in range(3)]
    paid: list[str] = []

    async def deliver(ledger: Ledger, opening: Coalescer[Ask, object], settling: object, request_id: str) -> bytes:
        while True:
            answer = await opening(ask(request_id, "1", 1, hold("1000")))
            if isinstance(answer, Granted):
                paid.append(request_id)
                await settling(settlement(request_id, answer.n, "0.5"))  # type: ignore[operator]
                break
            if isinstance(answer, Answered | Refused) or type(answer).__name__ == "Ended":
                break
            await asyncio.sleep(0.01)
        (stored,) = await ledger.end([ending(request_id, f"by {ledger.owner}")])
        assert isinstance(stored, Stored)
        return stored.response

    async def serve(ledger: Ledger) -> list[bytes]:
        opening: Coalescer[Ask, object] = Coalescer(ledger.open)  # type: ignore[arg-type]
        settling = Coalescer(ledger.settle)
        return await asyncio.gather(*(deliver(ledger, opening, settling, f"r{i}") for i in range(60)))

    first, *others = await asyncio.gather(*(serve(ledger) for ledger in workers))
    assert all(other == first for other in others)
    assert sorted(paid) == sorted(f"r{i}" for i in range(60))
    assert (await counters(url))['{"tenant": "acme"}', "usd", "month"] == (0, dollars("30"))
