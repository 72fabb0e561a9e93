"""Dead letters from an operator's side: listed, shown without a word of what they hold, mended, replayed, answered.

And when a stage must stop instead: a letter that cannot be written, a topic of which most dies.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.structs import ConsumerRecord

from tests.kafka.asking import question
from tests.kafka.books import account
from tests.kafka.commands import figures, scrimp
from tests.kafka.fleet import Fleet
from tests.kafka.topics import Topics, eventually

STUMBLING = (sys.executable, "-P", str(Path(__file__).with_name("stumbling.py")))
QUICKLY = {"policy_poll_s": 0.5}
SECRET = "heliotrope"
LANES = ("interactive", "bulk")


async def test_mended_and_replayed_it_is_answered(fleet: Fleet, topics: Topics, tenant: str) -> None:
    """A bug in reading leaves a request without an ending: after the fix a replay answers it. A bug further on has told its sender that it
    failed: a replay tells the same again, and nothing is called."""
    await asyncio.to_thread(fleet.start, "all", by=STUMBLING, **QUICKLY)
    unread = question(tenant, "unread", f"stumble-read {SECRET}?")
    unread_bulk = question(tenant, "unread-bulk", f"stumble-read {SECRET}, in bulk?")
    failed = question(tenant, "failed", f"stumble-call {SECRET}?")
    odd = (("x-odd", b"\xff\x00"), ("x-none", None), ("x-dead-reason", b"made up"))
    await topics.publish("requests", json.dumps(unread).encode(), key=b"\xff\x00", headers=odd)
    await topics.ask(unread_bulk, topic="requests.bulk")
    await topics.publish("classified.bulk", b"\x80garbage", key=None)
    await topics.ask(failed)
    first = (await topics.answers([failed]))["failed"]
    assert (first["status"], first["reason"]["code"]) == ("failed", "internal")
    await topics.until(lambda: len(topics.seen("dead")) == 4, "four letters")

    shown = await figures(fleet, "dead", "list")
    places = {(row["topic"].removeprefix(fleet.prefix), row["stage"], row["reason"]): row["letter"] for row in shown["letters"]}
    assert set(places) == {
        ("requests", "classify", "bug"),
        ("requests.bulk", "classify", "bug"),
        ("compressed", "call", "bug"),
        ("classified.bulk", "cache", "undecodable"),
    }
    assert shown["total"] == sum(count["count"] for count in shown["counts"]) == 4
    for filters, total in (
        (("--stage", "call"), 1),
        (("--reason", "bug"), 3),
        (("--topic", f"{fleet.prefix}requests.bulk"), 1),
        (("--since", "1h"), 4),
        (("--until", "1h"), 0),
        (("--since", "2020-01-01T00:00Z", "--reason", "bug", "--stage", "classify"), 2),
    ):
        assert (await figures(fleet, "dead", "list", *filters))["total"] == total, filters
    place = places["requests", "classify", "bug"]
    told = (
        await scrimp(fleet, "dead", "list") + await scrimp(fleet, "dead", "show", place) + str(await figures(fleet, "dead", "show", place))
    )
    assert SECRET not in told
    assert "\\xff" not in told
    whole = await figures(fleet, "dead", "show", place, "--body")
    assert json.loads(whole["body"]) == unread
    assert SECRET in await scrimp(fleet, "dead", "show", place, "--body")
    await scrimp(fleet, "dead", "show", "0:999999", ends_with=1)

    assert await asyncio.to_thread(fleet.stop, "all") == 0
    await asyncio.to_thread(fleet.start, "all", **QUICKLY)
    seen = len(topics.seen("dead"))
    dry = await figures(fleet, "dead", "replay", "--reason", "bug")
    assert (dry["sent"], dry["total"]) == (False, 3)
    assert (await figures(fleet, "dead", "list"))["letters"] == shown["letters"], "a dry run leaves no trace"
    sent = await figures(fleet, "dead", "replay", "--reason", "bug", "--yes")
    assert (sent["sent"], sent["total"]) == (True, 3)

    accounts = await account(fleet, topics, [unread, unread_bulk, failed], lanes=LANES)
    for name in ("unread", "unread-bulk"):
        one = accounts[name]
        assert (one.response["status"], one.row.sent, one.calls) == ("answered", ["settled"], 1), name
    assert accounts["unread-bulk"].response["lane"] == "bulk"
    assert (accounts["failed"].response, accounts["failed"].calls) == (first, 0)
    assert len(accounts["failed"].responses) == 2, "the stored response again, byte for byte"
    (again,) = [r for r in await _records(fleet, f"{fleet.prefix}requests") if dict(r.headers).get("x-replayed-from")][:1]
    assert (again.key, json.loads(again.value), tuple(again.headers)) == (b"\xff\x00", unread, (*odd, ("x-replayed-from", place.encode())))

    repeat = await figures(fleet, "dead", "replay", "--reason", "bug", "--yes")
    assert (repeat["total"], len(repeat["replayed_before"])) == (0, 3)
    assert [bool(row["replayed_at"]) for row in (await figures(fleet, "dead", "list", "--reason", "bug"))["letters"]] == [True] * 3
    assert "replayed before" in await scrimp(fleet, "dead", "replay", place, "--yes")
    assert len(topics.seen("dead")) == seen, "nothing has died again"

    garbage = places["classified.bulk", "cache", "undecodable"]
    assert "sent to" in await scrimp(fleet, "dead", "replay", garbage, "--yes")
    await topics.until(lambda: len(topics.seen("dead")) == seen + 1, "what is wrong in itself dies again")
    assert topics.seen("dead")[-1].value == b"\x80garbage"
    assert dict(topics.seen("dead")[-1].headers)["x-replayed-from"] == garbage.encode()
    assert (await figures(fleet, "dead", "replay", "--reason", "undecodable"))["total"] == 1, "its new letter, not the old one as well"
    for _ in range(2):
        more = await figures(fleet, "dead", "replay", places["compressed", "call", "bug"], "--yes", "--again")
        assert more["total"] == 1
    accounts = await account(fleet, topics, [failed], lanes=LANES)
    assert (accounts["failed"].calls, len(set(accounts["failed"].responses))) == (0, 1), "repeated or not, it costs nothing"


async def test_a_response_without_a_topic_goes_out_once_the_topic_is_back(fleet: Fleet, topics: Topics, tenant: str) -> None:
    """Its tenant's own topic went away: one letter, and nobody else notices. Made anew, it gets the answer that was paid for."""
    await _up(fleet)
    own = f"{tenant}.answers"
    async with _admin(fleet) as admin:
        await admin.create_topics([NewTopic(own, 1, 1)])
        fleet.write_policy(f"tenants: {{unknown: allow, {tenant}: {{responses_topic: {own}}}}}\n")
        try:
            await _until_it_has_its_topic(fleet, topics, own, tenant)
            await admin.delete_topics([own])
            others = [question(f"{tenant}-{n}", f"other-{n}") for n in range(6)]
            gone = question(tenant, "gone")
            await eventually(lambda: _gone(admin, own), "the topic never went")
            fleet.consumer("all")  # whoever asks for its readiness makes the process look at the broker's topics
            await topics.ask(*others[:3], gone, *others[3:])
            assert {a["status"] for a in (await topics.answers(others)).values()} == {"answered"}
            await topics.until(lambda: f"{tenant}/gone" in topics.costs(tenant), "its cost record goes out all the same")
            letters = (await figures(fleet, "dead", "list", "--reason", "unpublishable"))["letters"]
            assert [(row["stage"], row["key"]) for row in letters] == [("attribute", f"{tenant}/gone")]
            assert own in letters[0]["error"]

            await scrimp(fleet, "topics", "apply")
            assert "would be sent" in await scrimp(fleet, "dead", "replay", "--reason", "unpublishable")
            await scrimp(fleet, "dead", "replay", "--reason", "unpublishable", "--yes")
            await eventually(lambda: _has(fleet, own, "gone"), "the response never came")
        finally:
            fleet.write_policy()


