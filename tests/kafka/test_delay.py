"""A bulk request that must wait goes through a delay topic and comes back by itself; a stop meanwhile loses and repeats nothing.

And a tenant's own response topic that is not there: one dead letter, and nobody else notices.
"""

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


async def test_a_missing_topic_of_one_tenant_stops_nobody(fleet: Fleet, topics: Topics, tenant: str) -> None:
    fleet.write_policy(f"tenants: {{unknown: allow, {tenant}-gone: {{responses_topic: {tenant}.nowhere}}}}\n")
    try:
        await asyncio.sleep(6)  # the policy is looked at every five seconds
        others = [question(f"{tenant}-{n}", f"other-{n}") for n in range(6)]
        gone = question(f"{tenant}-gone", "gone")
        await topics.ask(*others[:3], gone, *others[3:])
        answers = await topics.answers(others)
        assert {a["status"] for a in answers.values()} == {"answered"}
        await topics.until(lambda: bool(topics.costs(f"{tenant}-gone")), "its cost record goes out all the same")
        letters = [r for r in topics.seen("dead") if dict(r.headers).get("x-dead-reason") == b"unpublishable"]
        assert len(letters) == 1
        assert f"{tenant}.nowhere".encode() in dict(letters[0].headers)["x-dead-error"]
        assert all(len(copies) == 1 for copies in topics.responses(tenant).values())
    finally:
        fleet.write_policy()
