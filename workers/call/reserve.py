"""The worst that a call can cost, which is what `open` reserves. Pure.

Tokenizers differ, so our count of the prompt is raised by the model's margin (`estimate.py`); what we cannot count (images, the provider's
own words around tools) has a figure of its own. Dollars are at the dearest rate that a token could be billed at. A model without a price
reserves no dollars; its tokens are reserved all the same.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

from schemas import Compressed, Prompt
from workers.ledger.types import Rates

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


def countable(prompt: Prompt) -> bool:
    """Whether all of it is text that we count: what is billed for it then tells of the tokenizer alone."""
    return not prompt.params.tools and not _others(prompt)


def worst(prompt: Prompt, counted: int, max_tokens: int, margin: float, rates: Rates | None) -> Worst:
    """Tokens and dollars of the dearest call that `counted` prompt tokens and `max_tokens` of answer can turn into.

    `margin`: tokens that the provider may count where we count one."""
    messages = len(prompt.messages) + (1 if prompt.documents else 0) + 1
    uncounted = PER_MESSAGE * messages + PER_IMAGE * _others(prompt) + (FOR_TOOLS if prompt.params.tools else 0)
    asked = math.ceil(counted * margin) + uncounted
    return Worst(asked + max_tokens, _dearest(asked, max_tokens, rates) if rates else Decimal(0))


def _others(prompt: Prompt) -> int:
    """Parts of messages that are not text."""
    return sum(part.get("type") not in (None, "text") for m in prompt.messages if isinstance(m.content, tuple) for part in m.content)


def _dearest(asked: int, max_tokens: int, rates: Rates) -> Decimal:
    # The provider may count fewer tokens than we fear, and a shorter prompt may have dearer rates.
    may_be = (rates, *(over for threshold, over in rates.above if asked > threshold))
    return (
        max(asked * max(r.input, r.cached_input, r.cache_write) + max_tokens * max(r.output, r.reasoning or 0) for r in may_be) / 1_000_000
    )
