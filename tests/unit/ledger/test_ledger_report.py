"""The report: every part adds up to the whole, and the whole is what the rows say."""

from __future__ import annotations

import asyncio
import json
import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa

from schemas.types import usd
from tests.unit.ledger.conftest import Start
from tests.unit.ledger.scenario import ask, ending, execute, settlement, silence
from workers.cli.report import document
from workers.ledger.database import make_engine
from workers.ledger.ledger import Ledger
from workers.ledger.queries import DIMENSIONS, Figures, Question, report
from workers.ledger.tables import attempt, request

ZONE = "Asia/Kathmandu"
"""Its days begin at 18:15 UTC."""
EVENING = datetime(2026, 3, 3, 18, 0, tzinfo=UTC)


async def fill(start: Start, url: str, seed: int = 7) -> None:
    """Requests of every kind: answered, failed, cut off, escalated, from the cache, under way, the fleet's own."""
    rng = random.Random(seed)
    worker, lost = await start("worker"), await start("lost")
    for i in range(24):
        tenant, user = rng.choice(["acme", "umbrella"]), rng.choice([None, "u-1", 'Ünal "u" o\'2'])
        one = ask(f"r{i}", tenant=tenant, user=user, model=rng.choice(["mini", "middle"]), tier=rng.choice(["light", "heavy"]))
        one = replace(one, usd=Decimal("0.0123"), rates=None if i % 11 == 3 else one.rates)
        if i % 6 == 5:
            await worker.end([ending(f"r{i}", tenant=tenant, user=user, reason="budget_exceeded" if i % 2 else None)])
            continue
        await (lost if i % 7 == 1 else worker).open([one])
        if i % 7 != 1:
            cost = f"0.00{rng.randint(1, 99_999_999):08d}"
            await worker.settle([settlement(f"r{i}", tenant=tenant, cost=cost, verdict="escalate")])
            if i % 5 == 2:
                await worker.open([replace(one, after=1, model="large", seq=one.seq + 10_000)])
                await worker.settle([settlement(f"r{i}", n=2, tenant=tenant, cost="0.1234567891", tokens=999)])
        if i % 8:
            await worker.end([ending(f"r{i}", tenant=tenant, user=user)])
    await silence(url, lost)
    await worker.sweep()
    engine = make_engine(url, 1)
    await execute(engine, sa.update(request).where(request.c.request_id == "r2").values(purpose="audit", source="cache_exact"))
    await execute(engine, sa.update(request).where(request.c.id % 3 == 0).values(feature="digest", experiment="prompt-b"))
    for i in range(24):
        moved = EVENING + timedelta(minutes=7 * i)
        ended = sa.case((request.c.ended_at.is_(None), None), else_=moved + timedelta(seconds=50))
        moves = {"created_at": moved, "ended_at": sa.type_coerce(ended, request.c.ended_at.type)}
        await execute(engine, sa.update(request).where(request.c.request_id == f"r{i}").values(**moves))
    await engine.dispose()


def total(parts: Any) -> Figures:
    return sum(parts, Figures())


async def rows(url: str) -> Iterator[tuple[sa.Row[Any], list[sa.Row[Any]]]]:
    attempts = defaultdict(list)
    for row in await execute(url, sa.select(attempt)):
        attempts[row.request].append(row)
    return ((row, attempts[row.id]) for row in await execute(url, sa.select(request)))


def dollars(units: int) -> str:
    return usd(Decimal(units).scaleb(-10))


