"""The stage `classify`: forced tiers, and the figures of the plan."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

from schemas import Classified, Plan
from workers.classify.classify import make_classify
from workers.classify.intake import Asked, read
from workers.classify.route import Thresholds
from workers.outcomes import Emit, Outcome
from workers.policy import Policy, parse

POLICY = """
models:
  small: {litellm: openai/small, context: 8000}
  big: {litellm: openai/big, context: 8000}
  spare: {litellm: other/big, context: 8000}
tiers: {light: [small], standard: [big], heavy: [big, spare]}
reference: big
defaults: {max_tokens: {light: 100, standard: 200, heavy: 400}, max_tokens_cap: {light: 150, standard: 500, heavy: 900}}
features:
  terse: {instruction: Be brief., stop: ["\\n\\n"], cascade: false, max_attempts: 2, compress: {rate: 0.25}}
  whole: {compress: {rate: 1}}
"""


def asked(**fields: Any) -> Asked:
    record = {"request_id": "r-1", "tenant": "acme", "feature": "help", "messages": [{"role": "user", "content": "Hello?"}]} | fields
    got = read(json.dumps(record).encode(), lane="interactive", timestamp_ms=None, now=datetime.now(UTC), trace_id="t")
    assert isinstance(got, Asked), got
    return got


def run(*events: Asked, policy: Policy | None = None) -> list[Outcome]:
    def more_than(texts: Any, limit: int) -> bool:
        return sum(len(t.split()) for t in texts) > limit

    current = policy or parse(POLICY, "test")
    classify = make_classify(policy=lambda: current, thresholds=Thresholds(), more_than=more_than)
    return asyncio.run(classify(events))


def plan(**fields: Any) -> Plan:
    (outcome,) = run(asked(**fields))
    assert isinstance(outcome, Emit)
    event = outcome.messages[0].value
    assert isinstance(event, Classified)
    return event.plan


def test_a_batch_keeps_its_order_and_its_keys() -> None:
    for n, outcome in enumerate(run(*(asked(request_id=f"r-{n}") for n in range(10)))):
        assert isinstance(outcome, Emit)
        (message,) = outcome.messages
        assert message.topic.name == "classified"
        assert message.key == f"acme/r-{n}"


def test_the_prompt_travels_unchanged() -> None:
    request = asked(
        messages=[{"role": "system", "content": "S", "name": "kept"}, {"role": "user", "content": [{"type": "text", "text": "Q"}]}],
        documents=[{"id": "d", "text": "D"}],
        params={"temperature": 0.1, "stop": "x"},
    )
    (outcome,) = run(request)
    assert isinstance(outcome, Emit)
    event = outcome.messages[0].value
    assert isinstance(event, Classified)
    assert event.facts == request.facts
    assert event.prompt.messages == request.request.messages
    assert event.prompt.documents == request.request.documents
    assert event.prompt.params == request.request.params
    assert Classified.model_validate_json(event.model_dump_json()) == event


def test_auto_takes_the_routed_tier_and_a_named_one_is_forced() -> None:
    routed, named = plan(), plan(tier="heavy")
    assert (routed.tier, routed.tier_why, routed.forced) == ("light", "short", False)
    assert (named.tier, named.tier_why, named.forced) == ("heavy", "forced", True)
    assert named.models == {"light": ("small",), "standard": ("big",), "heavy": ("big", "spare")}


def test_max_tokens_left_out_takes_the_default_of_each_tier() -> None:
    assert plan().max_tokens == {"light": 100, "standard": 200, "heavy": 400}
    assert plan().flags == ()


def test_max_tokens_above_the_cap_of_a_tier_takes_its_cap_and_is_flagged_for_the_chosen_tier_alone() -> None:
    light = plan(params={"max_tokens": 300})
    assert light.max_tokens == {"light": 150, "standard": 300, "heavy": 300}
    assert light.flags == ("max_tokens_capped",)
    assert plan(params={"max_tokens": 300}, tier="standard").flags == ()
    assert plan(params={"max_tokens": 150}).flags == ()


def test_both_names_of_the_limit_count_and_the_smaller_one_wins() -> None:
    assert plan(params={"max_completion_tokens": 40, "max_tokens": 90}).max_tokens["heavy"] == 40


def test_the_features_rules_reach_the_plan() -> None:
    terse = plan(feature="terse")
    assert (terse.instruction, terse.stop, terse.cascade, terse.max_attempts) == ("Be brief.", ("\n\n",), False, 2)
    assert terse.compress_rate == 0.25


def test_compression_is_off_when_the_request_or_a_rate_of_one_says_so() -> None:
    assert plan(compress="off", feature="terse").compress_rate is None
    assert plan(feature="whole").compress_rate is None


def test_the_policy_is_asked_again_for_each_batch() -> None:
    policies = [parse(POLICY, "test"), parse(POLICY.replace("light: 100", "light: 90"), "test")]
    classify = make_classify(policy=lambda: policies[0], thresholds=Thresholds(), more_than=lambda texts, limit: False)
    limits = []
    for _ in range(2):
        (outcome,) = asyncio.run(classify([asked()]))
        assert isinstance(outcome, Emit)
        event = outcome.messages[0].value
        assert isinstance(event, Classified)
        limits.append(event.plan.max_tokens["light"])
        del policies[:-1]
    assert limits == [100, 90]
