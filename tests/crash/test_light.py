"""`classify`, `cache`, `compress` and `remember` are killed at their awaits while they work on a record, one after another to the last:
before it, while it waits, or once what it waited for has happened. A seed picks which, another one in each run, so that over the runs none
is left out; a failure shows it, and `SCRIMP_TEST_SEED` replays it.

Nothing is lost, nothing is paid or charged twice, and the cache holds each answer under its own question.
"""

from __future__ import annotations

import asyncio
import os
import random
import secrets
from collections.abc import Callable
from typing import Any

import pytest
from qdrant_client import QdrantClient

from tests.crash import crew
from tests.crash.crew import ALL
from tests.kafka.asking import question
from tests.kafka.books import account, rows
from tests.kafka.fleet import Fleet
from tests.kafka.topics import Topics, eventually
from tests.provider import answers

MORTAL = ("classify", "cache", "compress")
AT_LEAST = {"classify": 2, "cache": 3, "compress": 2, "remember": 2}
"""Awaits of each stage, the first before all it does: none outlives these. (How many of them kill in a run is the seed's choice.)"""
MOST = 20
FAST = {"kafka__session_timeout_ms": 1_000, "kafka__heartbeat_interval_ms": 200}
LONG = "A parcel is weighed, measured and labelled before it leaves the depot. " * 300
"""Enough for a stage to take its work off the event loop, which is another await."""


@pytest.mark.timeout(600)  # a dozen deaths, one after another
async def test_killed_at_any_await(fleet: Fleet, topics: Topics, tenant: str, record_property: Callable[[str, object], None]) -> None:
    seed = int(os.environ.get("SCRIMP_TEST_SEED") or secrets.randbelow(10**6))
    print(f"replay: SCRIMP_TEST_SEED={seed}")  # noqa: T201  stands in the report of a failure
    record_property("seed", seed)
    fleet.provider.latency(0)
    await crew.start(fleet, *ALL)
    await crew.start(fleet, *MORTAL, afresh=True, **FAST)
    asked: dict[str, dict[str, Any]] = {}
    chance = random.Random(seed)
    left, at, outlived = list(AT_LEAST), dict.fromkeys(AT_LEAST, 0), dict.fromkeys(AT_LEAST, 0)
    async with crew.revived(fleet, *MORTAL, **FAST):
        for _ in range(MOST):
            now = {stage: _asked(tenant, stage, at[stage]) for stage in left}
            asked |= {request["request_id"]: request for request in now.values()}
            await topics.ask(*now.values())
            await topics.answers(now.values())
            ended = {stage: request for stage, request in now.items() if await _outlived(fleet, request["request_id"])}
            outlived |= {stage: at[stage] for stage in ended}
            at = {stage: step + chance.randint(1, 3) for stage, step in at.items()}
            left = [stage for stage in left if stage not in ended]
            if not left:
                break
        accounts = await account(fleet, topics, asked.values())
    assert not left, f"no end to the awaits of {left}"
    assert all(outlived[stage] >= least for stage, least in AT_LEAST.items()), outlived
    for name, one in accounts.items():
        assert (one.response["status"], one.response["source"], one.row.sent, one.calls) == ("answered", "model", ["settled"], 1), name
        assert one.response["content"] == answers.text(asked[name]), name
        assert len(one.costs) == 1, name

    again = {name: request | {"request_id": f"again {len(name)} {n}"} for n, (name, request) in enumerate(asked.items())}
    await topics.ask(*again.values())
    served = await topics.answers(again.values())
    booked = await rows(fleet)
    for name, request in again.items():
        hit = served[request["request_id"]]
        assert (hit["source"], hit["content"], hit["cost_usd"]) == ("cache_exact", answers.text(request), "0"), name
        assert booked[f"{request['tenant']}/{request['request_id']}"].states == []
    await asyncio.to_thread(fleet.stop, "cache")
    await asyncio.to_thread(_look_into_the_cache, fleet, tenant, asked)


def _asked(tenant: str, stage: str, n: int) -> dict[str, Any]:
    """Worth the cache, and of a tenant of its own: no answer serves another one."""
    request = question(f"{tenant}-{stage}{n}", f"kill-{stage}.await_{n}-{tenant}", f"How are parcels with label {stage} {n} packed?")
    turns = [{"role": "system", "content": LONG}, *request["messages"]]
    return request | {"messages": turns, "cache": {"mode": "auto"}}


async def _outlived(fleet: Fleet, mark: str) -> bool:
    """The stage came to its end without this await. Waits until it has died there, or not."""
    cut, survived = fleet.folder / f"{mark}.cut", fleet.folder / f"{mark}.survived"

    async def told() -> bool:
        return cut.exists() or survived.exists()

    await eventually(told, f"{mark}: neither died nor survived")
    return not cut.exists()


def _look_into_the_cache(fleet: Fleet, tenant: str, asked: dict[str, dict[str, Any]]) -> None:
    client = QdrantClient(path=str(fleet.folder / "qdrant"))
    try:
        points, _ = client.scroll("scrimp-cache", limit=10_000)
    finally:
        client.close()
    held = sorted((p.payload["tenant"], p.payload["text"], p.payload["content"]) for p in points if p.payload["tenant"].startswith(tenant))
    assert held == sorted((r["tenant"], answers.last_user_text(r), answers.text(r)) for r in asked.values())
