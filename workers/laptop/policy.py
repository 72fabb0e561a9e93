"""The policies of laptop mode, as YAML text: the shipped rules, or the demo's, over the local model or over one paid provider.

An unknown provider, or one whose key is not in the environment: `PolicyError`, which names the variable to set.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources
from typing import Any

import yaml

from workers.policy import SHIPPED, PolicyError

Models = dict[str, dict[str, Any]]

LIST_PRICES = "the list prices of gpt-4o-mini, gpt-4o and claude-opus-4-6"
"""What laptop/policy.yaml prices the local model at."""


def over_local_model(base_url: str) -> str:
    """The demo's policy, with the local model at `base_url` behind every tier."""
    policy = _read("laptop/policy.yaml")
    for model in policy["models"].values():
        model["api_base"] = base_url
    return yaml.safe_dump(policy, sort_keys=False)


def over_provider(name: str, *, demo: bool, secret: Callable[[str], str | None]) -> str:
    """The shipped policy, or the demo's, with the models of a provider that costs money."""
    policy = _read("laptop/policy.yaml" if demo else SHIPPED)
    return yaml.safe_dump(policy | {"models": _models(name, secret)}, sort_keys=False)


def _models(name: str, secret: Callable[[str], str | None]) -> Models:
    providers: dict[str, Models] = _read("laptop/providers.yaml")
    if name not in providers:
        raise PolicyError(f"--provider {name}: not one of {', '.join(providers)}; for others, write a policy and set SCRIMP_POLICY_FILE")
    for variable in sorted({model["api_key_env"] for model in providers[name].values()}):
        if not secret(variable):
            raise PolicyError(f"--provider {name}: its key is missing; set {variable}")
    return providers[name]


def _read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(resources.files("workers").joinpath(name).read_text())
    return content
