"""What a statement says: every field, the right attempts counted, and the same bytes whenever it is made."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from schemas import CachedFrom, CostRecord, Finished, Response, TokensAround, Usage
from tests.unit.attribute.books import ARRIVED, ENDED, LARGE, MINI, answered, attempt, ended, facts, rates, usage
from workers import policy
from workers.attribute.statement import Prices, statement, unclaimed
from workers.ledger.types import Answer, Attempt, Books, Statement

POLICY = policy.parse(
    """
models:
  mini:  {litellm: openai/mini, context: 1000, price: {input: 1, output: 2}}
  large: {litellm: anthropic/large, context: 1000, price: {input: 10, output: 30}}
tiers: {light: [mini], heavy: [large]}
reference: large
""",
    "test",
)
PRICES = Prices(POLICY, lambda model: MINI if model.litellm == "openai/mini" else LARGE, "map-1")


def state(finished: Finished, *attempts: Attempt, prices: Prices = PRICES, revision: int = 0) -> Statement:
    return statement(finished, Books(attempts, ENDED, revision), prices)


def response(finished: Finished, *attempts: Attempt) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(state(finished, *attempts).response)
    return told


def cost_record(finished: Finished, *attempts: Attempt, **more: Any) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(state(finished, *attempts, **more).cost_record)
    return told


def test_an_answer_with_all_its_facts() -> None:
    told = response(answered(flags=("max_tokens_capped",)), attempt())
    assert told == {
        "schema_version": 1,
        "request_id": "r-1",
        "tenant": "acme",
        "feature": "support",
        "user": "u-7",
        "experiment": None,
        "lane": "interactive",
        "status": "answered",
        "reason": None,
        "content": "Forty-two.",
        "tool_calls": None,
        "finish_reason": "stop",
        "source": "model",
        "tier": "light",
        "model": "mini",
        "attempts": 1,
        "flags": ["max_tokens_capped"],
        "usage": {"input_tokens": 1000, "cached_input_tokens": 0, "cache_write_tokens": 0, "output_tokens": 100, "reasoning_tokens": 0},
        "cost_usd": "0.0012",
        "unconfirmed_usd": "0",
        "baseline_usd": "0.013",
        "saved_usd": {"routing": "0.0118", "cache": "0", "compression": "0", "batch": "0"},
        "created_at": "2026-03-01T12:00:00Z",
        "finished_at": "2026-03-01T12:00:03Z",
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
        "metadata": {"order": 2**200},
    }


def test_the_cost_record_lists_the_attempts_unrounded() -> None:
    failed = attempt(1, provider="azure", verdict="error", outcome="rate_limited", used=Usage(), cost=Decimal(0), answer=None)
    told = cost_record(answered(), failed, attempt(2, cost=Decimal("0.0012000001")))
    assert told["provider"] == "openai"
    assert told["cost_usd"] == "0.0012"
    assert [(a["n"], a["provider"], a["state"], a["cost_usd"], a["outcome"]) for a in told["attempts"]] == [
        (1, "azure", "settled", "0", "rate_limited"),
        (2, "openai", "settled", "0.0012000001", "accepted"),
    ]
    assert set(told) == set(CostRecord.model_fields)
    assert (told["purpose"], told["revision"], told["occurred_at"]) == ("request", 0, "2026-03-01T12:00:03Z")


def test_usage_and_cost_cover_all_settled_attempts() -> None:
    told = response(
        answered(tier="heavy", model="large"),
        attempt(1, verdict="escalate", used=usage(300, 20)),
        attempt(2, state="unconfirmed", cost=Decimal("0.5"), used=usage(9, 9)),
        attempt(3, state="abandoned", cost=Decimal(0), used=Usage()),
        attempt(4, model="large", rates=LARGE, used=usage(400, 30)),
    )
    assert (told["usage"]["input_tokens"], told["usage"]["output_tokens"]) == (700, 50)
    assert told["attempts"] == 3  # the abandoned one was never sent
    assert (told["cost_usd"], told["unconfirmed_usd"]) == ("0.00524", "0.5")


@pytest.mark.parametrize(
    ("status", "code"), [("rejected", "budget_exceeded"), ("expired", "deadline_passed"), ("failed", "provider_error")]
)
def test_without_an_answer_its_fields_are_null(status: str, code: str) -> None:
    told = response(ended(status, code, content="left over", finish_reason="stop", source="model"), attempt(verdict="error"))
    assert [told[k] for k in ("content", "tool_calls", "finish_reason", "source", "tier", "model")] == [None] * 6
    assert told["reason"] == {"code": code, "message": "why"}
    assert (told["baseline_usd"], told["saved_usd"]["routing"], told["cost_usd"]) == ("0", "-0.0012", "0.0012")
    assert set(told) == set(Response.model_fields)


def test_nothing_called_nothing_spent() -> None:
    told = response(ended("rejected", "no_model"))
    assert (told["attempts"], told["cost_usd"], told["unconfirmed_usd"], told["baseline_usd"]) == (0, "0", "0", "0")
    assert told["saved_usd"] == {"routing": "0", "cache": "0", "compression": "0", "batch": "0"}
    assert told["usage"] == Usage().model_dump()
    assert cost_record(ended("rejected", "no_model"))["price_map"] == "map-1"


def test_a_cache_hit_is_measured_by_the_stored_answer() -> None:
    stored = CachedFrom(usage=usage(1000, 100), tokens=TokensAround(before=600, after=300), similarity=0.97)
    told = response(answered(source="cache_semantic", cached_from=stored, usage=None, accepted=False))
    assert (told["attempts"], told["cost_usd"], told["usage"]["input_tokens"]) == (0, "0", 0)
    assert told["saved_usd"] == {"routing": "0.0208", "cache": "0.0022", "compression": "0", "batch": "0"}


def test_a_follower_of_an_identical_request_saves_like_a_hit() -> None:
    told = response(answered())
    assert (told["attempts"], told["cost_usd"], told["saved_usd"]["cache"]) == (0, "0", "0.0012")


def test_a_hit_of_a_model_that_left_the_policy_is_flagged() -> None:
    stored = CachedFrom(usage=usage(), tokens=TokensAround(before=1, after=1), similarity=1)
    told = cost_record(answered(source="cache_exact", model="gone", cached_from=stored))
    assert told["price_unknown"]


def test_the_best_answer_is_the_one_that_is_measured() -> None:
    """When the last answer fails its check, an earlier one may go out."""
    first = attempt(1, verdict="escalate", used=usage(100, 10), provider="azure")
    last = attempt(2, verdict="escalate", used=usage(500, 50), answer=Answer("Worse.", None, "stop"))
    told = cost_record(answered(flags=("check_failed",)), first, last)
    assert told["provider"] == "azure"
    assert told["baseline_usd"] == "0.0013"


def test_an_attempt_is_measured_at_the_rates_it_was_made_at() -> None:
    dear = rates("2", "4", source="map-0")
    told = cost_record(answered(tokens=TokensAround(before=2, after=1)), attempt(rates=dear))
    assert told["saved_usd"]["compression"] == "0.002"
    assert told["price_map"] == "map-0+policy"


def test_an_estimated_attempt_makes_an_estimated_record() -> None:
    assert cost_record(answered(), attempt(estimated=True))["estimated"]
    assert not cost_record(answered(), attempt())["estimated"]


def test_an_unknown_price_is_flagged_and_never_silently_zero() -> None:
    told = cost_record(answered(), attempt(rates=None, cost=Decimal(0)))
    assert told["price_unknown"]
    nobody = Prices(POLICY, lambda model: None, "map-1")
    assert cost_record(answered(), attempt(), prices=nobody)["price_unknown"]


def test_the_revision_is_the_books() -> None:
    assert cost_record(answered(), attempt(), revision=3)["revision"] == 3


def test_the_same_books_give_the_same_bytes() -> None:
    assert state(answered(), attempt()) == state(answered(), attempt())


def test_metadata_comes_back_as_the_same_json() -> None:
    metadata = {"n": [1, -(2**70), 0.1, 1e22, True, None, ""], "Straße 🚲": {"\u0000": "\u2028"}, "": {}}
    told = response(answered(facts=facts(metadata=metadata)), attempt())
    assert json.dumps(told["metadata"]) == json.dumps(metadata)
    assert response(answered(facts=facts(metadata=None)))["metadata"] is None


def test_an_unclaimed_rejection_has_no_money_and_may_lack_a_tenant() -> None:
    finished = ended("rejected", "invalid_request", facts=facts(tenant=None, feature=None, user=None, created_at=ARRIVED))
    told = json.loads(unclaimed(finished, ENDED))
    assert (told["tenant"], told["request_id"], told["finished_at"]) == (None, "r-1", "2026-03-01T12:00:03Z")
    assert (told["attempts"], told["cost_usd"], told["baseline_usd"]) == (0, "0", "0")
    assert set(told) == set(Response.model_fields)
