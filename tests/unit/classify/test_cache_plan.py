"""Which requests may be answered from the cache, for whom, and for how long."""

from __future__ import annotations

import json
from typing import Any

import pytest

from schemas import CachePlan, Request
from workers.classify.cache_plan import cache_plan
from workers.policy import CachePolicy

HOW_TO = "How do I reset my password?"
UNSURE = "What should I cook for a vegan guest?"


def plan(text: str = HOW_TO, policy: CachePolicy | None = None, **fields: Any) -> CachePlan:
    record = {"request_id": "r", "tenant": "t", "feature": "f", "messages": [{"role": "user", "content": text}]} | fields
    return cache_plan(Request.model_validate_json(json.dumps(record)), policy or CachePolicy())


def test_the_ordinary_question_is_read_and_written_for_the_tenant() -> None:
    got = plan()
    assert (got.verdict, got.read, got.write, got.share, got.ttl_s) == ("cacheable", True, True, "tenant", 86_400)


def test_the_policys_figures_reach_the_plan() -> None:
    got = plan(policy=CachePolicy(semantic=False, candidate_threshold=0.91, serve_threshold=0.97))
    assert (got.semantic, got.candidate_threshold, got.serve_threshold) == (False, 0.91, 0.97)


@pytest.mark.parametrize(
    ("text", "expected"), [("What time is it?", "volatile"), ("Where is my order?", "personal"), ("Make it shorter.", "deictic")]
)
def test_what_must_not_be_cached_is_neither_read_nor_written(text: str, expected: str) -> None:
    got = plan(text, user="u-1", policy=CachePolicy(share="user"))
    assert (got.verdict, got.read, got.write) == (expected, False, False)


def test_off_wins_over_every_other_verdict() -> None:
    assert plan("Where is my order?", cache={"mode": "off"}).verdict == "off"
    assert plan(cache={"mode": "off"}).read is False


def test_refresh_writes_and_does_not_read() -> None:
    got = plan(cache={"mode": "refresh"})
    assert (got.verdict, got.read, got.write) == ("cacheable", False, True)
    assert plan("What time is it?", cache={"mode": "refresh"}).write is False


@pytest.mark.parametrize(("asked", "policy", "expected"), [(60, 3600, 60), (9999, 3600, 3600), (None, 3600, 3600)])
def test_the_requests_ttl_counts_up_to_the_policys(asked: int | None, policy: int, expected: int) -> None:
    assert plan(cache={} if asked is None else {"ttl_s": asked}, policy=CachePolicy(ttl_s=policy)).ttl_s == expected


@pytest.mark.parametrize(("asked", "policy"), [(0, 3600), (60, 0)])
def test_a_ttl_of_zero_is_off(asked: int, policy: int) -> None:
    got = plan(cache={"ttl_s": asked}, policy=CachePolicy(ttl_s=policy))
    assert (got.verdict, got.read, got.write) == ("off", False, False)


def test_what_is_only_unsure_is_shared_with_its_user_alone() -> None:
    assert plan(UNSURE, user="u-1").share == "user"
    got = plan(UNSURE)
    assert (got.verdict, got.read, got.write) == ("no_user", False, False)


def test_the_policy_decides_who_shares_where_it_says_so() -> None:
    assert plan(UNSURE, policy=CachePolicy(share="tenant")).share == "tenant"
    assert plan(user="u-1", policy=CachePolicy(share="user")).share == "user"
    assert plan(policy=CachePolicy(share="user")).verdict == "no_user"


@pytest.mark.parametrize(("temperature", "expected"), [(None, "cacheable"), (0, "cacheable"), (0.3, "cacheable"), (0.31, "sampling")])
def test_a_high_temperature_asks_for_answers_that_differ(temperature: float | None, expected: str) -> None:
    assert plan(params={} if temperature is None else {"temperature": temperature}).verdict == expected


@pytest.mark.parametrize(
    "fields",
    [
        {"params": {"tools": [{"type": "function", "function": {"name": "f"}}]}},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": HOW_TO}, {"type": "image_url", "image_url": {"url": "x"}}]}]},
        {
            "messages": [
                {"role": "user", "content": HOW_TO},
                {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
                {"role": "tool", "content": "42", "tool_call_id": "1"},
            ]
        },
        {"messages": [{"role": "user", "content": "  "}]},
    ],
)
def test_tools_and_images_are_not_cached(fields: dict[str, Any]) -> None:
    assert plan(**fields).verdict == "uncacheable"


def test_text_in_list_form_is_text() -> None:
    assert plan(messages=[{"role": "user", "content": [{"type": "text", "text": HOW_TO}]}]).verdict == "cacheable"


def test_earlier_turns_and_documents_count() -> None:
    earlier = [{"role": "user", "content": "Who wrote Emma?"}, {"role": "assistant", "content": "Jane Austen."}]
    assert plan(messages=[*earlier, {"role": "user", "content": "Why?"}]).verdict == "cacheable"
    assert plan(messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]).verdict == "deictic"
    assert plan("What does this document say about fees?", documents=[{"text": "Fees are due in May."}]).verdict == "cacheable"
