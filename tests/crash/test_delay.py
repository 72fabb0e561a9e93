"""SIGKILL after the publish to a delay topic, and again after the way back: three live copies of one request, one ending."""

from __future__ import annotations

from tests.crash import crew
from tests.kafka.asking import question
from tests.kafka.books import account
from tests.kafka.fleet import Fleet
from tests.kafka.topics import DELAYED, Topics, eventually

WAIT_S = 10
"""The shortest wait that goes through a topic."""


async def test_killed_on_the_way_into_a_delay_topic_and_out_of_it(fleet: Fleet, topics: Topics, tenant: str) -> None:
    fleet.provider.latency(0)
    await crew.start(fleet, "all")
    marks = [f"kill-call.published-{tenant}", f"kill-redeliver.published-{tenant}"]
    busy = f"Which colour has the slow parcel of {tenant}? [[fault:rate_limit retry_after={WAIT_S} times=1]]"
    late = question(tenant, " ".join(marks), busy, tier="light")
    async with crew.revived(fleet, "all"):
        await topics.ask(late, topic="requests.bulk")
        for mark in marks:
            await crew.cut(fleet, mark)

        async def returned() -> bool:
            return await topics.behind(DELAYED) is None

        await eventually(returned, "the delay topics are not done")
        one = (await account(fleet, topics, [late], lanes=("bulk",)))[late["request_id"]]

    assert (one.response["status"], one.row.sent, one.calls) == ("answered", ["settled", "settled"], 2)
    assert [a["outcome"] for a in one.cost["attempts"]] == ["rate_limited", "accepted"], "one call was refused, one is paid"
    assert len(one.costs) == 1
    assert len([r for r in topics.seen("retry.10s") if tenant.encode() in r.value]) == 1
    back = [r for r in topics.seen("compressed.bulk") if tenant.encode() in r.value]
    assert len(back) >= 3, "as it came, and twice out of the delay topic"
