from __future__ import annotations

import pytest

from schemas.types import TIERS
from workers.laptop.policy import LIST_PRICES, over_local_model, over_provider
from workers.ledger import prices
from workers.policy import Model, PolicyError, parse


def no_key(_: str) -> str | None:
    return None


def some_key(_: str) -> str | None:
    return "k"


def test_the_local_model_stands_behind_every_tier_and_needs_no_key() -> None:
    policy = parse(over_local_model("http://127.0.0.1:1234/v1"), "local")
    models = [policy.models[name] for tier in TIERS for name in policy.tiers[tier]]
    assert len(models) == 3
    assert {(m.litellm, m.api_base, m.api_key_env) for m in models} == {("openai/smollm2", "http://127.0.0.1:1234/v1", None)}


def test_its_prices_are_the_list_prices_it_names() -> None:
    policy = parse(over_local_model("http://127.0.0.1:1234/v1"), "local")
    listed = {"mini": "openai/gpt-4o-mini", "middle": "openai/gpt-4o", "large": "anthropic/claude-opus-4-6"}
    for name, litellm in listed.items():
        assert litellm.partition("/")[2] in LIST_PRICES
        real = prices.rates(Model(litellm=litellm, context=1))
        ours = prices.rates(policy.models[name])
        assert real is not None
        assert ours is not None
        assert (ours.input, ours.cached_input, ours.output) == (real.input, real.cached_input, real.output)


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
@pytest.mark.parametrize("demo", [True, False])
def test_a_provider_serves_every_tier_at_a_known_and_rising_price(provider: str, demo: bool) -> None:
    policy = parse(over_provider(provider, demo=demo, secret=some_key), provider)
    models = [policy.models[name] for tier in TIERS for name in policy.tiers[tier]]
    assert {m.provider for m in models} == {provider}
    costs = [r.output for m in models if (r := prices.rates(m))]
    assert len(costs) == 3
    assert costs == sorted(costs)


def test_a_missing_key_is_named() -> None:
    with pytest.raises(PolicyError, match="set ANTHROPIC_API_KEY"):
        over_provider("anthropic", demo=False, secret=no_key)


def test_an_unknown_provider_is_told_the_known_ones() -> None:
    with pytest.raises(PolicyError, match="not one of openai, anthropic"):
        over_provider("acme", demo=False, secret=some_key)
