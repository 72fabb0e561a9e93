"""The levers add up whatever happened, and each carries what it should."""

from __future__ import annotations

from dataclasses import replace
from decimal import ROUND_HALF_EVEN, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import TokensAround, Usage
from schemas.types import MICRO
from tests.unit.attribute.books import LARGE, MINI, attempt, rates, usage
from workers.attribute.baseline import Figures, Measure, figures
from workers.ledger.types import Attempt, Rates

ZERO = Decimal(0)

prices = st.decimals(0, 200, places=4)
any_rates = st.builds(Rates, prices, prices, prices, prices, st.just("policy"), st.none() | prices)
long_rates = st.builds(lambda low, high, n: replace(low, above=((n, high),)), any_rates, any_rates, st.integers(1, 300_000))
known_rates = any_rates | long_rates
tokens = st.integers(0, 400_000)


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    cached, written, fresh, output = draw(tokens), draw(tokens), draw(tokens), draw(tokens)
    return Usage(
        input_tokens=cached + written + fresh,
        cached_input_tokens=cached,
        cache_write_tokens=written,
        output_tokens=output,
        reasoning_tokens=draw(st.integers(0, output)),
    )


@st.composite
def attempts(draw: st.DrawFn) -> Attempt:
    state = draw(st.sampled_from(["settled", "settled", "unconfirmed", "abandoned", "reserved"]))
    cost = draw(st.decimals(0, 50, places=10)) if state in ("settled", "unconfirmed") else ZERO
    return attempt(draw(st.integers(1, 9)), rates=draw(st.none() | known_rates), used=draw(usages()), state=state, cost=cost)


around = st.builds(TokensAround, before=st.integers(0, 500_000), after=st.integers(0, 500_000))
measures = st.builds(
    Measure,
    usages(),
    st.none() | around,
    st.none() | known_rates,
    st.booleans(),
)


@st.composite
def endings(draw: st.DrawFn) -> tuple[list[Attempt], Attempt | None, Measure | None, Rates | None]:
    made = draw(st.lists(attempts(), max_size=6))
    settled = [a for a in made if a.state == "settled"]
    answering = draw(st.none() | st.sampled_from(settled)) if settled else None
    measure = draw(measures) if answering else draw(st.none() | measures)
    return made, answering, measure, draw(st.none() | known_rates)


@given(endings())
def test_the_levers_add_up_exactly(ending: tuple[list[Attempt], Attempt | None, Measure | None, Rates | None]) -> None:
    money = figures(*ending)
    assert money.baseline - money.cost == money.saved.total


@given(endings())
def test_cost_is_the_sum_of_settled_attempts_rounded_once(
    ending: tuple[list[Attempt], Attempt | None, Measure | None, Rates | None],
) -> None:
    exact = sum((a.cost for a in ending[0] if a.state == "settled"), ZERO)
    assert figures(*ending).cost == exact.quantize(MICRO, ROUND_HALF_EVEN)


@given(endings())
def test_money_cut_off_stands_beside_the_cost(ending: tuple[list[Attempt], Attempt | None, Measure | None, Rates | None]) -> None:
    exact = sum((a.cost for a in ending[0] if a.state == "unconfirmed"), ZERO)
    assert figures(*ending).unconfirmed == exact.quantize(MICRO, ROUND_HALF_EVEN)


@given(endings())
def test_every_figure_is_whole_micro_dollars(ending: tuple[list[Attempt], Attempt | None, Measure | None, Rates | None]) -> None:
    money = figures(*ending)
    for value in (money.cost, money.baseline, money.unconfirmed, *money.saved.model_dump().values()):
        assert Decimal(value) % MICRO == 0


@given(measures, st.none() | known_rates)
def test_a_hit_without_attempts_costs_nothing(measure: Measure, reference: Rates | None) -> None:
    money = figures((), None, measure, reference)
    assert (money.cost, money.saved.compression, money.saved.batch) == (ZERO, ZERO, ZERO)


@given(st.lists(attempts(), max_size=6), st.none() | known_rates)
def test_without_an_answer_routing_carries_what_was_spent(made: list[Attempt], reference: Rates | None) -> None:
    money = figures(made, None, None, reference)
    assert money.baseline == 0
    assert money.saved.routing == -money.cost
    assert (money.saved.cache, money.saved.compression, money.saved.batch) == (ZERO, ZERO, ZERO)


@given(st.lists(attempts(), max_size=3), usages(), known_rates, st.none() | around, st.none() | known_rates)
def test_a_plain_call_saves_nothing_by_cache_or_batch(
    made: list[Attempt], used: Usage, own: Rates, tokens: TokensAround | None, reference: Rates | None
) -> None:
    answering = attempt(10, rates=own, used=used)
    money = figures([*made, answering], answering, Measure(used, tokens, own), reference)
    assert (money.saved.cache, money.saved.batch) == (ZERO, ZERO)


