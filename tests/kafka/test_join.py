"""`call` consumers join and leave while every slot is busy: the group rebalances each time, and nobody notices."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from tests.kafka.asking import questions
from tests.kafka.books import account, assert_answered_once
from tests.kafka.fleet import Fleet
from tests.kafka.topics import Topics, eventually

STAGES = ("classify", "cache", "compress", "attribute")

JOINING = Path(__file__).with_name("joining.py")


async def test_consumers_that_come_and_go_lose_nothing_and_repeat_nothing(fleet: Fleet, topics: Topics, tenant: str) -> None:
    gates = {name: fleet.folder / f"{name}.gate" for name in ("call-1", "call-2", "call-3")}
    for name, gate in gates.items():
        fleet.launch(name, by=(sys.executable, "-P", str(JOINING), str(gate)), call__window=2)
    await eventually(lambda: _all_wait(gates.values()), "the consumers did not start")
    fleet.provider.latency(0.3)
    requests = questions(tenant, 90)
    await topics.ask(*requests)

    async def joins(name: str, answers: int) -> None:
        await topics.until(lambda: len(topics.responses(tenant)) >= answers, f"{name} waits for {answers} answers")
        gates[name].touch()
        await asyncio.to_thread(fleet.processes[name].until_ready)

    await joins("call-1", 0)
    await joins("call-2", 6)
    await joins("call-3", 18)
    assert await asyncio.to_thread(fleet.stop, "call-1") == 0
    left = len(requests) - len(topics.responses(tenant))

    assert_answered_once(await account(fleet, topics, requests))
    assert left > 0, "the load ended before the consumers had come and gone"


async def _all_wait(gates: object) -> bool:
    return all(gate.with_suffix(".waiting").exists() for gate in gates)  # type: ignore[attr-defined]
