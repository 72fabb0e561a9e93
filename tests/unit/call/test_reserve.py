"""The reservation is an upper bound of what the call may cost."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from schemas import Message, Params, Prompt, Usage
from tests.unit.call.build import event, plan
from workers.call.reserve import PER_IMAGE, countable, prompt_tokens, worst
from workers.ledger.types import Rates

MARGIN = 1.5
RATES = Rates(Decimal(1), Decimal("0.5"), Decimal("1.25"), Decimal(4), "test")
PROMPT = Prompt(messages=(Message(role="user", content="How tall is a heron?"),))


def test_what_the_call_adds_to_the_prompt_is_counted() -> None:
    bare = prompt_tokens(event(), len)
    assert bare == event().tokens.after
    assert prompt_tokens(event(plan=plan(instruction="Be brief.")), len) >= bare + len("Be brief.")
    assert prompt_tokens(event(params={"response_format": {"type": "json_object"}}), len) > bare + 10


def test_a_model_without_a_price_reserves_tokens_but_no_dollars() -> None:
    reserved = worst(PROMPT, 100, 50, MARGIN, None)
    assert reserved.tokens >= 200
    assert reserved.usd == 0


def test_images_and_tools_are_paid_for_too() -> None:
    picture = Message(role="user", content=({"type": "text", "text": "What?"}, {"type": "image_url", "image_url": {"url": "data:,x"}}))
    plain = worst(PROMPT, 100, 50, MARGIN, RATES).tokens
    assert worst(Prompt(messages=(picture,)), 100, 50, MARGIN, RATES).tokens == plain + PER_IMAGE
    tools = Prompt(messages=PROMPT.messages, params=Params(tools=({"type": "function"},)))
    assert worst(tools, 100, 50, MARGIN, RATES).tokens > plain + 300
    assert [countable(prompt) for prompt in (PROMPT, Prompt(messages=(picture,)), tools)] == [True, False, False]


@given(st.integers(1, 5000), st.integers(1, 4000), st.floats(1, 1.5), st.data())
def test_reservation_uses_dearest_rate(counted: int, max_tokens: int, ratio: float, data: st.DataObject) -> None:
    reserved = worst(PROMPT, counted, max_tokens, MARGIN, LONG)
    billed = int(counted * ratio)
    cached = data.draw(st.integers(0, billed))
    written = data.draw(st.integers(0, billed - cached))
    said = data.draw(st.integers(0, max_tokens))
    usage = Usage(
        input_tokens=billed, cached_input_tokens=cached, cache_write_tokens=written, output_tokens=said, reasoning_tokens=said // 2
    )
    assert LONG.cost(usage) <= reserved.usd
    assert billed + said <= reserved.tokens


def test_a_shorter_prompt_than_feared_may_have_dearer_rates() -> None:
    """2,101 tokens are feared, at rates that are cheaper to write; 1,990 are billed, and the answer at the dear ones."""
    reserved = worst(PROMPT, 1400, 4000, 1.5, LONG)
    assert LONG.cost(Usage(input_tokens=1990, output_tokens=4000, reasoning_tokens=4000)) <= reserved.usd


LONG = Rates(
    Decimal(1),
    Decimal("0.5"),
    Decimal("1.25"),
    Decimal(4),
    "test",
    reasoning=Decimal(6),
    above=((2000, Rates(Decimal(2), Decimal(1), Decimal("2.5"), Decimal(3), "test")),),
)
"""Dearer to read above 2,000 tokens, and cheaper to write: the bound must hold on both sides."""
