"""Two processes want one request: its partition moves while the first lives, or after it froze for so long that it was given up.

One call while the owner lives. The zombie's call is in the books once it wakes, in the cost record's next revision; its answer is dropped.
"""

from __future__ import annotations

from decimal import Decimal

import pytest

from tests.crash import crew
from tests.crash.crew import LIGHT
from tests.kafka.asking import question
from tests.kafka.books import account, witnesses
from tests.kafka.fleet import Fleet
from tests.kafka.provider import digest
from tests.kafka.topics import Topics, eventually

ZOMBIES = ("call-3", "call-4")


async def test_a_partition_moves_while_the_owner_of_its_attempts_lives(fleet: Fleet, topics: Topics, tenant: str) -> None:
    """The owner has every answer in memory and cannot settle yet. Whoever gets the partitions asks, is told `Held`, and waits."""
    short = {"call__timeout_s": 1, "call__drain_s": 1.5}  # what is given up is drained no longer than this
    await crew.start(fleet, *LIGHT)
    await crew.start(fleet, "call-1", **short)
    requests = [question(tenant, f"hold-call.before_settle-{tenant}{n}") for n in range(16)]
    await topics.ask(*requests)
    await topics.until(lambda: sum(fleet.provider.counts()[digest(r)] for r in requests) == len(requests), "not all were asked")
    await crew.start(fleet, "call-1", "call-2", log_level="DEBUG", **short)

    async def held() -> bool:
        log = (fleet.folder / "call-2.log").read_text()
        return ": held" in log and fleet.consumer("call-2")["uncommitted"] > 0

    await eventually(held, "the second process was never told that the first one has it")
    assert not topics.responses(tenant)
    for request in requests:
        (fleet.folder / f"{request['request_id']}.go").touch()

    accounts = await account(fleet, topics, requests)
    for name, one in accounts.items():
        assert (one.response["status"], one.row.states, one.calls) == ("answered", ["settled"], 1), name


@pytest.mark.parametrize("answer", ["accepted", "escalate"])
async def test_a_zombie_settles_after_its_request_has_ended(answer: str, fleet: Fleet, topics: Topics, tenant: str) -> None:
    """`attribute` dies as well, between publishing the revision and noting it."""
    await crew.start(fleet, *LIGHT, *ZOMBIES)
    poor = "[[fault:refusal model=mini]]" if answer == "escalate" else ""
    marks = f"stop-call.before_settle-{tenant} kill-attribute.before_noted-{tenant}"
    asked = question(tenant, marks, f"Who fell asleep, {tenant}? {poor}")
    await topics.ask(asked)
    sleeper = await crew.frozen(fleet, *ZOMBIES)
    try:
        await topics.answers([asked])
    finally:
        fleet.processes[sleeper].thaw()
    await crew.killed(fleet, "attribute")
    await crew.start(fleet, "attribute")

    calls = ["unconfirmed", "settled"] if answer == "accepted" else ["unconfirmed", "settled", "settled"]
    last = (await witnesses(fleet, topics, [asked]))[marks]
    first, row, book = last.response, last.row, last.cost
    assert first["attempts"] == len(calls) == last.calls
    assert row.sent == ["settled"] * len(calls)
    assert Decimal(first["unconfirmed_usd"]) > 0 == Decimal(book["unconfirmed_usd"])
    assert Decimal(first["cost_usd"]) < row.dollars("settled") == Decimal(book["cost_usd"])
    assert book["revision"] == 2
    assert len(last.costs) == 2, "each revision has one value"
    assert first["status"] == "answered"
    assert set(last.responses) == {last.responses[0]}, "the zombie's own word is not heard"
