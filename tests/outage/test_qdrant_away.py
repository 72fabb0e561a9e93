"""Qdrant refuses, hangs or is slow: requests go on as misses, the pages say so, and hits come back with it."""

from __future__ import annotations

import asyncio
import time
from typing import Literal

import pytest

from tests.kafka.asking import question
from tests.kafka.fleet import Fleet
from tests.kafka.topics import Topics, eventually
from tests.outage.conftest import SETTINGS, STAGES, Links
from tests.outage.watching import Cpu, metric, pages, seen, well
from workers.cache.store import WRITE_S


@pytest.mark.parametrize("how", ["refuse", "hang", "slow"])
async def test_qdrant_is_away(how: Literal["refuse", "hang", "slow"], fleet: Fleet, links: Links, topics: Topics, tenant: str) -> None:
    await well(fleet, STAGES)
    fleet.provider.latency(0)
    errors = metric(fleet, "cache", "scrimp_cache_total", event="error")
    if how == "refuse":
        await asyncio.to_thread(fleet.stop, "cache")
        errors = 0
    links.qdrant.fail(how)
    began = time.monotonic()
    try:
        if how == "refuse":
            await asyncio.to_thread(fleet.start, "cache", **SETTINGS)  # started while Qdrant is away
        cpu = Cpu(fleet, STAGES)
        for n in range(12):
            asked = question(tenant, f"away-{n}", "How is a parcel of eggs packed?", cache={"mode": "auto"})
            await topics.ask(asked)
            answer = (await topics.answers([asked]))[f"away-{n}"]
            assert (answer["status"], answer["source"]) == ("answered", "model")
        assert metric(fleet, "cache", "scrimp_cache_total", event="error") > errors
        if how != "slow":
            await seen(fleet, "cache", lambda: any("qdrant: " in line for line in pages(fleet, "cache").degraded), "a degraded Qdrant")
            await seen(fleet, "cache", lambda: metric(fleet, "cache", "scrimp_up", dependency="qdrant") == 0, "scrimp_up 0")
        found = pages(fleet, "cache")
        assert (found.alive, found.ready, found.wrong) == (200, 200, []), "the cache fails open"
        await asyncio.sleep(began + 1.2 * WRITE_S - time.monotonic())  # longer than any time-out that Qdrant meets
        cpu.assert_calm()
    finally:
        links.qdrant.mend()

    tries = iter(range(1_000))

    async def hits() -> bool:
        asked = question(tenant, f"back-{next(tries)}", "How is a parcel of eggs packed?", cache={"mode": "auto"})
        await topics.ask(asked)
        return (await topics.answers([asked]))[asked["request_id"]]["source"] == "cache_exact"

    await eventually(hits, "no hit since Qdrant is back")
    assert topics.seen("dead", tenant) == []
    await well(fleet, STAGES)
