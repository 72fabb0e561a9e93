"""SIGTERM of each stage while requests flow: it drains and exits 0, its successor goes on, nothing is lost and nothing repeated.

SIGKILL of the light ones: what they had not committed goes its way twice, is paid once, and ends in equal copies of one response. `call`
dies in `tests/crash/`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from tests.kafka.asking import questions
from tests.kafka.books import account, assert_answered_once
from tests.kafka.fleet import Fleet
from tests.kafka.topics import Topics

STAGES = ("classify", "cache", "compress", "attribute", "call")


@pytest.mark.parametrize("stage", STAGES)
async def test_sigterm_in_the_middle(stage: str, fleet: Fleet, topics: Topics, tenant: str) -> None:
    fleet.provider.latency(0.1)
    requests = questions(tenant, 60)
    flow = asyncio.create_task(_one_by_one(topics, requests))
    await topics.until(lambda: len(topics.responses(tenant)) >= 8, "fewer than 8 responses before the stop")

    assert await asyncio.to_thread(fleet.stop, stage) == 0
    await asyncio.to_thread(fleet.start, stage)

    await flow
    assert_answered_once(await account(fleet, topics, requests))


async def test_sigkill_of_all_light_stages_at_once(fleet: Fleet, topics: Topics, tenant: str) -> None:
    fleet.provider.latency(0.1)
    requests, light = questions(tenant, 60), [stage for stage in STAGES if stage != "call"]
    flow = asyncio.create_task(_one_by_one(topics, requests))
    await topics.until(lambda: len(topics.responses(tenant)) >= 8, "fewer than 8 responses before the kill")

    for stage in light:
        fleet.kill(stage)
    await asyncio.to_thread(fleet.start, *light)

    await flow
    for name, one in (await account(fleet, topics, requests)).items():
        told = (one.response["status"], one.row.sent, one.calls)
        assert told == ("answered", ["settled"], 1), f"{name}: {told}"


async def _one_by_one(topics: Topics, requests: Sequence[dict[str, object]]) -> None:
    for request in requests:
        await topics.ask(request)
        await asyncio.sleep(0.04)
