"""Prices are exact, come from the right entry of the map, and are never zero for want of knowing."""

from __future__ import annotations

import json
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from schemas import Usage
from workers.ledger import prices
from workers.ledger.prices import PriceMap, PriceMapMissing, read
from workers.ledger.types import Rates
from workers.policy import Model

PLAIN = {"litellm_provider": "openai", "input_cost_per_token": 1.5e-07, "output_cost_per_token": 6e-07}
LONG = {
    "litellm_provider": "gemini",
    "input_cost_per_token": 1e-06,
    "output_cost_per_token": 8e-06,
    "cache_read_input_token_cost": 1e-07,
    "input_cost_per_token_above_200k_tokens": 2e-06,
    "output_cost_per_token_above_200k_tokens": 1.2e-05,
    "cache_read_input_token_cost_above_200k_tokens": 2e-07,
    "input_cost_per_token_above_200k_tokens_batches": 1e-06,
}
RANGES = {
    "litellm_provider": "dashscope",
    "tiered_pricing": [
        {"input_cost_per_token": 4e-07, "output_cost_per_token": 1e-06, "output_cost_per_reasoning_token": 4e-06, "range": [0, 256000.0]},
        {"input_cost_per_token": 1.2e-06, "output_cost_per_token": 3e-06, "range": [256000.0, 1000000.0]},
    ],
}


@pytest.fixture
def price_map(tmp_path: Path) -> Any:
    def make(**entries: Any) -> PriceMap:
        path = tmp_path / "map.json"
        path.write_text(json.dumps(entries))
        return read(path, "map-1")

    return make


def known(rates: Rates | None) -> Rates:
    assert rates is not None
    return rates


def test_numbers_are_exact(price_map: Any) -> None:
    rates = known(price_map(**{"gpt-x": PLAIN}).rates("openai/gpt-x"))
    assert (rates.input, rates.output, rates.source) == (Decimal("0.15"), Decimal("0.6"), "map-1")
    assert rates.cost(Usage(input_tokens=1, output_tokens=1)) == Decimal("7.5e-7")


def test_an_absent_cache_rate_is_the_input_rate(price_map: Any) -> None:
    rates = known(price_map(**{"gpt-x": PLAIN}).rates("openai/gpt-x"))
    assert (rates.cached_input, rates.cache_write) == (rates.input, rates.input)


def test_cached_and_written_tokens_are_counted_once(price_map: Any) -> None:
    entry = {**PLAIN, "cache_read_input_token_cost": 1e-08, "cache_creation_input_token_cost": 2e-07}
    rates = known(price_map(**{"gpt-x": entry}).rates("openai/gpt-x"))
    used = Usage(input_tokens=1000, cached_input_tokens=600, cache_write_tokens=300, output_tokens=0)
    assert rates.cost(used) == Decimal("0.000081")  # 100 x 0.15 + 600 x 0.01 + 300 x 0.2


@pytest.mark.parametrize("key", ["gpt-x", "openai/gpt-x"])
def test_a_key_may_or_may_not_carry_its_provider(price_map: Any, key: str) -> None:
    assert price_map(**{key: PLAIN}).rates("openai/gpt-x")


@pytest.mark.parametrize(
    ("listed", "asked", "found"),
    [
        ("openai", "openai", True),
        ("openai", "acme", False),
        ("vertex_ai-anthropic_models", "vertex_ai", True),
        ("bedrock_converse", "bedrock", True),
        ("openai", "open", False),
        (None, "openai", False),
    ],
)
def test_a_bare_key_counts_only_for_its_own_provider(price_map: Any, listed: str | None, asked: str, found: bool) -> None:
    assert bool(price_map(m={**PLAIN, "litellm_provider": listed}).rates(f"{asked}/m")) is found


def test_long_context_prices_the_whole_request_above_the_threshold(price_map: Any) -> None:
    rates = known(price_map(**{"gemini/pro": LONG}).rates("gemini/pro"))
    assert rates.cost(Usage(input_tokens=200_000, output_tokens=1000)) == Decimal("0.208")
    assert rates.cost(Usage(input_tokens=200_001, output_tokens=1000)) == Decimal("0.412002")
    cached = Usage(input_tokens=200_001, cached_input_tokens=100_001, output_tokens=0)
    assert rates.cost(cached) == Decimal("0.2200002")


