"""`cache` and `remember` together, with the bundled encoder and an embedded Qdrant: who gets whose answer, and who gets none."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any

import numpy as np
import pytest

from schemas import Classified, Document, Finished, Message, Missed, Params, TokensAround, Usage
from tests.servers.qdrant import qdrant_over_rest
from tests.unit.cache.events import Clock, Counted, answer, ask
from workers.cache.cache import make_cache
from workers.cache.entry import Vector, pack, unpack
from workers.cache.remember import make_remember
from workers.cache.store import Search, Store, open_store
from workers.encoder.bundled import bundled
from workers.encoder.encoder import Encoder, open_encoder
from workers.encoder.errors import EncodeFailed
from workers.outcomes import Emit, End, Outcome

RESET = "How do I reset my password?"
STEPS = "What are the steps to reset my password?"


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return open_encoder(bundled(), "unused", threads=1)


@pytest.fixture
def counted() -> Counted:
    return Counted()


@pytest.fixture
def clock() -> Clock:
    return Clock()


class Stages:
    """Both stages over one store; `through` sends a request in and, on a miss, has a model answer it and the answer remembered."""

    def __init__(
        self, store: Store, encode: Callable[[Sequence[str]], list[Vector]], now: Callable[[], datetime], observe: Counted
    ) -> None:
        self.cache: Callable[[Sequence[Classified]], Awaitable[list[Outcome]]] = make_cache(
            encode=encode, encoder_name="minilm@1", store=store, now=now, observe=observe
        )
        self.remember = make_remember(encode=encode, encoder_name="minilm@1", store=store, now=now, observe=observe)

    async def look(self, event: Classified) -> Finished | Missed:
        (outcome,) = await self.cache([event])
        return inside(outcome)

    async def through(self, event: Classified, content: str = "An answer.", **changes: Any) -> Finished | Missed:
        found = await self.look(event)
        if isinstance(found, Missed):
            assert await self.remember([answer(found, content, **changes)]) == [Emit()]
        return found


def inside(outcome: Outcome) -> Finished | Missed:
    if isinstance(outcome, End):
        return outcome.finished
    assert isinstance(outcome, Emit)
    (message,) = outcome.messages
    assert message.topic.name == "missed"
    assert isinstance(message.value, Missed)
    assert message.key == message.value.facts.key
    return message.value


@pytest.fixture
async def store(counted: Counted, encoder: Encoder) -> AsyncIterator[Store]:
    store = await open_store(url="", api_key="", path=None, collection="answers", dim=encoder.dim, timeout_s=0.03, observe=counted)
    yield store
    await store.close()


@pytest.fixture
def stages(store: Store, encoder: Encoder, clock: Clock, counted: Counted) -> Stages:
    return Stages(store, encoder.encode, clock, counted)


async def test_the_same_prompt_gets_the_stored_answer(stages: Stages, counted: Counted) -> None:
    first = await stages.through(ask(RESET), "Press the button.")
    assert isinstance(first, Missed)
    hit = await stages.look(ask(RESET, user="bob", plan={"flags": ("max_tokens_capped",)}))
    assert isinstance(hit, Finished)
    assert (hit.status, hit.source, hit.content, hit.finish_reason) == ("answered", "cache_exact", "Press the button.", "stop")
    assert (hit.tier, hit.model, hit.flags) == ("light", "mini", ("max_tokens_capped",))
    assert hit.facts.user == "bob"
    assert hit.cached_from is not None
    assert hit.cached_from.usage == Usage(input_tokens=20, output_tokens=40)
    assert hit.cached_from.tokens == hit.tokens == TokensAround(before=20, after=20)
    assert hit.cached_from.similarity == 1
    assert not hit.accepted
    assert hit.usage is hit.cache_key is None
    assert counted == [("miss", "no_neighbour"), ("stored", "model"), ("hit", "exact")]


async def test_another_wording_gets_it_too(stages: Stages, counted: Counted) -> None:
    await stages.through(ask(RESET), "Press the button.")
    hit = await stages.look(ask(STEPS))
    assert isinstance(hit, Finished)
    assert (hit.source, hit.content) == ("cache_semantic", "Press the button.")
    assert hit.cached_from is not None
    assert hit.cached_from.similarity == pytest.approx(0.946, abs=0.005)
    assert counted[-1] == ("hit", "semantic")


@pytest.mark.parametrize(
    ("stored", "asked", "reason"),
    [
        ("How many days did it rain in Bergen in 2019?", "How many days did it rain in Bergen in 2018?", "numbers"),
        ("What is the maximum length of a file name?", "What is the minimum length of a file name?", "opposites"),
        ("Convert dollars to rupees", "Convert rupees to dollars", "order"),
    ],
)
async def test_a_near_question_with_another_answer_does_not(
    stages: Stages, counted: Counted, encoder: Encoder, monkeypatch: pytest.MonkeyPatch, stored: str, asked: str, reason: str
) -> None:
    threshold = {"candidate_threshold": 0.88, "serve_threshold": 0.88}
    a, b = encoder.encode([stored, asked])
    assert float(a @ b) >= 0.88, "not near enough to be a trap"
    await stages.through(ask(stored, cache=threshold))
    assert isinstance(await stages.look(ask(asked, cache=threshold)), Missed)
    assert counted[-1] == ("miss", "no_neighbour")

    # Nor if the guard were the only one to notice.
    monkeypatch.setattr("workers.cache.cache.form", lambda text: "any")
    await stages.through(ask(stored, tenant="umbrella", cache=threshold))
    assert isinstance(await stages.look(ask(asked, tenant="umbrella", cache=threshold)), Missed)
    assert counted[-2:] == [("veto", reason), ("miss", "vetoed")]


async def test_between_the_thresholds_is_a_miss(stages: Stages, counted: Counted) -> None:
    await stages.through(ask(RESET))
    assert isinstance(await stages.look(ask(STEPS, cache={"serve_threshold": 0.95})), Missed)
    assert counted[-1] == ("miss", "below_serve_threshold")


async def test_a_miss_carries_the_key_and_the_event(stages: Stages, encoder: Encoder) -> None:
    plain = ask(RESET)
    event = Classified.model_validate({"facts": plain.facts, "prompt": plain.prompt, "plan": plain.plan, "newer_field": 1})
    missed = await stages.look(event)
    assert isinstance(missed, Missed)
    assert (missed.facts, missed.prompt, missed.plan) == (event.facts, event.prompt, event.plan)
    assert missed.model_extra == {"newer_field": 1}
    assert missed.cache_key is not None
    assert (missed.cache_key.text, missed.cache_key.encoder) == (RESET, "minilm@1")
    assert missed.cache_key.form is not None
    assert missed.cache_key.vector is None

    # One that has been embedded is not embedded again.
    await stages.remember([answer(missed)])
    again = await stages.look(ask(STEPS, cache={"serve_threshold": 1}))
    assert isinstance(again, Missed)
    assert again.cache_key is not None
    assert again.cache_key.form == missed.cache_key.form
    assert again.cache_key.vector is not None
    assert np.allclose(unpack(again.cache_key.vector), encoder.encode([STEPS])[0], atol=1e-6)


async def test_a_question_is_embedded_where_another_of_its_form_stands_or_when_its_answer_is_stored(
    store: Store, encoder: Encoder, clock: Clock, counted: Counted
) -> None:
    embedded: list[str] = []

    def encode(texts: Sequence[str]) -> list[Vector]:
        embedded.extend(texts)
        return encoder.encode(texts)

    stages = Stages(store, encode, clock, counted)
    await stages.look(ask("What is a fjord?"))
    assert embedded == []
    await stages.through(ask(RESET))
    assert embedded == [RESET]
    await stages.look(ask("How do I reset his password?"))
    await stages.look(ask(STEPS, tenant="umbrella"))
    assert embedded == [RESET]
    assert isinstance(await stages.look(ask(STEPS)), Finished)
    assert embedded == [RESET, STEPS]
    assert isinstance(await stages.through(ask(STEPS, cache={"serve_threshold": 1})), Missed)
    assert embedded == [RESET, STEPS, STEPS]


async def test_vectors_of_two_encoders_never_meet(stages: Stages, counted: Counted) -> None:
    missed = await stages.look(ask(RESET))
    assert isinstance(missed, Missed)
    assert missed.cache_key is not None
    of_another = missed.cache_key.model_copy(update={"encoder": "minilm@2"})
    await stages.remember([answer(missed, cache_key=of_another)])
    assert counted[-2:] == [("error", "another_encoder"), ("stored", "model")]
    assert isinstance(await stages.look(ask(RESET)), Finished)
    assert isinstance(await stages.look(ask(STEPS)), Missed)


async def test_the_vector_of_an_older_cache_is_kept(stages: Stages, encoder: Encoder, counted: Counted) -> None:
    missed = await stages.look(ask(RESET))
    assert isinstance(missed, Missed)
    assert missed.cache_key is not None
    older = missed.cache_key.model_copy(update={"form": None, "encoder": None, "vector": pack(encoder.encode([RESET])[0])})
    await stages.remember([answer(missed, cache_key=older)])
    assert counted[-1] == ("stored", "model")
    assert isinstance(await stages.look(ask(RESET)), Finished)


@pytest.mark.parametrize(
    ("cache", "why"),
    [
        *(({"verdict": v}, v) for v in ("volatile", "personal", "deictic", "off", "no_user", "sampling", "uncacheable")),
        ({"read": False, "write": False}, "off"),
    ],
)
async def test_what_is_not_cacheable_is_neither_served_nor_stored(
    stages: Stages, counted: Counted, cache: dict[str, Any], why: str
) -> None:
    await stages.through(ask(RESET))
    counted.clear()
    for _ in range(2):
        missed = await stages.look(ask(RESET, cache=cache))
        assert isinstance(missed, Missed)
        assert missed.cache_key is None
    assert counted == [("skip", why)] * 2


async def test_nobody_gets_nothing(stages: Stages, counted: Counted) -> None:
    for event in (ask(RESET, tenant=None), ask(RESET, user=None, cache={"share": "user"})):
        missed = await stages.through(event)
        assert isinstance(missed, Missed)
        assert missed.cache_key is None
    assert [c for c in counted if c[0] != "skip"] == [("not_stored", "no_key")] * 2


async def test_refresh_answers_anew_and_replaces(stages: Stages) -> None:
    await stages.through(ask(RESET), "old")
    assert isinstance(await stages.through(ask(RESET, cache={"read": False}), "new"), Missed)
    hit = await stages.look(ask(RESET))
    assert isinstance(hit, Finished)
    assert hit.content == "new"


async def test_read_only_serves_and_stores_nothing(stages: Stages) -> None:
    assert isinstance(await stages.through(ask(RESET, cache={"write": False})), Missed)
    assert isinstance(await stages.look(ask(RESET)), Missed)


async def test_exact_only_needs_no_encoder(store: Store, clock: Clock, counted: Counted) -> None:
    def encode(texts: Sequence[str]) -> list[Vector]:
        pytest.fail("nobody wanted a vector")

    stages = Stages(store, encode, clock, counted)
    tool = Message.model_validate({"role": "tool", "content": "18 degrees", "tool_call_id": "1"})
    for event in (ask(RESET, cache={"semantic": False}), ask("", last=tool), ask("def f(x):\n    return x")):
        assert isinstance(await stages.through(event), Missed)
        assert isinstance(await stages.look(event), Finished)


async def test_an_answer_does_not_outlive_its_time(stages: Stages, clock: Clock) -> None:
    await stages.through(ask(RESET, cache={"ttl_s": 100}))
    clock.forward(99)
    assert isinstance(await stages.look(ask(RESET)), Finished)
    assert isinstance(await stages.look(ask(STEPS)), Finished)
    clock.forward(1)
    assert isinstance(await stages.look(ask(RESET)), Missed)
    assert isinstance(await stages.look(ask(STEPS)), Missed)


async def test_an_answer_longer_than_asked_for_is_not_served(stages: Stages, counted: Counted) -> None:
    await stages.through(ask(RESET), usage=Usage(output_tokens=40))
    short: dict[str, Any] = {"max_tokens": {"light": 39, "standard": 800, "heavy": 2000}}
    assert isinstance(await stages.look(ask(RESET, plan=short)), Missed)
    assert isinstance(await stages.look(ask(STEPS, plan=short)), Missed)
    assert counted[-1] == ("miss", "too_long")
    enough: dict[str, Any] = {"max_tokens": {"light": 40, "standard": 1, "heavy": 1}}
    assert isinstance(await stages.look(ask(RESET, plan=enough)), Finished)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"status": "failed"}, "not_accepted"),
    ({"accepted": False}, "not_accepted"),
    ({"finish_reason": "length"}, "incomplete"),
    ({"finish_reason": "content_filter"}, "incomplete"),
    ({"finish_reason": None}, "incomplete"),
    ({"content": None}, "empty"),
    ({"content": " \n"}, "empty"),
    ({"tool_calls": ({"id": "1"},)}, "tool_calls"),
    ({"flags": ("check_failed",)}, "second_best"),
    ({"flags": ("max_tokens_capped", "escalation_refused")}, "second_best"),
    ({"flags": ("degraded",)}, "second_best"),
    ({"usage": None}, "no_figures"),
    ({"tokens": None}, "no_figures"),
    ({"cache_key": None}, "no_key"),
    ({"cache_plan": None}, "no_key"),
    ({"cache_plan": ask("q", cache={"write": False}).plan.cache}, "off"),
    ({"cache_plan": ask("q", cache={"ttl_s": 0}).plan.cache}, "off"),
    *(({"cache_plan": ask("q", cache={"verdict": v}).plan.cache}, v) for v in ("volatile", "personal", "deictic", "no_user")),
]


@pytest.mark.parametrize(("changes", "why"), REFUSED)
async def test_an_answer_for_one_only_is_not_stored(stages: Stages, counted: Counted, changes: dict[str, Any], why: str) -> None:
    missed = await stages.look(ask(RESET))
    assert isinstance(missed, Missed)
    assert await stages.remember([answer(missed, **changes)]) == [Emit()]
    assert counted[-1] == ("not_stored", why)
    assert isinstance(await stages.look(ask(RESET)), Missed)


@pytest.mark.parametrize("source", ["cache_exact", "cache_semantic", None])
async def test_only_a_models_answer_is_stored(stages: Stages, counted: Counted, source: str | None) -> None:
    missed = await stages.look(ask(RESET))
    assert isinstance(missed, Missed)
    counted.clear()
    await stages.remember([answer(missed, source=source)])
    assert counted == []
    assert isinstance(await stages.look(ask(RESET)), Missed)


async def test_a_redelivered_answer_is_stored_once(stages: Stages, store: Store, encoder: Encoder) -> None:
    missed = await stages.look(ask(RESET))
    assert isinstance(missed, Missed)
    finished = answer(missed)
    await stages.remember([finished, finished])
    await stages.remember([finished])
    assert missed.cache_key is not None
    assert missed.cache_key.form is not None
    (vector,) = encoder.encode([RESET])
    (hits,) = await store.search([Search(missed.cache_key.scope, missed.cache_key.form, vector, 0.9)], missed.facts.created_at)
    assert len(hits) == 1


async def test_a_batch_keeps_its_order(stages: Stages) -> None:
    await stages.through(ask("Who painted the ceiling?"), "one")
    await stages.through(ask(RESET), "two")
    outcomes = await stages.cache(
        [ask("What is a fjord?"), ask(STEPS), ask("Who painted the ceiling?"), ask(RESET, cache={"verdict": "personal"}), ask(STEPS)]
    )
    contents = [found.content if isinstance(found := inside(outcome), Finished) else None for outcome in outcomes]
    assert contents == [None, "two", "one", None, "two"]
    assert await stages.cache([]) == []


async def test_a_failing_encoder_leaves_the_exact_answers(store: Store, clock: Clock, counted: Counted) -> None:
    def encode(texts: Sequence[str]) -> list[Vector]:
        raise EncodeFailed("minilm: MemoryError")

    stages = Stages(store, encode, clock, counted)
    missed = await stages.through(ask(RESET))
    assert isinstance(missed, Missed)
    assert missed.cache_key is not None
    assert missed.cache_key.vector is None
    assert isinstance(await stages.look(ask(RESET)), Finished)
    assert isinstance(await stages.look(ask(STEPS)), Missed)
    assert ("error", "encoder") in counted


async def test_exact_answers_do_not_wait_for_the_search(encoder: Encoder, clock: Clock, counted: Counted) -> None:
    async with qdrant_over_rest() as rest:
        store = await open_store(url=rest.url, api_key="", path=None, collection="answers", dim=encoder.dim, timeout_s=5, observe=counted)
        stages = Stages(store, encoder.encode, clock, counted)
        await stages.through(ask(RESET))
        rest.searches = False
        exact, other = [inside(outcome) for outcome in await stages.cache([ask(RESET), ask(STEPS)])]
        await store.close()
    assert isinstance(exact, Finished)
    assert isinstance(other, Missed)
    assert ("error", "http_500") in counted


async def test_without_qdrant_everything_is_a_miss(encoder: Encoder, clock: Clock, counted: Counted) -> None:
    down = await open_store(
        url="http://127.0.0.1:9", api_key="", path=None, collection="answers", dim=encoder.dim, timeout_s=5, observe=counted
    )
    stages = Stages(down, encoder.encode, clock, counted)
    for _ in range(2):
        missed = await stages.through(ask(RESET))
        assert isinstance(missed, Missed)
        assert missed.cache_key is not None
    await down.close()
    assert ("error", "connection") in counted
    assert ("stored", "model") not in counted


async def test_an_id_made_to_collide_serves_nothing(stages: Stages, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.cache.cache.point_id", lambda scope, text: "00000000-0000-5000-8000-000000000000")
    await stages.through(ask("What is a fjord?", cache={"semantic": False}), "water")
    assert isinstance(await stages.look(ask("What is a fjord?", tenant="other", cache={"semantic": False})), Missed)
    assert isinstance(await stages.look(ask("What is a moor?", cache={"semantic": False})), Missed)
    assert isinstance(await stages.look(ask("What is a fjord?", cache={"semantic": False})), Finished)


async def test_no_answer_ever_crosses_to_another_owner(stages: Stages) -> None:
    """A few hundred entries of few questions, many owners and backgrounds: whatever is served was made for the very same setting."""
    dice = random.Random(5)
    questions = [RESET, STEPS, "How can I reset my password?", "Where do I find my invoices?", "Where can I find my invoice?"]
    backgrounds = [(), (Document(id="a", text="Red."),), (Document(id="a", text="Blue."),), (Document(id="b", text="Red."),)]
    systems = [(), (Message(role="system", content="Be brief."),)]
    params = [Params(), Params(temperature=0), Params(response_format={"type": "json_object"})]

    def draw() -> tuple[str, Classified]:
        tenant, user = dice.choice(["acme", "acm", "e"]), dice.choice(["ann", "bob"])
        share = dice.choice(["user", "tenant"])
        d, s, p = dice.randrange(len(backgrounds)), dice.randrange(len(systems)), dice.randrange(len(params))
        owner = repr((tenant, share, user if share == "user" else "", d, s, p))
        event = ask(
            dice.choice(questions), tenant=tenant, user=user, cache={"share": share},
            documents=backgrounds[d], earlier=systems[s], params=params[p],
        )  # fmt: skip
        return owner, event

    exact = semantic = 0
    for _ in range(25):
        drawn = [draw() for _ in range(20)]
        outcomes = [inside(outcome) for outcome in await stages.cache([event for _, event in drawn])]
        for (owner, _), found in zip(drawn, outcomes, strict=True):
            if isinstance(found, Finished):
                assert found.content == owner
                exact += found.source == "cache_exact"
                semantic += found.source == "cache_semantic"
        await stages.remember([answer(f, owner) for (owner, _), f in zip(drawn, outcomes, strict=True) if isinstance(f, Missed)])
    assert exact > 60
    assert semantic > 60
