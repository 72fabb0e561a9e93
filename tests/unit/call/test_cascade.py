"""Which model is asked next, from the attempts alone."""

from __future__ import annotations

from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import Plan
from schemas.types import TIERS, Tier
from tests.unit.call.build import attempt, plan
from workers.call.cascade import Accept, Fail, Step, Try, Wait, give_up, next_step
from workers.call.failures import NOT_SENT, TRANSIENT
from workers.ledger.types import Attempt
from workers.policy import Model

MODELS = {
    name: Model(litellm=f"openai/{name}", context=window)
    for name, window in (("mini", 1000), ("spare", 1000), ("middle", 2000), ("large", 8000), ("huge", 100_000))
}
TWO = {"light": ("mini", "spare"), "standard": ("middle",), "heavy": ("large", "huge")}


def after(p: Plan, *attempts: Attempt, tokens: int = 10) -> Step:
    return next_step(p, MODELS, attempts, tokens)


def tried(step: Step) -> tuple[str, str]:
    assert isinstance(step, Try), step
    return step.tier, step.model


def test_it_starts_in_the_plans_tier_with_the_first_model() -> None:
    assert after(plan("standard", max_tokens=77)) == Try("standard", "middle", 77)


def test_an_accepted_answer_goes_out() -> None:
    good = attempt(1, "light", "mini", "accepted", said="90 cm")
    assert after(plan(), good) == Accept(good)


def test_a_failed_check_goes_one_tier_up_to_heavy() -> None:
    p = plan(models=TWO)
    first = attempt(1, "light", "mini", "escalate", "refusal", said="I can't.")
    second = attempt(2, "standard", "middle", "escalate", "truncated", said="A heron")
    third = attempt(3, "heavy", "large", "escalate", "refusal", said="No.")
    assert tried(after(p, first)) == ("standard", "middle")
    assert tried(after(p, first, second)) == ("heavy", "large")
    assert after(p, first, second, third) == Accept(third, ("check_failed",))


def test_a_tier_without_models_is_passed_over() -> None:
    p = plan(models={"light": ("mini",), "heavy": ("large",)})
    assert tried(after(p, attempt(1, "light", "mini", "escalate", said="?"))) == ("heavy", "large")


@pytest.mark.parametrize("p", [plan(cascade=False), plan(forced=True)])
def test_without_a_cascade_the_first_answer_goes_out_flagged(p: Plan) -> None:
    poor = attempt(1, "light", "mini", "escalate", "truncated", said="A heron")
    assert after(p, poor) == Accept(poor, ("check_failed",))


def test_the_best_answer_is_the_last_that_says_anything() -> None:
    first = attempt(1, "light", "mini", "escalate", "truncated", said="A heron")
    empty = attempt(2, "standard", "middle", "escalate", "empty", said="  ")
    third = attempt(3, "heavy", "large", "escalate", "empty", said="")
    assert after(plan(), first, empty, third) == Accept(first, ("check_failed",))


def test_nothing_but_empty_answers_is_a_failure() -> None:
    step = after(plan(cascade=False), attempt(1, "light", "mini", "escalate", "empty", said=""))
    assert isinstance(step, Fail)
    assert step.code == "provider_error"


def test_a_model_that_fails_hands_over_to_the_next_then_to_the_tier_above() -> None:
    p = plan(models=TWO)
    down = [attempt(1, "light", "mini", "error", "server_error"), attempt(2, "light", "spare", "error", "not_found")]
    assert tried(after(p, *down[:1])) == ("light", "spare")
    assert tried(after(p, *down)) == ("standard", "middle")


def test_fallbacks_need_no_cascade() -> None:
    assert tried(after(plan(cascade=False), attempt(1, "light", "mini", "error", "server_error"))) == ("standard", "middle")


def test_a_forced_tier_is_not_left() -> None:
    p = plan(forced=True, models=TWO)
    down = [attempt(1, "light", "mini", "error", "unauthorized"), attempt(2, "light", "spare", "error", "no_credit")]
    assert tried(after(p, *down[:1])) == ("light", "spare")
    assert isinstance(step := after(p, *down), Fail)
    assert step.code == "provider_error"