def _told(money: Figures) -> tuple[str, ...]:
    saved = money.saved
    return tuple(str(v.normalize()) for v in (money.baseline, saved.routing, saved.cache, saved.compression, saved.batch, money.cost))


def test_a_cheaper_model_saves_by_routing() -> None:
    made = attempt()  # 1000 in, 100 out: 0.0012 at mini, 0.013 at the reference
    assert _told(figures([made], made, Measure(usage(), None, MINI), LARGE)) == ("0.013", "0.0118", "0", "0", "0", "0.0012")


def test_an_escalation_that_cost_more_than_it_saved_is_a_negative_lever() -> None:
    first, last = attempt(1, verdict="escalate"), attempt(2, model="large", rates=LARGE)
    money = figures([first, last], last, Measure(usage(), None, LARGE), LARGE)
    assert _told(money) == ("0.013", "-0.0012", "0", "0", "0", "0.0142")


def test_compression_is_measured_at_the_answering_models_price() -> None:
    # Billed 1000 of what would have been 4000: 0.004 + 0.0002 at mini, 0.04 + 0.003 at the reference.
    made = attempt()
    money = figures([made], made, Measure(usage(), TokensAround(before=800, after=200), MINI), LARGE)
    assert _told(money) == ("0.043", "0.0388", "0", "0.003", "0", "0.0012")


def test_the_original_input_keeps_the_cached_share() -> None:
    # 1000 billed, 600 of them cached, twice that before: 800 fresh and 1200 cached at each model's own rates.
    used = usage(cached_input_tokens=600)
    made = attempt(used=used)
    money = figures([made], made, Measure(used, TokensAround(before=2, after=1), MINI), LARGE)
    assert money.cost == Decimal("0.0009")
    assert money.baseline == Decimal("0.0122")  # 800 x 10 + 1200 x 1 + 100 x 30
    assert money.saved.compression == Decimal("0.0007")  # 400 x 1 + 600 x 0.5


def test_a_hit_saves_what_the_answer_once_cost() -> None:
    money = figures([], None, Measure(usage(), TokensAround(before=2, after=1), MINI), LARGE)
    assert _told(money) == ("0.023", "0.0208", "0.0022", "0", "0", "0")


def test_a_hit_after_a_failed_call_still_pays_for_the_call() -> None:
    failed = attempt(verdict="error", used=usage(10, 0), cost=Decimal("0.00001"))
    money = figures([failed], None, Measure(usage(), None, MINI), LARGE)
    assert _told(money) == ("0.013", "0.01179", "0.0012", "0", "0", "0.00001")


def test_batch_is_the_difference_to_the_plain_price() -> None:
    made = attempt(cost=Decimal("0.0006"), rates=rates("0.5", "1"))
    money = figures([made], made, Measure(usage(), None, MINI, batch=True), LARGE)
    assert _told(money) == ("0.013", "0.0118", "0", "0", "0.0006", "0.0006")


def test_the_original_input_is_priced_as_the_long_input_it_was() -> None:
    doubled = replace(LARGE, above=((1500, rates("20", "60")),))
    made = attempt()
    short = figures([made], made, Measure(usage(), TokensAround(before=3, after=2), MINI), doubled)
    longer = figures([made], made, Measure(usage(), TokensAround(before=301, after=200), MINI), doubled)
    assert short.baseline == Decimal("0.018")  # exactly 1500: the lower rate
    assert longer.baseline == Decimal("0.0361")  # 1505 x 20 + 100 x 60


def test_rounding_happens_once_and_half_to_even() -> None:
    half = attempt(cost=Decimal("0.0000005"))
    assert figures([half], None, None, None).cost == 0
    assert figures([half, half], None, None, None).cost == MICRO
    assert figures([half, half, half], None, None, None).cost == 2 * MICRO


def test_an_unknown_reference_claims_no_saving_and_says_so() -> None:
    made = attempt()
    money = figures([made], made, Measure(usage(), None, MINI), None)
    assert money.price_unknown
    assert _told(money) == ("0.0012", "0", "0", "0", "0", "0.0012")


@pytest.mark.parametrize("state", ["settled", "unconfirmed", "reserved"])
def test_an_attempt_without_a_price_says_so(state: str) -> None:
    assert figures([attempt(rates=None, state=state)], None, None, LARGE).price_unknown


def test_what_was_never_sent_needs_no_price() -> None:
    assert not figures([attempt(rates=None, state="abandoned")], None, None, LARGE).price_unknown


def test_without_an_answer_the_reference_needs_no_price() -> None:
    assert not figures([attempt()], None, None, None).price_unknown
