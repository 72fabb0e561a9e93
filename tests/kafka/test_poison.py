"""Whatever comes: what has an id gets a clear `rejected`, what has none a dead letter with its own bytes, and the fleet goes on."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pytest
from aiokafka.structs import ConsumerRecord

from tests.kafka.asking import question
from tests.kafka.books import account, assert_answered_once, rows
from tests.kafka.fleet import Fleet
from tests.kafka.topics import Headers, Topics

ODD: Headers = (
    ("x-odd", b"\xff\xfe\x00"),
    ("x-odd", b"twice"),
    ("x-none", None),
    ("x-empty", b""),
    ("traceparent", b"\xff not a trace"),
    ("x-dead-reason", b"made up by a user"),
)
"""Headers that no text decoder takes."""

UNREADABLE: dict[str, tuple[bytes | None, str]] = {
    "broken off": (b'{"request_id": "r-1", "tenant": ', "invalid_json"),
    "null": (None, "null_value"),
    "empty": (b"", "empty_value"),
    "binary": (bytes(range(256)), "invalid_utf8"),
    "not a number": (b'{"request_id": "r-1", "x": NaN}', "invalid_json"),
    "bottomless": (b"[" * 50_000, "invalid_json"),
    "a list": (b'["request_id"]', "not_an_object"),
    "without an id": (b'{"tenant": "t", "feature": "f", "messages": []}', "no_request_id"),
    "with a number for an id": (b'{"request_id": 7}', "no_request_id"),
}
"""Value of the record, and why it is dead."""

INVALID: dict[str, tuple[dict[str, Any], str]] = {
    "unknown role": ({"messages": [{"role": "wizard", "content": "Hello?"}]}, "invalid_request"),
    "no messages": ({"messages": []}, "invalid_request"),
    "no feature": ({"feature": None}, "invalid_request"),
    "unknown parameter": ({"params": {"api_base": "http://127.0.0.1:1"}}, "invalid_request"),
    "another version": ({"schema_version": 2}, "invalid_request"),
    "wrong types": ({"messages": "Hello?", "tier": 3}, "invalid_request"),
    "a deadline without a zone": ({"deadline_at": "2026-12-01T12:00:00"}, "invalid_request"),
    "too large": ({"metadata": {"pad": "x" * 950_000}}, "too_large"),
    "an id of the fleet's own": ({"request_id": "~audit/1"}, "invalid_request"),
}
"""What is wrong with a request that is good but for that, and the code of its rejection."""


@pytest.fixture(scope="module")
def fleet(calm_fleet: Fleet) -> Fleet:
    return calm_fleet


async def test_what_has_no_id_is_a_dead_letter_with_its_own_bytes(fleet: Fleet, topics: Topics, tenant: str) -> None:
    keys = {name: None if name == "binary" else f"{tenant}/{name}".encode() + b"\xff\x00" for name in UNREADABLE}
    sent = {name: await topics.publish("requests", value, key=keys[name], headers=ODD) for name, (value, _) in UNREADABLE.items()}
    good = question(tenant, "good")
    await topics.ask(good)

    assert_answered_once(await account(fleet, topics, [good]))
    letters = dead(topics)
    for name, (value, reason) in UNREADABLE.items():
        letter = letters["classify", f"{fleet.prefix}requests", sent[name].partition, sent[name].offset]
        assert (letter.key, letter.value) == (keys[name], value), name
        assert letter.headers[: len(ODD)] == ODD, name
        control = dict(letter.headers[len(ODD) :])
        assert control["x-dead-reason"] == reason.encode(), name
        assert control["x-dead-error"], name
        assert datetime.fromisoformat(control["x-dead-at"].decode()).utcoffset() is not None
    assert list(topics.responses(tenant)) == [f"{tenant}/good"]


@pytest.mark.parametrize("stage", ["cache", "compress", "call", "attribute", "remember"])
async def test_garbage_between_the_stages_is_a_dead_letter(stage: str, fleet: Fleet, topics: Topics, tenant: str) -> None:
    topic = {"cache": "classified", "compress": "missed", "call": "compressed"}.get(stage, "finished")
    sent = [await topics.publish(topic, value, key=b"\xff", headers=ODD) for value in (b"\x80garbage", b'{"facts": {}}', b"", None)]
    good = question(tenant, "good")
    await topics.ask(good)

    assert_answered_once(await account(fleet, topics, [good]))
    letters = [dead(topics)[stage, f"{fleet.prefix}{topic}", record.partition, record.offset] for record in sent]
    assert [letter.value for letter in letters] == [b"\x80garbage", b'{"facts": {}}', b"", None]
    assert all(letter.key == b"\xff" and letter.headers[: len(ODD)] == ODD for letter in letters)


@pytest.mark.parametrize(("stage", "topic"), [("cache", "classified"), ("call", "compressed"), ("attribute", "finished")])
async def test_an_event_that_only_says_whose_it_is_ends_its_request(
    stage: str, topic: str, fleet: Fleet, topics: Topics, tenant: str
) -> None:
    real = question(tenant, "real")
    await topics.ask(real)
    await topics.answers([real])
    facts = next(e["facts"] for r in topics.seen("compressed", tenant) if (e := json.loads(r.value))["facts"]["request_id"] == "real")
    broken = json.dumps({"facts": facts | {"request_id": "broken"}, "status": "unheard of"}).encode()
    await topics.publish(topic, broken, key=f"{tenant}/broken".encode())

    one = (await account(fleet, topics, [question(tenant, "broken")]))["broken"]
    assert (one.response["status"], one.response["reason"]["code"]) == ("failed", "internal")
    assert (one.row.states, one.calls, len(one.responses)) == ([], 0, 1)
    assert [letter.value for (of, *_), letter in dead(topics).items() if of == stage and letter.key == f"{tenant}/broken".encode()] == [
        broken
    ]


async def test_what_has_an_id_is_rejected_with_a_reason(fleet: Fleet, topics: Topics, tenant: str) -> None:
    wrong = {name: question(tenant, name) | change for name, (change, _) in INVALID.items()}
    nobody = question(tenant, f"nobody-{tenant}")
    del nobody["tenant"]
    good = question(tenant, "good")
    await topics.ask(*wrong.values(), nobody, good)

    assert_answered_once(await account(fleet, topics, [good]))
    found = topics.responses(tenant) | topics.responses(f"/nobody-{tenant}")
    for name, (_, code) in INVALID.items():
        (response,) = found.pop(f"{tenant}/{wrong[name]['request_id']}")
        assert (response["status"], response["reason"]["code"]) == ("rejected", code), name
        assert response["reason"]["message"]
        assert (response["content"], response["cost_usd"], response["attempts"]) == (None, "0", 0)
    (response,) = found.pop(f"/nobody-{tenant}")
    assert (response["tenant"], response["reason"]["code"]) == (None, "invalid_request")
    assert list(found) == [f"{tenant}/good"]
    assert [k for k in await rows(fleet) if k.startswith(tenant)] == [f"{tenant}/good"], "a rejected request must not claim its id"
    assert list(topics.costs(tenant)) == [f"{tenant}/good"]


async def test_a_corrected_request_may_use_the_same_id(fleet: Fleet, topics: Topics, tenant: str) -> None:
    corrected = question(tenant, "again")
    await topics.ask(corrected | {"params": {"temprature": 1}})
    assert (await topics.answers([corrected]))["again"]["reason"]["code"] == "invalid_request"
    await topics.ask(corrected)

    await topics.until(lambda: len(topics.responses(tenant)[f"{tenant}/again"]) == 2, "no second response")
    assert topics.responses(tenant)[f"{tenant}/again"][1]["status"] == "answered"


def dead(topics: Topics) -> dict[tuple[str, str, int, int], ConsumerRecord]:
    """Every dead letter by stage, and by topic, partition and offset of what died. A record may bring headers of such names along: ours
    come last."""
    letters = {}
    for record in topics.seen("dead"):
        control = {name: value.decode() for name, value in record.headers if name.startswith("x-dead-")}
        at = (control["x-dead-topic"], int(control["x-dead-partition"]), int(control["x-dead-offset"]))
        letters[control["x-dead-stage"], *at] = record
    return letters