def test_a_model_in_two_tiers_is_not_asked_again_when_it_is_down() -> None:
    p = plan(models={"light": ("mini",), "standard": ("mini", "middle"), "heavy": ("large",)})
    assert tried(after(p, attempt(1, "light", "mini", "error", "timeout"))) == ("standard", "middle")


def test_a_model_in_two_tiers_may_do_better_with_more_tokens() -> None:
    p = plan(models={"light": ("mini",), "standard": ("mini", "middle"), "heavy": ("large",)})
    assert tried(after(p, attempt(1, "light", "mini", "escalate", "truncated", said="A"))) == ("standard", "mini")


def test_when_all_are_down_for_the_moment_it_waits_and_goes_round_again() -> None:
    p = plan(models={"light": ("mini",), "standard": ("middle",)}, max_attempts=10)
    one, two = attempt(1, "light", "mini", "error", "rate_limited"), attempt(2, "standard", "middle", "error", "timeout")
    step = after(p, one, two)
    assert step == Wait(1.0, "timeout", Try("light", "mini", 100))
    three = attempt(3, "light", "mini", "error", "overloaded")
    assert tried(after(p, one, two, three)) == ("standard", "middle")
    four = attempt(4, "standard", "middle", "error", "server_error")
    assert after(p, one, two, three, four) == Wait(2.0, "server_error", Try("light", "mini", 100))


def test_only_what_may_recover_is_waited_for() -> None:
    p = plan(models={"light": ("mini", "spare")})
    gone, busy = attempt(1, "light", "mini", "error", "unauthorized"), attempt(2, "light", "spare", "error", "rate_limited")
    step = after(p, gone, busy)
    assert isinstance(step, Wait)
    assert step.then.model == "spare"


def test_an_attempt_cut_off_by_a_crash_says_nothing_about_its_model_but_counts() -> None:
    cut = attempt(1, "light", "mini", None)
    assert tried(after(plan(models=TWO), cut)) == ("light", "mini")
    assert tried(after(plan(models=TWO), attempt(1, "light", "mini", "error", NOT_SENT))) == ("light", "mini")
    assert isinstance(after(plan(max_attempts=1), cut), Fail)


def test_a_prompt_that_does_not_fit_goes_to_the_first_window_that_holds_it() -> None:
    p = plan(models=TWO)
    assert tried(after(p, tokens=950)) == ("standard", "middle")
    assert tried(after(p, tokens=900)) == ("light", "mini")
    assert tried(after(p, tokens=50_000)) == ("heavy", "huge")


def test_a_window_that_overflowed_rules_out_all_that_are_no_larger() -> None:
    p = plan(models={"light": ("mini", "spare"), "standard": ("middle",), "heavy": ("large",)})
    over = attempt(1, "light", "mini", "context", "context")
    assert tried(after(p, over)) == ("standard", "middle")
    step = after(plan(forced=True, models=TWO), over)
    assert isinstance(step, Fail)
    assert step.code == "context_too_long"


def test_what_fits_nowhere_is_too_long() -> None:
    step = after(plan(models=TWO), tokens=99_950)
    assert isinstance(step, Fail)
    assert step.code == "context_too_long"


def test_what_fits_nowhere_above_leaves_the_answer_there_is() -> None:
    poor = attempt(1, "light", "huge", "escalate", "truncated", said="A heron")
    p = plan(models={"light": ("huge",), "standard": ("middle",)})
    assert after(p, poor, tokens=5000) == Accept(poor, ("check_failed",))


@pytest.mark.parametrize(
    "p", [plan(models={}), plan("heavy", models={"light": ("mini",)}), plan(forced=True, models={"heavy": ("large",)})]
)
def test_no_model(p: Plan) -> None:
    step = after(p)
    assert isinstance(step, Fail)
    assert step.code == "no_model"


def test_a_model_the_policy_no_longer_has_is_left_out() -> None:
    assert tried(after(plan(models={"light": ("retired", "mini")}))) == ("light", "mini")


def test_out_of_attempts() -> None:
    poor = attempt(1, "light", "mini", "escalate", "refusal", said="No.")
    down = attempt(2, "standard", "middle", "error", "server_error")
    assert after(plan(max_attempts=2), poor, down) == Accept(poor, ("check_failed",))
    assert isinstance(after(plan(max_attempts=1), attempt(1, "light", "mini", "error", "server_error")), Fail)


# ---- properties

