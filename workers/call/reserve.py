"""The worst that a call can cost, which is what `open` reserves. Pure.

Tokenizers differ, so our count of the prompt is raised by the model's margin; what we cannot count (images, the provider's own words
around tools) has a figure of its own. Dollars are at the dearest rate that a token could be billed at. A model without a price reserves no
dollars; its tokens are reserved all the same.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

from schemas import Compressed, Prompt
from workers.ledger.types import Rates
from workers.policy import Model

PER_MESSAGE = 4
"""Tokens that a provider may add to each message: 3 at OpenAI ("How to count tokens with tiktoken"), a few at others."""
PER_IMAGE = 1_600
"""Anthropic's documented ceiling of one image; OpenAI's tiles stay below it for most."""
FOR_TOOLS = 530
"""Anthropic adds up to 530 tokens of its own prompt when tools are given (documentation, "Tool use: pricing")."""


@dataclass(frozen=True, slots=True)
class Worst:
    tokens: int
    usd: Decimal


def prompt_tokens(event: Compressed, count: Callable[[str], int]) -> int:
    """The prompt's tokens by our count: what `compress` counted, and what the call adds to it."""
    instruction, wanted = event.plan.instruction, event.prompt.params.response_format
    added = (count(instruction) + PER_MESSAGE if instruction else 0) + (count(json.dumps(wanted)) if wanted else 0)
    return event.tokens.after + added


def worst(prompt: Prompt, counted: int, max_tokens: int, model: Model, rates: Rates | None) -> Worst:
    """Tokens and dollars of the dearest call that `counted` prompt tokens and `max_tokens` of answer can turn into."""
    messages = len(prompt.messages) + (1 if prompt.documents else 0) + 1
    images = sum(part.get("type") not in (None, "text") for m in prompt.messages if isinstance(m.content, tuple) for part in m.content)
    uncounted = PER_MESSAGE * messages + PER_IMAGE * images + (FOR_TOOLS if prompt.params.tools else 0)
    asked = math.ceil(counted * model.token_margin) + uncounted
    return Worst(asked + max_tokens, _dearest(asked, max_tokens, rates) if rates else Decimal(0))


def _dearest(asked: int, max_tokens: int, rates: Rates) -> Decimal:
    at = rates.at(asked)
    into = max(at.input, at.cached_input, at.cache_write)
    out = max(at.output, at.reasoning or Decimal(0))
    return (asked * into + max_tokens * out) / 1_000_000
