"""PostgreSQL refuses or hangs, in the middle of calls: nothing more is sent, answers in hand are kept, and all goes on when it is back."""

from __future__ import annotations

import asyncio
from typing import Literal

import pytest

from tests.kafka.asking import question, questions
from tests.kafka.books import account
from tests.kafka.fleet import Fleet
from tests.kafka.provider import digest
from tests.kafka.topics import Topics, eventually
from tests.outage.conftest import IN_HAND_S, OUTAGE_S, SETTINGS, STAGES, Links, later
from tests.outage.watching import Cpu, metric, pages, says, seen, well


@pytest.mark.parametrize("how", ["refuse", "hang"])
async def test_the_ledger_is_away(how: Literal["refuse", "hang"], fleet: Fleet, links: Links, topics: Topics, tenant: str) -> None:
    await well(fleet, STAGES)
    deadline = later(OUTAGE_S + 300)
    in_hand = [r | {"deadline_at": deadline} for r in questions(tenant, 4, "in-hand")]
    waiting = [r | {"deadline_at": deadline} for r in questions(tenant, 4, "waiting")]

    async def asked() -> bool:
        counts = fleet.provider.counts()
        return all(counts[digest(r)] for r in in_hand)

    fleet.provider.latency(IN_HAND_S)
    await topics.ask(*in_hand)
    await eventually(asked, "the calls never reached the provider")
    links.ledger.fail(how)
    try:
        assert await asyncio.to_thread(fleet.stop, "attribute") == 0, "a stop does not wait for the ledger"
        fleet.provider.latency(0)
        hasty = question(tenant, "hasty", deadline_at=later(OUTAGE_S / 2))
        await topics.ask(*waiting, hasty)
        fleet.launch("attribute", **SETTINGS)  # started while the ledger is away
        await says(fleet, "call", "parked on ledger", "ledger: ")
        await says(fleet, "attribute", "waits for ledger")
        cpu = Cpu(fleet, STAGES)
        await asyncio.sleep(OUTAGE_S)
        cpu.assert_calm()
        assert {pages(fleet, name).alive for name in STAGES} == {200}
        assert metric(fleet, "call", "scrimp_parked", stage="call", dependency="ledger") == 1
        await seen(fleet, "call", lambda: metric(fleet, "call", "scrimp_up", dependency="ledger") == 0, "scrimp_up 0")
        assert metric(fleet, "cache", "scrimp_parked") == 0, "who needs no ledger goes on"
        counts = fleet.provider.counts()
        assert [counts[digest(r)] for r in (*waiting, hasty)] == [0] * 5, "without the ledger nothing is sent"
    finally:
        links.ledger.mend()

    await asyncio.to_thread(fleet.processes["attribute"].until_ready)
    accounts = await account(fleet, topics, [*in_hand, *waiting, hasty])
    told = {name: (one.response["status"], one.calls, one.row.sent) for name, one in accounts.items()}
    assert told.pop("hasty") == ("expired", 0, [])
    assert set(map(repr, told.values())) == {repr(("answered", 1, ["settled"]))}, told
    assert topics.seen("dead", tenant) == []
    await well(fleet, STAGES)
    assert metric(fleet, "call", "scrimp_parked") == 0
