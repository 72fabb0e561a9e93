"""A mixed bag of requests through five processes and a real broker: each has one response, answered and priced to the micro-dollar."""

from __future__ import annotations

import json
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

import pytest

from tests.kafka.asking import question
from tests.kafka.books import MICRO, account, rows
from tests.kafka.fleet import Fleet
from tests.kafka.provider import digest
from tests.kafka.topics import Topics

RATES = {"mini": (1, 4), "middle": (5, 20), "large": (25, 100)}
"""The policy's dollars per million tokens: input, output."""

FIELDS = {
    *("schema_version", "request_id", "tenant", "feature", "user", "experiment", "lane", "status", "reason", "content", "tool_calls"),
    *("finish_reason", "source", "tier", "model", "attempts", "flags", "usage", "cost_usd", "unconfirmed_usd", "baseline_usd", "saved_usd"),
    *("created_at", "finished_at", "trace_id", "metadata"),
}
"""Of a response; every one is always there."""

LONG = "Before the parcel leaves the depot it is weighed, measured and given a label, and the label says who pays for the way it takes. "
MANUAL = " ".join(f"Rule {n}: shelf {n} of hall {n % 7} holds parcels whose number ends with {n % 10}." for n in range(60))


@pytest.fixture(scope="module")
def fleet(calm_fleet: Fleet) -> Fleet:
    return calm_fleet


def bag(tenant: str) -> dict[str, dict[str, Any]]:
    """What is asked, by what it shows."""
    tool = {"type": "function", "function": {"name": "track", "parameters": {"type": "object", "properties": {"id": {"type": "string"}}}}}
    return {
        "light": question(tenant, "light", user="u-1", experiment="e-1", metadata={"n": 2**70, "deep": [{"é": None}]}),
        "standard": question(tenant, "standard", f"{LONG}Who pays for parcel {tenant}?"),
        "heavy": question(tenant, "heavy", f"{LONG}Please explain why the sender of parcel {tenant} does not pay twice for it."),
        "forced": question(tenant, "forced", tier="heavy"),
        "json": question(tenant, "json", params={"response_format": {"type": "json_object"}, "max_tokens": 200, "temperature": 0}),
        "tool": question(tenant, "tool", params={"tools": [tool], "tool_choice": "required"}),
        "escalated": question(tenant, "escalated", f"May parcel {tenant} be opened? [[fault:refusal model=mini]]"),
        "handed over": question(tenant, "handed over", f"Is parcel {tenant} late? [[fault:unavailable model=mini]]"),
    }


async def test_every_request_has_one_priced_answer(fleet: Fleet, topics: Topics, tenant: str) -> None:
    asked = bag(tenant)
    await topics.ask(*asked.values())

    accounts = await account(fleet, topics, asked.values())
    told = {name: (one.response["status"], one.response["tier"], one.response["model"], one.calls) for name, one in accounts.items()}
    assert told == {
        "light": ("answered", "light", "mini", 1),
        "standard": ("answered", "standard", "middle", 1),
        "heavy": ("answered", "heavy", "large", 1),
        "forced": ("answered", "heavy", "large", 1),
        "json": ("answered", "light", "mini", 1),
        "tool": ("answered", "light", "mini", 1),
        "escalated": ("answered", "standard", "middle", 2),
        "handed over": ("answered", "standard", "middle", 2),
    }
    for name, one in accounts.items():
        billed = [call for call in fleet.provider.calls() if call["prompt"] == digest(asked[name]) and call["usage"]]
        cost = sum((dollars(call["model"], call["usage"]) for call in billed), Decimal(0))
        baseline = dollars("large", billed[-1]["usage"])
        response = one.response
        assert len(one.responses) == 1
        assert set(response) == FIELDS
        assert Decimal(response["cost_usd"]) == cost.quantize(MICRO, ROUND_HALF_EVEN), name
        assert Decimal(response["baseline_usd"]) == baseline.quantize(MICRO, ROUND_HALF_EVEN), name
        assert response["unconfirmed_usd"] == "0"
        assert response["attempts"] == len(one.row.sent) == one.calls
        assert response["usage"]["output_tokens"] == sum(call["usage"]["completion_tokens"] for call in billed), name
        assert (response["source"], response["reason"], response["lane"]) == ("model", None, "interactive")
        for both in ("cost_usd", "baseline_usd", "saved_usd", "usage", "tier", "model", "source", "tenant", "request_id", "feature"):
            assert one.cost[both] == response[both], (name, both)
        assert (one.cost["purpose"], one.cost["revision"], one.cost["price_unknown"]) == ("request", 1, False)

    light = accounts["light"].response
    assert light["metadata"] == asked["light"]["metadata"]
    assert (light["user"], light["experiment"], light["feature"]) == ("u-1", "e-1", "parcels")
    assert f"parcel {tenant} light" in light["content"]
    assert json.loads(accounts["json"].response["content"])["answer"]
    assert accounts["tool"].response["tool_calls"][0]["function"]["name"] == "track"
    record = topics.seen("responses", f"{tenant}/light")[0]
    assert (record.key, dict(record.headers)["x-lane"]) == (f"{tenant}/light".encode(), b"interactive")


async def test_a_paid_answer_serves_the_next_one_who_asks(fleet: Fleet, topics: Topics, tenant: str) -> None:
    same = {"text": "How are parcels with broken glass packed for the mail?", "cache": {"mode": "auto"}}
    first, second = question(tenant, "first", **same), question(tenant, "second", **same)
    await topics.ask(first)
    await topics.answers([first])
    await topics.quiet()
    await topics.ask(second)
    answers = await topics.answers([first, second])

    paid, served = answers["first"], answers["second"]
    assert (paid["source"], served["source"], served["content"]) == ("model", "cache_exact", paid["content"])
    assert (served["attempts"], served["cost_usd"], served["usage"]["input_tokens"]) == (0, "0", 0)
    assert served["saved_usd"]["cache"] == paid["cost_usd"]
    assert served["baseline_usd"] == paid["baseline_usd"]
    assert fleet.provider.counts()[digest(first)] == 1
    assert (await rows(fleet))[f"{tenant}/second"].states == []


async def test_background_is_compressed_and_the_saving_is_a_lever(fleet: Fleet, topics: Topics, tenant: str) -> None:
    documents = [{"id": "manual", "text": MANUAL}]
    asked = "Which shelf holds parcels whose number ends with 3?"
    short = question(tenant, "short", asked, documents=documents)
    whole = question(tenant, "whole", asked, documents=documents, compress="off")
    await topics.ask(short, whole)
    answers = await topics.answers([short, whole])

    tokens = {name: answer["usage"]["input_tokens"] for name, answer in answers.items()}
    assert 0 < tokens["short"] < 0.7 * tokens["whole"]
    assert Decimal(answers["short"]["saved_usd"]["compression"]) > 0 == Decimal(answers["whole"]["saved_usd"]["compression"])
    for answer in answers.values():
        saved = sum(map(Decimal, answer["saved_usd"].values()), Decimal(0))
        assert Decimal(answer["baseline_usd"]) - Decimal(answer["cost_usd"]) == saved


def dollars(model: str, usage: dict[str, int]) -> Decimal:
    into, out = RATES[model]
    return Decimal(usage["prompt_tokens"] * into + usage["completion_tokens"] * out) / 1_000_000
