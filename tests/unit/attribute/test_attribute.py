"""Every ending becomes one response and one cost record, from the ledger's bytes and from nothing else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from schemas import UNCLAIMED, Finished
from tests.unit.attribute.books import ENDED, LARGE, MINI, answered, attempt, ended, facts
from tests.unit.attribute.test_statement import POLICY
from workers import policy
from workers.attribute.attribute import Observed, failed_internal, make_attribute, make_sweep
from workers.ledger.types import Books, Closed, Conflict, Ending, Revised, Stored, Used
from workers.outcomes import Emit, Message, Outcome, Unavailable
from workers.topics import COSTS, RESPONSES


class Ledger:
    """Ends what it is given, keeps the first bytes, and remembers how often it was asked."""

    def __init__(self, **answers: Closed) -> None:
        self.calls: list[list[str]] = []
        self.answers = answers
        self.rows: dict[str, Stored] = {}

    async def end(self, endings: list[Ending]) -> list[Closed]:
        self.calls.append([e.facts.request_id for e in endings])
        return [self.answers.get(e.facts.request_id) or self._end(e) for e in endings]

    def _end(self, ending: Ending) -> Stored:
        key = ending.facts.key
        if key in self.rows:
            return replace(self.rows[key], first=False)
        made = ending.state(Books((attempt(),), ENDED, 0))
        self.rows[key] = Stored(made.response, made.cost_record, first=True)
        return self.rows[key]


class Stage:
    def __init__(self, ledger: Any, the_policy: policy.Policy = POLICY) -> None:
        self.seen: list[Observed] = []
        self._attribute = make_attribute(
            ledger=ledger,
            policy=lambda: the_policy,
            rates=lambda model: MINI if model.litellm == "openai/mini" else LARGE,
            price_map="map-1",
            now=lambda: ENDED,
            observe=self.seen.append,
        )

    async def __call__(self, *events: Finished) -> list[Outcome]:
        return await self._attribute(events)

    async def one(self, event: Finished) -> tuple[Message, ...]:
        (outcome,) = await self(event)
        assert isinstance(outcome, Emit)
        return outcome.messages


def told(message: Message) -> dict[str, Any]:
    assert isinstance(message.value, bytes)
    body: dict[str, Any] = json.loads(message.value)
    return body


async def test_an_ending_becomes_a_response_and_a_cost_record() -> None:
    response, cost = await Stage(Ledger()).one(answered())
    assert (response.topic, response.key, dict(response.headers), response.topic_name) == (
        RESPONSES,
        "acme/r-1",
        {"x-lane": "interactive"},
        None,
    )
    assert (cost.topic, cost.key) == (COSTS, "acme/r-1")
    assert (told(response)["cost_usd"], told(cost)["cost_usd"]) == ("0.0012", "0.0012")


async def test_a_repeat_publishes_the_very_same_bytes() -> None:
    ledger = Ledger()
    first = await Stage(ledger).one(answered())
    again = await Stage(ledger).one(answered())
    assert [m.value for m in first] == [m.value for m in again], "the first time may have been cut off before its publish"
    asked_again = await Stage(ledger).one(answered(content="Another answer.", facts=facts(trace_id="another")))
    assert [(m.topic.name, m.value) for m in asked_again] == [("responses", first[0].value)], "a user's repeat costs nothing"


async def test_only_a_first_ending_is_counted() -> None:
    stage = Stage(Ledger())
    await stage(answered(), answered())
    assert len(stage.seen) == 1
    seen = stage.seen[0]
    assert (seen.status, seen.feature, seen.tier, seen.model, seen.source, seen.lane) == (
        "answered",
        "support",
        "light",
        "mini",
        "model",
        "interactive",
    )
    assert seen.baseline - seen.cost == seen.saved.total
    assert seen.seconds == 3.0
    assert not seen.price_unknown


async def test_one_ledger_call_a_batch_and_outcomes_in_order() -> None:
    ledger = Ledger()
    events = [answered(facts=facts(f"r-{i}")) if i % 2 else ended("rejected", "invalid_request", facts=facts(f"r-{i}")) for i in range(6)]
    outcomes = await Stage(ledger)(*events)
    assert ledger.calls == [["r-1", "r-3", "r-5"]]
    assert [m.key for o in outcomes if isinstance(o, Emit) for m in o.messages[:1]] == [f"acme/r-{i}" for i in range(6)]


@pytest.mark.parametrize("code", sorted(UNCLAIMED))
async def test_a_rejection_that_claims_no_id_never_meets_the_ledger(code: str) -> None:
    ledger = Ledger()
    stage = Stage(ledger)
    (response,) = await stage.one(ended("rejected", code))
    assert response.topic == RESPONSES
    assert told(response)["reason"] == {"code": code, "message": "why"}
    assert ledger.calls == []
    assert stage.seen == []


@pytest.mark.parametrize("code", ["budget_exceeded", "quota_exceeded", "no_model", "context_too_long"])
async def test_every_other_rejection_claims_it(code: str) -> None:
    ledger = Ledger()
    assert len(await Stage(ledger).one(ended("rejected", code))) == 2
    assert ledger.calls == [["r-1"]]


@pytest.mark.parametrize("missing", ["tenant", "feature"])
async def test_what_cannot_be_booked_is_answered_all_the_same(missing: str) -> None:
    ledger = Ledger()
    (response,) = await Stage(ledger).one(failed_internal(facts(**{missing: None})))
    assert response.key == ("/r-1" if missing == "tenant" else "acme/r-1")
    assert (told(response)["status"], told(response)["reason"]["code"]) == ("failed", "internal")
    assert ledger.calls == []


@pytest.mark.parametrize(("closed", "code"), [(Conflict(), "request_id_conflict"), (Used(), "request_id_used")])
async def test_an_id_that_is_taken_is_rejected_without_a_cost_record(closed: Closed, code: str) -> None:
    stage = Stage(Ledger(**{"r-1": closed}))
    (response,) = await stage.one(answered())
    body = told(response)
    assert (response.topic, response.key) == (RESPONSES, "acme/r-1")
    assert (body["status"], body["reason"]["code"], body["content"], body["cost_usd"]) == ("rejected", code, None, "0")
    assert body["metadata"] == {"order": 2**200}
    assert stage.seen == []


async def test_a_tenant_may_have_a_response_topic_of_its_own() -> None:
    own = policy.parse(
        "models: {mini: {litellm: openai/mini, context: 9, price: {input: 1, output: 1}}}\n"
        "tiers: {light: [mini]}\nreference: mini\ntenants: {acme: {responses_topic: acme.answers}, unknown: allow}\n",
        "test",
    )
    stage = Stage(Ledger(), own)
    response, cost = await stage.one(answered())
    assert (response.topic_name, cost.topic_name) == ("acme.answers", None)
    (response,) = await stage.one(ended("rejected", "invalid_request"))
    assert response.topic_name == "acme.answers"
    (response, _) = await stage.one(answered(facts=facts(tenant="globex")))
    assert response.topic_name is None


async def test_the_fleets_own_requests_are_booked_and_answer_nobody() -> None:
    stage = Stage(Ledger(**{"~audit/2": Conflict()}))
    (cost,) = await stage.one(answered(facts=facts("~audit/1", purpose="audit")))
    assert (cost.topic, told(cost)["purpose"]) == (COSTS, "audit")
    assert await stage.one(answered(facts=facts("~audit/2", purpose="audit"))) == ()


async def test_a_ledger_that_is_down_parks_the_stage() -> None:
    class Down:
        async def end(self, endings: list[Ending]) -> list[Closed]:
            raise Unavailable("ledger", "connection refused")

    with pytest.raises(Unavailable):
        await Stage(Down())(answered())


async def test_the_sweep_publishes_before_it_notes() -> None:
    order: list[str] = []
    revised = [Revised("acme", "r-1", 1, b'{"revision":1}')]

    class Sweeper:
        async def sweep(self) -> list[Revised]:
            return revised

        async def published(self, done: list[Revised]) -> None:
            assert done == revised
            order.append("noted")

    async def publish(messages: Sequence[Message]) -> None:
        assert list(messages) == [Message(COSTS, "acme/r-1", b'{"revision":1}')]
        order.append("published")

    assert await make_sweep(Sweeper(), publish)() == 1
    assert order == ["published", "noted"]


async def test_a_sweep_whose_publish_fails_notes_nothing() -> None:
    class Sweeper:
        async def sweep(self) -> list[Revised]:
            return [Revised("acme", "r-1", 1, b"{}")]

        async def published(self, done: list[Revised]) -> None:
            pytest.fail("it was not published")

    async def publish(messages: Sequence[Message]) -> None:
        raise Unavailable("kafka", "no leader")

    with pytest.raises(Unavailable):
        await make_sweep(Sweeper(), publish)()
