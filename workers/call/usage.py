"""What the provider says it billed, in our five kinds. Pure.

LiteLLM has already made every provider's figures inclusive: `prompt_tokens` holds cached and written ones, `completion_tokens` holds
reasoning. Figures nobody can believe (missing, negative, larger than the model's window allows) come back as None and are never priced:
LiteLLM itself would price minus five tokens as a credit.
"""

from __future__ import annotations

from typing import Any

from schemas import Usage

BEYOND_WINDOW = 2
"""The window in the policy may be a little off; twice as much cannot be."""


def billed(raw: Any, *, context: int, wrote: bool) -> Usage | None:
    """The usage of an answer, or None when it is not to be believed. `raw` is LiteLLM's `Usage` or None; `context` the model's window in
    tokens; `wrote` says whether the answer has any text or tool call."""
    prompt, written = _number(raw, "prompt_tokens"), _number(raw, "completion_tokens")
    inside, outside = getattr(raw, "prompt_tokens_details", None), getattr(raw, "completion_tokens_details", None)
    cached = _number(inside, "cached_tokens")
    stored = _number(inside, "cache_write_tokens") or _number(inside, "cache_creation_tokens")
    reasoning = _number(outside, "reasoning_tokens")
    most = BEYOND_WINDOW * context
    believable = (
        0 < prompt <= most and (1 if wrote else 0) <= written <= most and 0 <= reasoning <= written
        and cached >= 0 and stored >= 0 and cached + stored <= prompt
    )  # fmt: skip
    if not believable:
        return None
    return Usage(
        input_tokens=prompt, cached_input_tokens=cached, cache_write_tokens=stored, output_tokens=written, reasoning_tokens=reasoning
    )


def _number(part: Any, name: str) -> int:
    value = getattr(part, name, None)
    return value if isinstance(value, int) else 0
