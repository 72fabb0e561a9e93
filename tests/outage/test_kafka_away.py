"""Kafka dies or freezes, in the middle of calls: answers are in the books meanwhile, and go out when it is back; no call is made twice."""

from __future__ import annotations

import asyncio
from typing import Literal

import pytest

from tests.kafka.asking import questions
from tests.kafka.books import account, rows
from tests.kafka.fleet import Fleet
from tests.kafka.provider import digest
from tests.kafka.topics import Topics, eventually, key
from tests.outage.conftest import EVERY, IN_HAND_S, OUTAGE_S, SETTINGS, STAGES, Links, later
from tests.outage.watching import Cpu, metric, pages, says, seen, well
from tests.servers.kafka import Broker


@pytest.mark.parametrize("how", ["kill", *(["freeze"] if EVERY else [])])
async def test_kafka_is_away(how: Literal["kill", "freeze"], kafka: Broker, fleet: Fleet, links: Links, tenant: str) -> None:
    await well(fleet, STAGES)
    in_hand = [r | {"deadline_at": later(OUTAGE_S + 300)} for r in questions(tenant, 6)]

    async def asked() -> bool:
        counts = fleet.provider.counts()
        return all(counts[digest(r)] for r in in_hand)

    async def booked() -> bool:
        found = await rows(fleet)
        return all(found[key(r)].states == ["settled"] for r in in_hand)

    fleet.provider.latency(IN_HAND_S)
    async with Topics(fleet) as topics:
        await topics.ask(*in_hand)
        await eventually(asked, "the calls never reached the provider")
    (kafka.kill if how == "kill" else kafka.freeze)()
    try:
        fleet.provider.latency(0)
        assert await asyncio.to_thread(fleet.stop, "compress") == 0, "a stop does not wait for Kafka"
        fleet.launch("compress", **SETTINGS)  # started while Kafka is away
        await says(fleet, "compress", "waits for kafka")
        cpu = Cpu(fleet, STAGES)
        await eventually(booked, "an answer never came into the books")
        await says(fleet, "call", "parked on kafka", "kafka: ")
        await asyncio.sleep(OUTAGE_S)
        cpu.assert_calm()
        assert {pages(fleet, name).alive for name in STAGES} == {200}
        assert metric(fleet, "call", "scrimp_parked", stage="call", dependency="kafka") == 1
        for name in ("classify", "attribute", "call"):
            await seen(fleet, name, lambda name=name: metric(fleet, name, "scrimp_up", dependency="kafka") == 0, "scrimp_up 0")  # type: ignore[misc]
        if how == "kill":
            assert await asyncio.to_thread(fleet.stop, "call") == 0, "not even with answers that have not gone out: they are in the books"
            fleet.launch("call", **SETTINGS)
    finally:
        await asyncio.to_thread(kafka.restart if how == "kill" else kafka.thaw)

    for name in STAGES:
        await asyncio.to_thread(fleet.processes[name].until_ready)
    async with Topics(fleet) as topics:
        later_on = questions(tenant, 2, "later-on")
        await topics.ask(*later_on)
        accounts = await account(fleet, topics, [*in_hand, *later_on])
        for name, one in accounts.items():
            assert (one.response["status"], one.calls, one.row.sent) == ("answered", 1, ["settled"]), f"{name}: {one}"
        assert topics.seen("dead", tenant) == []
    await well(fleet, STAGES)
    assert metric(fleet, "call", "scrimp_parked") == 0
