"""The provider refuses, hangs, or answers everybody with 429 or 500: requests wait with attempts in hand, and go on when it is back."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import pytest

from tests.kafka.asking import question, questions
from tests.kafka.books import account
from tests.kafka.fleet import Fleet
from tests.kafka.topics import Topics, eventually
from tests.outage.conftest import EVERY, SETTINGS, STAGES, Links, later
from tests.outage.watching import Cpu, metric, pages, seen, well

OUTAGE_S = 1.2 * SETTINGS["call__timeout_s"]
SPARE_S = 300.0
"""From the end of the outage to the deadlines. Who has one attempt left when it ends may be waiting for half of that."""
MOST_ATTEMPTS = 6
FAULTS: dict[str, dict[str, Any]] = {"429": {"kind": "rate_limit", "retry_after": 1}, "500": {"kind": "server_error"}}


@pytest.mark.parametrize("how", ["refuse", "hang", "429", *(["500"] if EVERY else [])])
async def test_the_provider_is_away(
    how: Literal["refuse", "hang", "429", "500"], fleet: Fleet, links: Links, topics: Topics, tenant: str
) -> None:
    await well(fleet, STAGES)
    fleet.provider.latency(0)
    failed_before = _failed(fleet)
    calls_before = len(fleet.provider.calls())
    if how in ("refuse", "hang"):
        links.provider.fail(how)
    else:
        fleet.provider.fault(times=None, **FAULTS[how])
    try:
        # The plan's three models take five failures in a row each, then they rest and nobody's attempts are spent but those of who tries.
        requests = [r | {"deadline_at": later(OUTAGE_S + SPARE_S)} for r in questions(tenant, 12)]
        hasty = question(tenant, "hasty", deadline_at=later(OUTAGE_S / 2))
        await topics.ask(*requests, hasty)
        cpu = Cpu(fleet, STAGES)
        await seen(fleet, "call", lambda: any("provider: " in line for line in pages(fleet, "call").degraded), "a degraded provider")
        await seen(fleet, "call", lambda: metric(fleet, "call", "scrimp_up", dependency="provider") == 0, "scrimp_up 0")
        await asyncio.sleep(OUTAGE_S)
        cpu.assert_calm()
        found = pages(fleet, "call")
        assert (found.alive, found.ready, found.wrong) == (200, 200, []), "the stage itself lacks nothing"
        assert _failed(fleet) > failed_before
        assert len(fleet.provider.calls()) - calls_before <= MOST_ATTEMPTS * (len(requests) + 1)
        await topics.catch_up()
        ended = topics.responses(tenant)
        assert set(ended) <= {f"{tenant}/hasty"}, "nobody is given up while there is time"
    finally:
        if how in ("refuse", "hang"):
            links.provider.mend()
        else:
            fleet.provider.mend()

    await topics.until(lambda: len(topics.responses(tenant)) == len(requests) + 1, "not all have ended", SPARE_S)
    accounts = await account(fleet, topics, [*requests, hasty])
    assert accounts.pop("hasty").response["status"] in ("expired", "failed")
    for name, one in accounts.items():
        assert one.response["status"] == "answered", f"{name}: {one}"
        assert one.response["attempts"] <= MOST_ATTEMPTS
        assert len(one.responses) == 1
    assert topics.seen("dead", tenant) == []
    await eventually(lambda: _answers(fleet, topics, tenant), "a model went on resting")


def _failed(fleet: Fleet) -> float:
    return metric(fleet, "call", "scrimp_attempts_total") - metric(fleet, "call", "scrimp_attempts_total", outcome="accepted")


async def _answers(fleet: Fleet, topics: Topics, tenant: str) -> bool:
    """Ask every tier, which ends the rest of a model that is up; true once none rests."""
    round_ = len(topics.responses(tenant))
    asked = [question(tenant, f"after-{round_}-{tier}", tier=tier) for tier in ("light", "standard", "heavy")]
    await topics.ask(*asked)
    await topics.answers(asked)
    return (await asyncio.to_thread(pages, fleet, "call")).degraded == []
