"""The demo's requests show what they are meant to show: judged here by the product's own rules, encoder and guard."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

import pytest
from pydantic import ValidationError

from schemas import Request
from workers.cache.guard import veto
from workers.classify.cache_plan import cache_plan
from workers.classify.route import Thresholds, route
from workers.encoder import tokens
from workers.encoder.bundled import bundled
from workers.encoder.encoder import open_encoder
from workers.laptop.policy import over_local_model
from workers.policy import parse

ROWS: list[dict[str, Any]] = [
    json.loads(line) for line in resources.files("workers").joinpath("laptop/requests.jsonl").read_text().splitlines()
]
GOOD = [row for row in ROWS if row["about"] != "malformed"]
POLICY = parse(over_local_model("http://127.0.0.1:1/v1"), "local")


def request(row: dict[str, Any]) -> Request:
    return Request.model_validate_json(json.dumps(row["request"]))


def asked(row: dict[str, Any]) -> str:
    return request(row).messages[-1].text


def about(*kinds: str) -> list[dict[str, Any]]:
    return [row for row in ROWS if row["about"] in kinds]


def test_about_forty_from_two_tenants_and_four_features_in_two_waves() -> None:
    assert 36 <= len(ROWS) <= 44
    assert len({row["request"]["request_id"] for row in ROWS}) == len(ROWS)
    assert len({row["request"]["tenant"] for row in ROWS}) == 2
    assert len({row["request"]["feature"] for row in ROWS}) == 4
    assert {row["wave"] for row in ROWS} == {1, 2}


def test_exactly_one_is_malformed() -> None:
    (bad,) = about("malformed")
    with pytest.raises(ValidationError, match="role"):
        request(bad)
    for row in GOOD:
        request(row)


def test_every_tier_is_asked_for_by_the_rules() -> None:
    def tier(row: dict[str, Any]) -> str:
        r = request(row)
        return route(r.messages, r.documents, Thresholds(), tokens.more_than)[0]

    assert {tier(row) for row in GOOD} == {"light", "standard", "heavy"}
    assert {tier(row) for row in about("reasoning")} == {"heavy"}


def test_documents_go_up_to_1200_tokens() -> None:
    sizes = [tokens.count(d.text) for row in GOOD for d in request(row).documents]
    assert 1_000 < max(sizes) <= 1_200


@pytest.mark.parametrize("kind", ["volatile", "personal"])
def test_what_must_not_be_cached_is_seen_in_both_waves(kind: str) -> None:
    rows = about(kind)
    assert {row["wave"] for row in rows} == {1, 2}
    assert {cache_plan(request(row), POLICY.defaults.cache).verdict for row in rows} == {kind}


def test_one_is_over_a_budget_of_its_own() -> None:
    (row,) = about("over budget")
    assert {"experiment": row["request"]["experiment"]} in [budget.scope for budget in POLICY.budgets]
    assert all("experiment" not in other["request"] for other in GOOD if other is not row)


def first_wave(row: dict[str, Any]) -> list[dict[str, Any]]:
    """Cacheable requests of the first wave that share a scope with this one: all but the question is the same."""

    def scope(one: dict[str, Any]) -> dict[str, Any]:
        rest = {k: v for k, v in one["request"].items() if k not in ("request_id", "user", "messages")}
        return rest | {"before": one["request"]["messages"][:-1]}

    return [one for one in GOOD if one["wave"] == 1 and scope(one) == scope(row)]


def test_paraphrases_are_near_and_traps_are_nearer_than_is_safe() -> None:
    threshold = POLICY.defaults.cache.serve_threshold
    encoder = open_encoder(bundled(), "", 1)
    for row in about("paraphrase", "near-trap"):
        twins = first_wave(row)
        vectors = encoder.encode([asked(row), *map(asked, twins)])
        similarity, twin = max((float(vectors[0] @ v), asked(t)) for v, t in zip(vectors[1:], twins, strict=True))
        assert similarity >= threshold, asked(row)
        assert asked(row) != twin
        assert (veto(asked(row), twin) is None) == (row["about"] == "paraphrase"), asked(row)


def test_repeats_repeat_what_another_user_of_the_tenant_asked() -> None:
    for row in about("repeat"):
        assert asked(row) in map(asked, first_wave(row))
        assert cache_plan(request(row), POLICY.defaults.cache).verdict == "cacheable"
