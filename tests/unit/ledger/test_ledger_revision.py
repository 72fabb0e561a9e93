"""The next revision of a CostRecord, as a rule about any attempts."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from schemas import CostRecord, Usage
from schemas.types import MICRO
from tests.unit.ledger.scenario import HELLO, RATES, facts, state
from workers.ledger.revision import revise
from workers.ledger.types import UNIT, Attempt, Books

UNITS = st.integers(0, 10**12).map(lambda units: units * UNIT)
USAGE = st.builds(Usage, input_tokens=st.integers(0, 10**6), output_tokens=st.integers(0, 10**5))


def attempts() -> st.SearchStrategy[tuple[Attempt, ...]]:
    one = st.builds(
        Attempt,
        n=st.just(1),
        tier=st.just("light"),
        model=st.just("mini"),
        provider=st.just("openai"),
        state=st.sampled_from(["reserved", "settled", "unconfirmed", "abandoned"]),
        usage=USAGE,
        cost=UNITS,
        rates=st.sampled_from([RATES, None]),
        verdict=st.none(),
        outcome=st.none(),
        answer=st.sampled_from([HELLO, None]),
        estimated=st.booleans(),
    )
    return st.lists(one, max_size=5).map(tuple)


def record() -> CostRecord:
    return CostRecord.model_validate_json(state(facts(), Books((), datetime.now(UTC), 1), "").cost_record)


@given(attempts())
def test_the_levers_add_up_and_money_is_rounded_once(now: tuple[Attempt, ...]) -> None:
    first = record()
    revised = revise(first, now)
    exact = sum((a.cost for a in now if a.state == "settled"), Decimal(0))
    assert revised.baseline_usd - revised.cost_usd == revised.saved_usd.total
    assert revised.cost_usd == exact.quantize(MICRO)
    assert abs(revised.cost_usd - exact) <= MICRO / 2
    assert (revised.baseline_usd, revised.saved_usd.cache, revised.saved_usd.compression) == (
        *(first.baseline_usd, first.saved_usd.cache),
        first.saved_usd.compression,
    )


@given(attempts())
def test_every_revision_is_the_next_and_can_be_read_back(now: tuple[Attempt, ...]) -> None:
    revised = revise(revise(record(), now), now)
    assert revised.revision == 3
    assert len(revised.attempts) == len(now)
    assert CostRecord.model_validate_json(revised.model_dump_json()) == revised


@given(attempts())
def test_an_unknown_price_is_flagged_where_money_was_spent(now: tuple[Attempt, ...]) -> None:
    assert revise(record(), now).price_unknown == any(a.rates is None and a.state == "settled" for a in now)
