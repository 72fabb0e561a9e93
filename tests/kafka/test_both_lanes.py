"""Every stage of both lanes in one process, the smallest deployment: each lane is answered as itself, and one SIGTERM drains all of it."""

from __future__ import annotations

import asyncio

from tests.kafka.asking import question
from tests.kafka.books import account, assert_answered_once
from tests.kafka.fleet import Fleet
from tests.kafka.topics import Topics

STAGES = ("all",)


async def test_both_lanes_are_answered_and_a_stop_is_clean(fleet: Fleet, topics: Topics, tenant: str) -> None:
    soon, later = question(tenant, "soon"), question(tenant, "later")
    await topics.ask(soon)
    await topics.ask(later, topic="requests.bulk")
    accounts = await account(fleet, topics, [soon, later], lanes=("interactive", "bulk"))

    assert_answered_once(accounts)
    assert {name: one.response["lane"] for name, one in accounts.items()} == {"soon": "interactive", "later": "bulk"}
    lanes = {record.key.decode().partition("/")[2]: dict(record.headers)["x-lane"] for record in topics.seen("responses", tenant)}
    assert lanes == {"soon": b"interactive", "later": b"bulk"}

    await topics.ask(soon, topic="requests.bulk")
    await topics.until(lambda: len(topics.responses(tenant)[f"{tenant}/soon"]) == 2, "no answer to the id in the other lane")
    assert topics.responses(tenant)[f"{tenant}/soon"][1]["reason"]["code"] == "request_id_conflict"

    assert await asyncio.to_thread(fleet.stop, "all") == 0
