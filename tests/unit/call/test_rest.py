"""A model that fails for everybody is left alone, tried again by one, and back with its first answer."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.provider import Provider
from tests.unit.call.build import event, plan
from tests.unit.call.stage import Stage, finished
from workers.call.call import spread
from workers.call.failures import Failure
from workers.call.rest import FIRST_REST_S, FORGOTTEN_S, LONGEST_REST_S, TRIP, Rests
from workers.outcomes import End, Retry

DOWN = Failure("error", "unreachable", "no")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def tripped(clock: Clock, failure: Failure = DOWN) -> Rests:
    rests = Rests(clock)
    for _ in range(TRIP):
        rests.saw("mini", failure)
    return rests


def test_some_failures_are_everyday_life() -> None:
    rests = Rests()
    for _ in range(3 * TRIP):
        for failure in [DOWN] * (TRIP - 1) + [None]:
            rests.saw("mini", failure)
            assert rests.left() == {}


def test_failures_in_a_row_make_it_rest_and_one_asks_again() -> None:
    clock = Clock()
    rests = tripped(clock)
    assert rests.left() == {"mini": FIRST_REST_S}
    assert rests.down() == ["mini"]
    clock.now += FIRST_REST_S
    assert rests.left() == {}
    rests.tries("mini")
    assert rests.left() == {"mini": FIRST_REST_S}, "the others wait for the one that tries"
    rests.saw("mini", DOWN)
    assert rests.left() == {"mini": 2 * FIRST_REST_S}


@pytest.mark.parametrize("came", [None, Failure("error", "bad_request", "answered"), Failure("context", "context", "answered")])
def test_whoever_answers_is_up(came: Failure | None) -> None:
    rests = tripped(Clock())
    rests.saw("mini", came)
    assert rests.left() == {}
    assert rests.down() == []


def test_whoever_is_asked_no_more_is_down_no_longer() -> None:
    clock = Clock()
    rests = tripped(clock)
    clock.now += FORGOTTEN_S
    assert rests.down() == ["mini"]
    clock.now += 2 * FIRST_REST_S
    assert rests.down() == []
    rests.tries("mini")
    rests.saw("mini", DOWN)
    assert rests.down() == ["mini"], "one failure more, and it is known again"


def test_what_the_provider_asks_for_is_kept_within_reason() -> None:
    assert tripped(Clock(), Failure("error", "rate_limited", "answered", 7.0)).left() == {"mini": 7.0}
    assert tripped(Clock(), Failure("error", "rate_limited", "answered", 3600.0)).left() == {"mini": LONGEST_REST_S}


@given(st.integers(0, 200))
def test_no_rest_is_longer_than_the_longest(more: int) -> None:
    rests = tripped(Clock())
    for _ in range(more):
        rests.saw("mini", DOWN)
    assert FIRST_REST_S <= rests.left()["mini"] <= LONGEST_REST_S


@given(st.floats(0, 300), st.floats(0, 200_000), st.integers(0, 8))
def test_no_wait_is_longer_than_half_of_what_is_left(seconds: float, left: float, attempts: int) -> None:
    assert spread(seconds, left, attempts) <= max(left / 2, 1.0)
    assert attempts == 0 or spread(seconds, left, attempts) >= min(spread(seconds, left, attempts + 1), left / 2)


async def test_where_all_rest_a_request_waits_and_spends_nothing(stage: Stage, server: Provider) -> None:
    for _ in range(TRIP):
        for model in ("mini", "middle", "large"):
            stage.rests.saw(model, DOWN)
    outcome = await stage(event())
    assert isinstance(outcome, Retry)
    assert 0 < outcome.after <= FIRST_REST_S
    assert (len(server.calls), stage.asked) == (0, [])
    stage.rests.saw("middle", None)
    assert finished(await stage(event())).model == "middle"


async def test_where_all_rest_the_end_is_the_deadline(stage: Stage, server: Provider) -> None:
    for _ in range(TRIP + 3):
        stage.rests.saw("mini", DOWN)
    asked = event(plan=plan(models={"light": ("mini",)}), deadline_s=0.4)
    outcome = await stage(asked)
    assert isinstance(outcome, Retry)
    assert outcome.after < 0.4, "it is not held longer than its deadline"
    late = asked.model_copy(update={"facts": asked.facts.model_copy(update={"deadline_at": datetime.now(UTC) - timedelta(seconds=1)})})
    ended = await stage(late)
    assert isinstance(ended, End)
    assert ended.finished.status == "expired"
    assert len(server.calls) == 0


async def test_calls_that_never_left_use_up_no_attempt(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    answering = stage.client.complete

    async def refused(*_args: object, **_options: object) -> Failure:
        return DOWN

    monkeypatch.setattr(stage.client, "complete", refused)
    asked = event(plan=plan(models={"light": ("mini",)}, max_attempts=2))
    for _ in range(4):
        assert isinstance(await stage(asked), Retry)
    monkeypatch.setattr(stage.client, "complete", answering)
    stage.rests.saw("mini", None)
    assert finished(await stage(asked)).status == "answered"
    assert [a.state for a in await stage.attempts(asked)] == ["abandoned"] * 4 + ["settled"]
