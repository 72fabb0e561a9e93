"""A slow head with a full window: one request hangs, those behind it are answered, and nothing is committed past it.

One partition, so that all stand behind each other. The window is 2, and ten times that may be uncommitted.
"""

from __future__ import annotations

import asyncio
import json

from tests.kafka.asking import question, questions
from tests.kafka.books import account
from tests.kafka.fleet import Fleet
from tests.kafka.provider import digest
from tests.kafka.topics import Topics, eventually

STAGES = ("classify", "cache", "compress", "attribute")
PARTITIONS = 1
WINDOW, BACKLOG = 2, 20


async def test_a_slow_head_holds_the_commit_and_only_what_is_unfinished_is_repeated(fleet: Fleet, topics: Topics, tenant: str) -> None:
    await asyncio.to_thread(fleet.start, "call", call__window=WINDOW)
    before = question(tenant, "before")
    await topics.ask(before)
    await topics.answers([before])
    head = question(tenant, "head", f"Who waits for {tenant}? [[fault:hang times=1]]")
    behind = questions(tenant, 30)
    await topics.ask(head, *behind)

    async def full() -> bool:
        consumer = fleet.consumer("call")
        return bool((consumer.get("uncommitted"), consumer.get("running")) == (BACKLOG, 1))

    await eventually(full, lambda: f"the backlog did not fill: {fleet.consumer('call')}")
    answered = behind[: BACKLOG - 1]
    await topics.answers(answered)
    await asyncio.sleep(1)  # a window without a bound would go on now
    await topics.catch_up()
    assert set(topics.responses(tenant)) == {f"{tenant}/{r['request_id']}" for r in (before, *answered)}
    counts = fleet.provider.counts()
    assert [counts[digest(r)] for r in (head, *behind)] == [1] * BACKLOG + [0] * (len(behind) - BACKLOG + 1)
    at = next(r.offset for r in topics.seen("compressed") if json.loads(r.value)["facts"]["request_id"] == "head")
    assert await topics.committed("call") == {0: at}

    await asyncio.to_thread(fleet.kill, "call")
    await asyncio.to_thread(fleet.start, "call", call__window=WINDOW)

    accounts = await account(fleet, topics, [head, *behind])
    assert accounts["head"].row.sent == ["unconfirmed", "settled"]
    assert accounts["head"].calls == 2
    for request in behind:
        one = accounts[request["request_id"]]
        assert (one.response["status"], one.row.sent, one.calls) == ("answered", ["settled"], 1)