def test_a_kind_without_a_long_context_price_keeps_its_own(price_map: Any) -> None:
    entry = {k: v for k, v in LONG.items() if not k.startswith("cache_read_input_token_cost_above")}
    rates = known(price_map(**{"gemini/pro": entry}).rates("gemini/pro"))
    assert rates.at(200_001).cached_input == Decimal("0.1")


def test_several_thresholds_take_the_highest_that_is_passed(price_map: Any) -> None:
    entry = {**PLAIN, "input_cost_per_token_above_256k_tokens": 3e-06, "input_cost_per_token_above_32k_tokens": 2e-06}
    rates = known(price_map(m=entry).rates("openai/m"))
    assert [rates.at(n).input for n in (32_000, 32_001, 256_001)] == [Decimal("0.15"), Decimal(2), Decimal(3)]


def test_prices_by_range(price_map: Any) -> None:
    rates = known(price_map(**{"dashscope/q": RANGES}).rates("dashscope/q"))
    assert rates.cost(Usage(input_tokens=256_000, output_tokens=100, reasoning_tokens=100)) == Decimal("0.1028")
    assert rates.cost(Usage(input_tokens=256_001, output_tokens=100, reasoning_tokens=100)) == Decimal("0.3075012")


@pytest.mark.parametrize(
    "entry",
    [
        {},
        {"litellm_provider": "openai"},
        {**PLAIN, "output_cost_per_token": None},
        {**PLAIN, "input_cost_per_token": None},
        {**PLAIN, "input_cost_per_token": 0, "output_cost_per_token": 0.0},
        {**PLAIN, "input_cost_per_token": "0.1"},
        {"litellm_provider": "openai", "input_cost_per_second": 0.001},
        {**PLAIN, "input_cost_per_token_above_200k_tokens": None},
        {"litellm_provider": "openai", "tiered_pricing": [{"input_cost_per_token": 1e-06, "range": [0, 10]}]},
        {**RANGES, "litellm_provider": "openai", "tiered_pricing": [RANGES["tiered_pricing"][0], {"range": [256000, 1000000]}]},
        {"litellm_provider": "openai", "tiered_pricing": [{"max_results_range": [0, 25], "input_cost_per_query": 0.005}]},
    ],
)
def test_what_is_not_priced_by_token_is_unknown(price_map: Any, entry: dict[str, Any]) -> None:
    assert price_map(m=entry).rates("openai/m") is None


def test_a_model_that_is_not_in_the_map_is_unknown(price_map: Any) -> None:
    assert price_map().rates("openai/gpt-x") is None


def test_the_policys_own_price_wins_and_may_say_free() -> None:
    model = Model.model_validate({"litellm": "openai/gpt-4o", "context": 1000, "price": {"input": 0, "output": 0}})
    rates = known(prices.rates(model))
    assert (rates.input, rates.output, rates.source) == (0, 0, "policy")


def test_a_cache_rate_of_zero_in_the_policy_is_zero() -> None:
    price = {"input": 2, "output": 4, "cached_input": 0}
    rates = known(prices.rates(Model.model_validate({"litellm": "openai/own", "context": 1000, "price": price})))
    assert (rates.cached_input, rates.cache_write) == (0, 2)


def test_the_installed_map_prices_the_shipped_policys_models_without_importing_litellm() -> None:
    code = """
import sys
from workers import policy
from workers.ledger import prices
shipped = policy.load(None)
assert all(prices.rates(model) for model in shipped.models.values())
assert prices.rates(shipped.models["large"]).source.startswith("litellm-")
assert "litellm" not in sys.modules, "imported"
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_every_entry_of_the_installed_map_can_be_read() -> None:
    installed = prices.installed()
    priced = [name for name in installed.entries if installed.rates(name)]
    assert len(priced) > 1000


def test_a_broken_installation_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prices, "FILE", "no-such-file.json")
    prices.installed.cache_clear()
    try:
        with pytest.raises(PriceMapMissing, match="reinstall"):
            prices.installed()
    finally:
        monkeypatch.undo()
        prices.installed.cache_clear()
