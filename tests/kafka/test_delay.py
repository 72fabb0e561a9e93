"""A bulk request that must wait goes through a delay topic and comes back by itself; a stop meanwhile loses and repeats nothing."""

from __future__ import annotations

import asyncio

from tests.kafka.asking import question
from tests.kafka.books import account
from tests.kafka.fleet import Fleet
from tests.kafka.topics import Topics

STAGES = ("all",)
WAIT_S = 12


async def test_a_delayed_request_survives_a_stop_of_the_fleet_that_holds_it(fleet: Fleet, topics: Topics, tenant: str) -> None:
    busy = f"Which colour has the slow parcel of {tenant}? [[fault:rate_limit retry_after={WAIT_S} times=1]]"
    late = question(tenant, "late", busy, tier="light")
    await topics.ask(late, topic="requests.bulk")
    await topics.until(lambda: len(topics.seen("retry.10s")) == 1, "the request never came to a delay topic")
    assert await asyncio.to_thread(fleet.stop, "all") == 0
    await asyncio.to_thread(fleet.start, "all")

    one = (await account(fleet, topics, [late], lanes=("interactive", "bulk")))["late"]
    assert (one.response["status"], one.response["attempts"], len(one.responses)) == ("answered", 2, 1)
    assert (one.row.sent, one.calls) == (["settled", "settled"], 2), "the call that was refused, and the one after the wait"
    assert len(topics.seen("retry.10s")) == 1