async def test_a_stage_stops_where_a_letter_cannot_be_written_and_loses_nothing(fleet: Fleet, topics: Topics) -> None:
    await _down(fleet)
    async with _admin(fleet) as admin:
        await _limit(admin, fleet, 50)
        try:
            await asyncio.to_thread(fleet.start, "compress")
            sent = await topics.publish("missed", b"\x80" * 100, key=b"one")
            assert await asyncio.to_thread(fleet.processes["compress"].ended, 60) == 1
            assert "a dead letter cannot be written" in fleet.logs()["compress.log"]
            assert (await topics.committed("compress")).get(sent.partition, 0) <= sent.offset
        finally:
            await _limit(admin, fleet, 4 << 20)
    await asyncio.to_thread(fleet.start, "compress")
    await topics.until(lambda: any(r.key == b"one" for r in topics.seen("dead")), "its letter")


async def test_a_stage_stops_when_most_of_its_topic_dies_and_every_letter_is_written(fleet: Fleet, topics: Topics) -> None:
    await _down(fleet)
    await topics.catch_up()
    before = len(topics.seen("dead"))
    for n in range(400):
        await topics.publish("missed", b"\x80garbage", key=str(n).encode())
    await asyncio.to_thread(fleet.launch, "compress", compress__window=20)
    assert await asyncio.to_thread(fleet.processes["compress"].ended, 60) == 1
    assert "records of compress went to the dead letters" in fleet.logs()["compress.log"]
    await topics.catch_up()
    letters = [dict(r.headers) for r in topics.seen("dead")[before:]]
    assert 100 <= len(letters) < 400, "it stopped before the end"
    written = {(int(told["x-dead-partition"]), int(told["x-dead-offset"])) for told in letters}
    for partition, offset in (await topics.committed("compress")).items():
        assert (partition, offset) not in written
        assert {o for p, o in written if p == partition} <= set(range(offset)), "what has a letter is committed"
    assert len(written) == len(letters)