async def test_report_equals_rows(start: Start, url: str) -> None:
    await fill(start, url)
    found = await report(url, Question(timezone=ZONE))
    for dimension in DIMENSIONS:
        assert len(found.by[dimension]) > 1 or dimension == "window", dimension
        assert total(found.by[dimension].values()) == found.total, dimension
    told = document(found, Question(timezone=ZONE), levers=True)
    every = list(await rows(url))
    attempts = [a for _, of_one in every for a in of_one]
    ended = [r for r, _ in every if r.ended_at is not None]
    assert told["total"] == {
        "requests": len(every),
        "answered": sum(r.status == "answered" for r in ended),
        "rejected": 0,
        "expired": 0,
        "failed": sum(r.status == "failed" for r in ended),
        "under_way": len(every) - len(ended),
        "cache_hits": 1,
        "attempts": len(attempts),
        "unpriced": sum(a.price_id is None for a in attempts),
        "input_tokens": sum(a.input_tokens for a in attempts),
        "output_tokens": sum(a.output_tokens for a in attempts),
        "spent_usd": dollars(sum(a.cost for a in attempts if a.state == "settled")),
        "unconfirmed_usd": dollars(sum(a.cost for a in attempts if a.state == "unconfirmed")),
        "cost_usd": dollars(sum(r.cost for r in ended)),
        "baseline_usd": dollars(sum(r.baseline for r in ended)),
        "saved_usd": {lever: dollars(sum(getattr(r, lever) for r in ended)) for lever in ("routing", "cache", "compression", "batch")},
    }
    assert {part["lever"]: part["saved_usd"] for part in told["by"]["lever"]} == told["total"]["saved_usd"]
    assert found.total.baseline_usd - found.total.cost_usd == found.total.saved_usd
    assert min(found.total.unconfirmed_usd, found.total.unpriced, found.total.under_way) > 0
    for user in {r.user for r, _ in every}:
        mine = [(r, a) for r, a in every if r.user == user]
        figures = found.by["user"][user]
        assert (figures.requests, figures.attempts) == (len(mine), sum(len(a) for _, a in mine))
        assert usd(figures.cost_usd) == dollars(sum(r.cost for r, _ in mine))
        assert usd(figures.spent_usd) == dollars(sum(a.cost for _, of_one in mine for a in of_one if a.state == "settled"))
    for model, figures in found.by["model"].items():  # a call counts for who was called, a request for who answered
        called = [a for _, of_one in every for a in of_one if a.model == model]
        assert (figures.attempts, figures.requests) == (len(called), sum(r.model == model for r, _ in every))
    assert (found.by["purpose"]["audit"].requests, found.by["purpose"]["request"].requests) == (1, len(every) - 1)


async def test_windows_follow_the_clock_of_the_time_zone_and_bounds_cut_between_requests(start: Start, url: str) -> None:
    await fill(start, url)
    days = (await report(url, Question(("window",), timezone=ZONE))).by["window"]
    midnight = datetime(2026, 3, 3, 18, 15, tzinfo=UTC)
    assert {day: figures.requests for day, figures in days.items()} == {midnight - timedelta(days=1): 3, midnight: 21}
    minutes = (await report(url, Question(("window",), unit="minute", timezone=ZONE))).by["window"]
    assert len(minutes) == 24
    assert total(minutes.values()) == total(days.values())
    assert EVENING in minutes
    middle = EVENING + timedelta(minutes=70, seconds=50)  # when r10 ended, to the second
    early, late = await report(url, Question(until=middle)), await report(url, Question(since=middle))
    assert (early.total.requests, late.total.requests) == (10, 14)
    assert early.total + late.total == (await report(url, Question())).total
    for part in (early, late):
        assert all(total(groups.values()) == part.total for groups in part.by.values())


async def test_an_empty_ledger(ledger: Ledger, url: str) -> None:
    assert (await report(url, Question())).total == Figures()


async def test_parts_agree_while_the_books_are_written(ledger: Ledger, url: str) -> None:
    async def write() -> None:
        for i in range(400):
            await ledger.open([ask(f"w{i}")])
            await ledger.settle([settlement(f"w{i}", cost="0.001")])

    writing = asyncio.create_task(write())
    try:
        for _ in range(5):
            found = await report(url, Question())
            assert all(total(groups.values()) == found.total for groups in found.by.values())
    finally:
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)


@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_the_document_is_json(dimension: Any) -> None:
    from workers.ledger.queries import Report

    group = EVENING if dimension == "window" else "x"
    told = json.loads(json.dumps(document(Report(Figures(), {dimension: {group: Figures()}}), Question(), levers=False)))
    assert told["by"][dimension][0][dimension] == ("2026-03-03T18:00:00Z" if dimension == "window" else "x")
