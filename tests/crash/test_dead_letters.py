"""A bug in any stage, and SIGKILL right after its dead letter is written: the original bytes, in every copy, and one ending."""

from __future__ import annotations

from collections import defaultdict

from aiokafka.structs import ConsumerRecord

from tests.crash import crew
from tests.crash.crew import ALL
from tests.kafka.asking import question, questions
from tests.kafka.books import account
from tests.kafka.fleet import Fleet
from tests.kafka.topics import Topics

STAGES = ("classify", "cache", "compress", "call", "attribute", "remember")
PAID = ("attribute", "remember")
"""Stages after the call."""


async def test_killed_after_the_dead_letter_of_a_bug(fleet: Fleet, topics: Topics, tenant: str) -> None:
    fleet.provider.latency(0)
    await crew.start(fleet, *ALL)
    bugs = {stage: question(tenant, f"bug-{stage}.work-{tenant} kill-{stage}.published-{tenant}") for stage in STAGES}
    unreadable = f'{{"request_id": 7, "tenant": "{tenant}", "note": "broken off'.encode()
    others = questions(tenant, 8)
    async with crew.revived(fleet, *ALL):
        await topics.ask(*others[:4], *bugs.values(), *others[4:])
        await topics.publish("requests", unreadable, key=tenant.encode())
        for stage in STAGES:
            await crew.cut(fleet, f"kill-{stage}.published-{tenant}")
        accounts = await account(fleet, topics, [*bugs.values(), *others])

    for stage, request in bugs.items():
        one = accounts[request["request_id"]]
        told = (one.response["status"], (one.response["reason"] or {}).get("code"), one.row.sent.count("settled"))
        ending = ("answered", None) if stage == "remember" else ("failed", "internal")
        assert told == (*ending, int(stage in PAID)), stage
        assert stage in PAID or not one.row.states, f"{stage}: no call is made for it"
        assert len(one.costs) == 1, stage
    for name in (request["request_id"] for request in others):
        one = accounts[name]
        assert (one.response["status"], one.row.sent.count("settled")) == ("answered", 1), f"{name}: {one.row}"
        assert one.calls <= 2, f"{name}: `call` died once"

    letters: dict[tuple[str, bytes], list[ConsumerRecord]] = defaultdict(list)
    for letter in topics.seen("dead"):
        if tenant.encode() in (letter.value or b""):
            letters[control(letter)["stage"], control(letter)["reason"]].append(letter)
    assert letters.keys() == {(stage, "bug") for stage in STAGES} | {("classify", "invalid_json")}
    for (stage, reason), copies in letters.items():
        for letter in copies:
            told = control(letter)
            original = await topics.record(told["topic"], int(told["partition"]), int(told["offset"]))
            assert (letter.key, letter.value) == (original.key, original.value), stage
            assert letter.headers[: len(original.headers)] == original.headers, stage
            if reason == "bug":
                assert told["error"].startswith("ZeroDivisionError at "), "where, and nothing of what it said"
                assert "secret" not in told["error"]
    assert [r.value for r in letters["classify", "invalid_json"]] == [unreadable] * len(letters["classify", "invalid_json"])


def control(letter: ConsumerRecord) -> dict[str, str]:
    return {name.removeprefix("x-dead-"): value.decode() for name, value in letter.headers if name.startswith("x-dead-")}
