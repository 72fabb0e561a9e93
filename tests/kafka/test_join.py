"""`call` consumers join and leave while every slot is busy: the group rebalances each time, and nobody notices.

One that freezes for so long that it is given up, and comes back with the answer of its call, changes the book, not the response.
"""

from __future__ import annotations

import asyncio
import sys
from decimal import Decimal
from pathlib import Path

from tests.kafka.asking import question, questions
from tests.kafka.books import account, assert_answered_once, rows
from tests.kafka.fleet import Fleet
from tests.kafka.provider import digest
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


async def test_a_consumer_that_comes_back_from_the_dead(fleet: Fleet, topics: Topics, tenant: str) -> None:
    two = ("call-2", "call-3")
    await asyncio.to_thread(fleet.start, *(name for name in two if not fleet.running(name)))
    fleet.provider.latency(0)
    asked = question(tenant, "frozen", f"Who fell asleep, {tenant}? [[fault:hang seconds=4 times=1]]")
    await topics.ask(asked)
    await topics.until(lambda: fleet.provider.counts()[digest(asked)] == 1, "it was not asked")
    sleeper = next(name for name in two if fleet.consumer(name)["running"])
    fleet.processes[sleeper].freeze()
    try:
        answer = (await topics.answers([asked]))["frozen"]
    finally:
        fleet.processes[sleeper].thaw()

    name = f"{tenant}/frozen"
    await topics.until(lambda: topics.costs(name)[name]["revision"] == 2, lambda: f"no second revision: {topics.costs(name)}")
    await topics.quiet()
    row, book = (await rows(fleet))[name], topics.costs(name)[name]
    assert (row.sent, fleet.provider.counts()[digest(asked)]) == (["settled", "settled"], 2)
    assert (answer["status"], answer["attempts"]) == ("answered", 2)
    assert Decimal(answer["unconfirmed_usd"]) > 0 == Decimal(book["unconfirmed_usd"])
    assert 2 * Decimal(answer["cost_usd"]) == row.dollars("settled") == Decimal(book["cost_usd"])
    assert len({record.value for record in topics.seen("responses", name)}) == 1


async def _all_wait(gates: object) -> bool:
    return all(gate.with_suffix(".waiting").exists() for gate in gates)  # type: ignore[attr-defined]
