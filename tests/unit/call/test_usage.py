"""Figures of a provider that may be believed, and those that may not."""

from __future__ import annotations

from types import SimpleNamespace as Raw
from typing import Any

import pytest

from schemas import Usage
from workers.call.usage import billed


def raw(prompt: Any = 10, said: Any = 4, cached: Any = 0, written: Any = None, created: Any = None, reasoning: Any = 0) -> Raw:
    inside = Raw(cached_tokens=cached, cache_write_tokens=written, cache_creation_tokens=created)
    return Raw(
        prompt_tokens=prompt,
        completion_tokens=said,
        prompt_tokens_details=inside,
        completion_tokens_details=Raw(reasoning_tokens=reasoning),
    )


def test_five_kinds() -> None:
    usage = billed(raw(cached=3, written=2, reasoning=1), context=1000, wrote=True)
    assert usage == Usage(input_tokens=10, cached_input_tokens=3, cache_write_tokens=2, output_tokens=4, reasoning_tokens=1)
    assert billed(raw(created=2), context=1000, wrote=True) == Usage(input_tokens=10, cache_write_tokens=2, output_tokens=4)


def test_details_may_be_missing() -> None:
    usage = Raw(prompt_tokens=10, completion_tokens=4, prompt_tokens_details=None)
    assert billed(usage, context=1000, wrote=True) == Usage(input_tokens=10, output_tokens=4)
    assert billed(raw(cached=None, reasoning=None), context=1000, wrote=True) == Usage(input_tokens=10, output_tokens=4)


def test_an_empty_answer_may_cost_no_output() -> None:
    assert billed(raw(said=0), context=1000, wrote=False) == Usage(input_tokens=10)


@pytest.mark.parametrize(
    "odd",
    [
        None,
        raw(prompt=0, said=0),
        raw(prompt=None),
        raw(prompt=-5),
        raw(said=-1),
        raw(said=0),
        raw(prompt=10**9),
        raw(said=10**9),
        raw(cached=11),
        raw(cached=-1),
        raw(cached=6, written=6),
        raw(reasoning=5),
        raw(prompt="10"),
    ],
)
def test_nobody_believes(odd: Any) -> None:
    assert billed(odd, context=1000, wrote=True) is None
