"""The learned margin: never under our own count, above what was billed, moved little by a lie, and near the truth in the end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import TokensAround
from tests.provider import Provider
from tests.unit.call.build import event, plan
from tests.unit.call.stage import Stage
from workers.call.estimate import ANSWERS, FEWEST_TOKENS, HEADROOM, MOST, STEP, STEPS, Margins
from workers.policy import Model

MODEL = Model(litellm="openai/mini", context=8000, token_margin=1.5)
ROUNDING = 1 / STEPS

bills = st.lists(st.tuples(st.integers(0, 5_000), st.integers(0, 20_000)), max_size=60)


def learned(*ratios: float, times: int = 1) -> Margins:
    margins = Margins()
    for ratio in ratios * times:
        margins.learn(MODEL, 1_000, round(1_000 * ratio))
    return margins


@given(bills, st.floats(1, 4))
def test_it_stays_between_our_count_and_the_bound(bills: list[tuple[int, int]], start: float) -> None:
    model, margins = MODEL.model_copy(update={"token_margin": start}), Margins()
    for counted, billed in bills:
        margins.learn(model, counted, billed)
        assert start <= margins.of(model) <= MOST, "until it has seen enough, the policy's figure is the least"


@given(st.lists(st.floats(0.5, 3.5), min_size=1, max_size=20))
def test_what_was_billed_twice_in_a_row_or_so_is_covered(ratios: list[float]) -> None:
    margins = Margins()
    for ratio in ratios * 2:
        for _ in range(6):
            margins.learn(MODEL, 1_000, int(1_000 * ratio))
        assert int(1_000 * ratio) <= 1_000 * margins.of(MODEL), "six answers raise it by as much as they must"


@given(st.floats(1.5, 4), st.integers(10**4, 10**12))
def test_one_absurd_bill_moves_it_by_a_step(start: float, billed: int) -> None:
    model, margins = MODEL.model_copy(update={"token_margin": start}), Margins()
    before = margins.of(model)
    margins.learn(model, FEWEST_TOKENS, billed)
    assert margins.of(model) <= min(before * STEP * HEADROOM + ROUNDING, MOST)


def test_one_absurd_bill_is_forgotten() -> None:
    margins = learned(40.0)
    assert margins.of(MODEL) > 1.9
    for _ in range(2 * ANSWERS):
        margins.learn(MODEL, 1_000, 1_200)
    assert margins.of(MODEL) == pytest.approx(1.2 * HEADROOM, abs=ROUNDING)


@pytest.mark.parametrize("truth", [0.8, 1.0, 1.2, 1_452 / 977, 2.5])
def test_it_comes_near_the_truth(truth: float) -> None:
    margins = learned(truth, times=ANSWERS)
    wanted = max(truth, 1.0)
    assert wanted <= margins.of(MODEL) <= wanted * HEADROOM + ROUNDING


def test_it_looks_back_a_generation() -> None:
    margins = learned(1.0, 1.6, times=ANSWERS // 2)
    for _ in range(ANSWERS - 1):
        margins.learn(MODEL, 1_000, 1_000)
    assert margins.of(MODEL) >= 1.6 * HEADROOM, "the dearer text was there a moment ago"
    margins.learn(MODEL, 1_000, 1_000)
    assert margins.of(MODEL) < 1.2


def test_it_does_not_fall_before_it_has_seen_enough() -> None:
    assert learned(1.0, times=ANSWERS - 1).of(MODEL) == 1.5
    assert learned(1.0, times=ANSWERS).of(MODEL) < 1.2


def test_small_prompts_teach_nothing_and_models_are_told_apart() -> None:
    margins = Margins()
    for _ in range(10):
        margins.learn(MODEL, FEWEST_TOKENS - 1, 10_000)
    assert margins.of(MODEL) == 1.5
    margins.learn(MODEL, 1_000, 3_000)
    assert margins.of(MODEL) > 1.5
    for other in ({"litellm": "openai/large"}, {"api_base": "http://127.0.0.1:1"}):
        assert margins.of(MODEL.model_copy(update=other)) == 1.5


async def test_the_stage_reserves_by_what_it_has_learned(stage: Stage, server: Provider) -> None:
    """The second question of a provider that counts 2.5 tokens where we count one is reserved at more than it will be billed."""
    counted, billed = 1_000, 2_500
    for n in range(4):
        server.faults.add("usage", usage={"prompt_tokens": billed, "completion_tokens": 7, "total_tokens": billed + 7})
        asked = event(f"r-{n}", plan=plan(forced=True)).model_copy(update={"tokens": TokensAround(before=counted, after=counted)})
        await stage(asked)
    reserved = [ask.tokens for ask in stage.asked]
    assert reserved[0] < billed, "the policy's margin is too small for this one"
    assert reserved == sorted(reserved)
    assert reserved[-1] >= billed + 7

    server.faults.add("negative_usage")
    await stage(event("r-lie", plan=plan(forced=True)).model_copy(update={"tokens": TokensAround(before=counted, after=counted)}))
    await stage(event("r-after", plan=plan(forced=True)).model_copy(update={"tokens": TokensAround(before=counted, after=counted)}))
    assert stage.asked[-1].tokens == reserved[-1], "our own count of it teaches nothing"