async def _up(fleet: Fleet) -> None:
    if not fleet.running("all"):
        await asyncio.to_thread(fleet.start, "all", **QUICKLY)


async def _down(fleet: Fleet) -> None:
    for name in list(fleet.processes):
        if fleet.running(name):
            await asyncio.to_thread(fleet.stop, name)


@asynccontextmanager
async def _admin(fleet: Fleet) -> AsyncIterator[AIOKafkaAdminClient]:
    if fleet.broker.kind == "embedded":
        pytest.skip("the embedded broker cannot delete or alter a topic")
    admin = AIOKafkaAdminClient(bootstrap_servers=fleet.broker.bootstrap)
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


async def _limit(admin: AIOKafkaAdminClient, fleet: Fleet, size: int) -> None:
    """Of a record on the topic of the dead letters, in bytes."""
    wanted = {"max.message.bytes": str(size), "retention.ms": "3600000"}
    await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, f"{fleet.prefix}dead", configs=wanted)])


async def _until_it_has_its_topic(fleet: Fleet, topics: Topics, own: str, tenant: str) -> None:
    """The policy is taken some time after it is written."""
    asked = 0

    async def there() -> bool:
        nonlocal asked
        asked += 1
        await topics.ask(question(tenant, f"warm-{asked}"))
        await topics.until(lambda: f"{tenant}/warm-{asked}" in topics.costs(tenant), "a warm request never ended")
        return bool(await _responses(fleet, own))

    await eventually(there, "the policy was never taken")


async def _records(fleet: Fleet, topic: str) -> list[ConsumerRecord]:
    """All that stands on a topic."""
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=fleet.broker.bootstrap, auto_offset_reset="earliest", enable_auto_commit=False)
    await consumer.start()
    try:
        ends = await consumer.end_offsets(list(consumer.assignment()))
        return [await consumer.getone() for _ in range(sum(ends.values()))]
    finally:
        await consumer.stop()


async def _responses(fleet: Fleet, own: str) -> list[dict[str, Any]]:
    return [json.loads(record.value) for record in await _records(fleet, own)]


async def _gone(admin: AIOKafkaAdminClient, name: str) -> bool:
    return name not in await admin.list_topics()


async def _has(fleet: Fleet, own: str, request_id: str) -> bool:
    return (request_id, "answered") in [(r["request_id"], r["status"]) for r in await _responses(fleet, own)]
