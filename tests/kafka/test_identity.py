"""`(tenant, request_id)` is the idempotency key: what is asked again is answered again and not paid again. And the deadline."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.kafka.asking import question
from tests.kafka.books import account, assert_answered_once, rows
from tests.kafka.fleet import Fleet
from tests.kafka.provider import digest
from tests.kafka.topics import Topics


@pytest.fixture(scope="module")
def fleet(calm_fleet: Fleet) -> Fleet:
    return calm_fleet


async def copies(topics: Topics, name: str, number: int) -> list[bytes]:
    """Wait for so many records under the key of a response; their values, once the fleet is quiet."""
    await topics.until(lambda: len(topics.seen("responses", name)) >= number, lambda: f"{len(topics.seen('responses', name))} copies")
    await topics.quiet()
    return [record.value for record in topics.seen("responses", name)]


async def test_the_same_body_gets_the_stored_response_again(fleet: Fleet, topics: Topics, tenant: str) -> None:
    asked = question(tenant, "same", metadata={"a": 1, "b": [2]})
    await topics.ask(asked)
    await copies(topics, f"{tenant}/same", 1)
    turned = json.dumps(dict(reversed(asked.items())), indent=2).encode()  # the same JSON in other bytes
    await topics.publish("requests", turned)

    first, second = await copies(topics, f"{tenant}/same", 2)
    assert first == second
    assert fleet.provider.counts()[digest(asked)] == 1
    assert (await rows(fleet))[f"{tenant}/same"].sent == ["settled"]
    assert {record.value for record in topics.seen("costs", f"{tenant}/same")} == {topics.seen("costs", f"{tenant}/same")[0].value}


async def test_the_same_body_in_flight_gets_a_copy_when_it_is_there(fleet: Fleet, topics: Topics, tenant: str) -> None:
    asked = question(tenant, "twice", f"Who asks twice for {tenant}? [[fault:hang seconds=4 times=1]]")
    await topics.ask(asked)
    await topics.until(lambda: fleet.provider.counts()[digest(asked)] == 1, "it was not asked")
    assert not topics.seen("responses", f"{tenant}/twice")
    await topics.ask(asked)

    first, second = await copies(topics, f"{tenant}/twice", 2)
    assert first == second
    assert fleet.provider.counts()[digest(asked)] == 1


async def test_another_body_is_a_conflict_and_leaves_the_first_alone(fleet: Fleet, topics: Topics, tenant: str) -> None:
    asked, other = question(tenant, "one"), question(tenant, "one", f"What else, {tenant}?")
    await topics.ask(asked)
    (answer,) = await copies(topics, f"{tenant}/one", 1)
    before, costs = (await rows(fleet))[f"{tenant}/one"], topics.costs(tenant)
    await topics.ask(other)

    _, conflict = map(json.loads, await copies(topics, f"{tenant}/one", 2))
    assert (conflict["status"], conflict["reason"]["code"]) == ("rejected", "request_id_conflict")
    assert (conflict["content"], conflict["cost_usd"], conflict["attempts"]) == (None, "0", 0)
    assert (await rows(fleet))[f"{tenant}/one"] == before
    assert topics.costs(tenant) == costs
    assert fleet.provider.counts()[digest(other)] == 0

    await topics.ask(asked)
    assert (await copies(topics, f"{tenant}/one", 3))[2] == answer


async def test_another_body_in_flight_is_a_conflict_and_the_first_is_answered(fleet: Fleet, topics: Topics, tenant: str) -> None:
    asked = question(tenant, "one", f"Who comes first, {tenant}? [[fault:hang seconds=4 times=1]]")
    other = question(tenant, "one", f"And who second, {tenant}?")
    await topics.ask(asked)
    await topics.until(lambda: fleet.provider.counts()[digest(asked)] == 1, "it was not asked")
    await topics.ask(other)

    found = [json.loads(value) for value in await copies(topics, f"{tenant}/one", 2)]
    assert sorted(response["status"] for response in found) == ["answered", "rejected"]
    assert [r["reason"]["code"] for r in found if r["status"] == "rejected"] == ["request_id_conflict"]
    assert (fleet.provider.counts()[digest(asked)], fleet.provider.counts()[digest(other)]) == (1, 0)
    assert (await rows(fleet))[f"{tenant}/one"].sent == ["settled"]


async def test_another_tenant_may_use_the_same_id(fleet: Fleet, topics: Topics, tenant: str) -> None:
    one, two = question(tenant, "shared"), question(f"{tenant}-b", "shared")
    await topics.ask(one, two)

    for each in (one, two):
        accounts = await account(fleet, topics, [each])
        assert_answered_once(accounts)
        assert each["tenant"] in accounts["shared"].response["content"]


@pytest.mark.parametrize("deadline", ["2020-01-01T00:00:00Z", "2020-01-01T00:00:00+14:00"])
async def test_a_deadline_in_the_past_expires_without_a_call(deadline: str, fleet: Fleet, topics: Topics, tenant: str) -> None:
    asked = question(tenant, "late", deadline_at=deadline)
    await topics.ask(asked)

    one = (await account(fleet, topics, [asked]))["late"]
    response: dict[str, Any] = one.response
    assert (response["status"], response["reason"]["code"]) == ("expired", "deadline_passed")
    assert (one.calls, one.row.states, one.cost["attempts"], response["cost_usd"]) == (0, [], [], "0")
    assert len(one.responses) == 1
