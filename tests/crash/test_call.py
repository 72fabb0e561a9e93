"""`call` is cut at every point around a paid call, by SIGKILL, with others' requests under way; then a fresh process.

Nothing is lost, nobody is charged twice, what a call may have cost unseen stands in the books and in its budget's window, and an answer
that is paid goes out.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.crash import crew
from tests.crash.crew import ALL, LIGHT
from tests.kafka.asking import question, questions
from tests.kafka.books import Account, account, spending
from tests.kafka.fleet import Fleet
from tests.kafka.provider import digest
from tests.kafka.topics import Topics


@dataclass(frozen=True)
class Left:
    """What a death at this point leaves in the books for its own request, and with the provider."""

    states: list[str]
    calls: int


ROWS = {
    "before_open": Left(["settled"], calls=1),
    "after_open": Left(["unconfirmed", "settled"], calls=1),
    "before_settle": Left(["unconfirmed", "settled"], calls=2),
    "after_settle": Left(["settled"], calls=1),
    "published": Left(["settled"], calls=1),
}
"""The points are described in `cut.py`."""


@pytest.mark.parametrize("point", ROWS)
async def test_killed(point: str, fleet: Fleet, topics: Topics, tenant: str) -> None:
    fleet.provider.latency(0.2)
    deadline = datetime.now(UTC) + timedelta(seconds=8 if point == "after_settle" else 120)
    fatal = question(tenant, f"kill-call.{point}-{tenant}", deadline_at=deadline.isoformat())
    others = questions(tenant, 8)
    await crew.start(fleet, *ALL, call__window=4)

    await topics.ask(*others[:4], fatal, *others[4:])
    await crew.killed(fleet, "call")
    if point == "after_settle":
        await asyncio.sleep((deadline - datetime.now(UTC)).total_seconds())  # an answer that is paid goes out all the same
    await crew.start(fleet, "call", call__window=4)

    died = await _settled(fleet, topics, fatal, others)
    assert (died.row.sent, died.calls) == (ROWS[point].states, ROWS[point].calls)


async def test_killed_while_the_provider_answers(fleet: Fleet, topics: Topics, tenant: str) -> None:
    """The request is on the wire, sent by LiteLLM itself, and nobody is left to take the answer."""
    fleet.provider.latency(0.2)
    asked = question(tenant, "sent", f"Who waits for {tenant}? [[fault:hang times=1]]")
    others = questions(tenant, 8)
    await crew.start(fleet, *LIGHT)
    await crew.start(fleet, "call", wire="litellm", afresh=True, call__window=4)

    await topics.ask(*others[:4], asked, *others[4:])
    await topics.until(lambda: fleet.provider.counts()[digest(asked)] == 1, "the request was never sent")
    await asyncio.to_thread(fleet.kill, "call")
    await crew.start(fleet, "call", call__window=4)

    died = await _settled(fleet, topics, asked, others)
    assert (died.row.sent, died.calls) == (["unconfirmed", "settled"], 2)


async def test_killed_between_the_light_answer_and_the_next_tier(fleet: Fleet, topics: Topics, tenant: str) -> None:
    """The light model's answer failed its check and is in the books: the cascade goes on from there, and that answer is never final."""
    fleet.provider.latency(0)
    prose = "[[fault:wrong_json model=mini]]"
    params = {"response_format": {"type": "json_object"}}
    asked = question(tenant, f"kill-call.after_settle-{tenant}", f"Is parcel {tenant} here? {prose}", params=params)
    await crew.start(fleet, *ALL, call__window=4)

    await topics.ask(asked)
    await crew.killed(fleet, "call")
    await crew.start(fleet, "call", call__window=4)

    died = await _settled(fleet, topics, asked, [])
    assert (died.row.sent, died.calls) == (["settled", "settled"], 2)
    assert [(a["n"], a["model"]) for a in died.cost["attempts"]] == [(1, "mini"), (2, "middle")]
    assert (died.response["model"], died.response["flags"]) == ("middle", [])
    assert json.loads(died.response["content"])["answer"], "the rejected answer is no JSON"


async def _settled(fleet: Fleet, topics: Topics, fatal: dict[str, Any], others: list[dict[str, Any]]) -> Account:
    """The account of the request that was cut, after what holds for everybody."""
    accounts = await account(fleet, topics, [fatal, *others])
    for name, one in accounts.items():
        assert one.response["status"] == "answered", f"{name}: {one.response}"
        assert one.response["attempts"] == len(one.row.sent), name
        assert len(one.costs) == 1, f"{name}: one value of the cost record"
        assert one.calls <= max(2, one.row.sent.count("settled")), f"{name}: a death repeats a call at most once"
        unseen = [cost for state, cost in zip(one.row.states, one.row.costs, strict=True) if state == "unconfirmed"]
        assert all(cost > 0 for cost in unseen), f"{name}: an unconfirmed call counts at its worst case"
    for one in (accounts[r["request_id"]] for r in others):
        assert one.row.sent.count("settled") == 1
    spent, reserved = await spending(fleet, fatal["tenant"])
    assert (spent, reserved) == (sum(sum(one.row.costs) for one in accounts.values()), 0), "the window holds what the attempts cost"
    return accounts[fatal["request_id"]]