NAMES = list(MODELS)
TIER = st.sampled_from(TIERS)
PLANS = st.builds(
    plan,
    TIER,
    forced=st.booleans(),
    cascade=st.booleans(),
    models=st.dictionaries(TIER, st.lists(st.sampled_from([*NAMES, "retired"]), max_size=3, unique=True).map(tuple)),
    max_attempts=st.integers(1, 8),
)
RESULT = st.tuples(
    st.sampled_from(["accepted", "escalate", "error", "context", None]),
    st.sampled_from([*sorted(TRANSIENT), "unauthorized", "bad_request", NOT_SENT]),
    st.sampled_from(["", "  ", "A heron is tall."]),
)


def play(p: Plan, tokens: int, results: list[tuple[str | None, str, str]]) -> tuple[list[Attempt], Step, list[Step]]:
    """Run the cascade against these results; the attempts, the last step, and every step before it."""
    attempts: list[Attempt] = []
    steps: list[Step] = []
    for n in count(1):
        step = next_step(p, MODELS, attempts, tokens)
        assert step == next_step(p, MODELS, tuple(attempts), tokens)
        if isinstance(step, Wait):
            steps.append(step)
            step = step.then
        if not isinstance(step, Try):
            return attempts, step, steps
        steps.append(step)
        verdict, outcome, said = results[(n - 1) % len(results)]
        if verdict == "accepted" and not said.strip():
            verdict = "escalate"  # as the check would have it
        word = outcome if verdict == "error" else verdict
        attempts.append(attempt(n, step.tier, step.model, verdict, word, said=said if verdict in ("accepted", "escalate") else None))
    raise AssertionError


@given(PLANS, st.integers(0, 120_000), st.lists(RESULT, min_size=1, max_size=8))
def test_for_any_providers(p: Plan, tokens: int, results: list[tuple[str | None, str, str]]) -> None:
    attempts, last, steps = play(p, tokens, results)
    tries = [s for s in steps if isinstance(s, Try)]

    assert len(attempts) <= p.max_attempts
    assert isinstance(last, Accept | Fail)
    if isinstance(last, Accept):
        assert last.attempt in attempts
        assert last.attempt.answer is not None
        assert (last.attempt.answer.content or "").strip()
        assert (last.attempt.verdict == "accepted") == ("check_failed" not in last.flags)
        assert not any(a.verdict == "accepted" for a in attempts) or last.attempt.verdict == "accepted"
    else:
        assert give_up(attempts) == last or not any((a.answer.content or "").strip() for a in attempts if a.answer)

    start = TIERS.index(p.tier)
    poor: Tier | None = None
    for step, made in zip(tries, attempts, strict=True):
        assert step.model in p.models[step.tier]
        assert step.model in MODELS
        assert tokens + step.max_tokens <= MODELS[step.model].context
        assert TIERS.index(step.tier) >= start
        assert not p.forced or step.tier == p.tier
        assert poor is None or (p.cascade and TIERS.index(step.tier) > TIERS.index(poor))
        poor = made.tier if made.verdict == "escalate" else poor
    for i, made in enumerate(attempts):
        if made.verdict == "context" or (made.verdict == "error" and made.outcome not in TRANSIENT | {NOT_SENT}):
            assert made.model not in {t.model for t in tries[i + 1 :]}


@pytest.mark.parametrize(("most", "waits"), [(7, False), (6, True)])
def test_each_of_the_last_attempts_is_waited_for_where_every_model_has_failed(most: int, *, waits: bool) -> None:
    """Also where one has failed less often than another: rests make them come up at different times."""
    p = plan(models={"light": ("mini",), "standard": ("middle",), "heavy": ("large",)}, max_attempts=most)
    failed = [("light", "mini"), ("standard", "middle"), ("heavy", "large"), ("light", "mini")]
    before = [attempt(n, tier, model, "error", "rate_limited") for n, (tier, model) in enumerate(failed, 1)]
    then = Try("standard", "middle", 100)
    step = after(p, *before)
    assert step == (Wait(1.0, "rate_limited", then) if waits else then)


def test_a_model_that_has_not_failed_is_not_waited_for() -> None:
    p = plan(models={"light": ("mini",), "standard": ("middle",)}, max_attempts=2)
    assert after(p, attempt(1, "light", "mini", "error", "rate_limited")) == Try("standard", "middle", 100)
