"""The stage against a provider over real HTTP, through real LiteLLM, with the real ledger on SQLite."""

from __future__ import annotations

import asyncio
import itertools
import re
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from schemas import Document
from schemas.types import utc_now
from tests.provider import Provider
from tests.unit.call.build import attempt, event, plan, policy
from tests.unit.call.stage import Stage, finished, in_the_books, reason
from workers.call import call, kept
from workers.call.failures import Failure
from workers.call.rest import FIRST_REST_S, TRIP
from workers.ledger.types import (
    Answer,
    Ask,
    Ended,
    Exhausted,
    Held,
    Late,
    Opened,
    Refused,
    Settled,
    Settlement,
)
from workers.outcomes import Retry, Unavailable
from workers.policy import Policy

TWO = {"light": ("mini", "spare"), "standard": ("middle",), "heavy": ("large",)}


async def test_an_answer(stage: Stage, server: Provider) -> None:
    asked = event(plan=plan("standard"))
    ended = finished(await stage(asked))
    assert (ended.status, ended.source, ended.tier, ended.model, ended.accepted) == ("answered", "model", "standard", "middle", True)
    assert ended.content is not None
    assert "heron" in ended.content
    assert ended.finish_reason == "stop"
    assert ended.flags == ()
    assert (ended.tokens, ended.cache_plan, ended.cache_key) == (asked.tokens, asked.plan.cache, asked.cache_key)
    (row,) = await stage.attempts(asked)
    assert (row.state, row.verdict, row.usage) == ("settled", "accepted", ended.usage)
    assert row.cost == Decimal(5) * (row.usage.input_tokens + row.usage.output_tokens) / 1_000_000
    assert stage.observed == [("middle", "accepted")]


async def test_documents_and_instruction_are_sent(stage: Stage, server: Provider) -> None:
    await stage(event(plan=plan(instruction="Be brief."), documents=(Document(id="kb", text="Herons are tall."),)))
    assert [m["role"] for m in server.bodies[0]["messages"]] == ["system", "user", "user"]


FAULTS = {
    "rate_limit": ("settled", "rate_limited"),
    "server_error": ("settled", "server_error"),
    "insufficient_quota": ("settled", "no_credit"),
    "truncated": ("unconfirmed", "broken"),
    "reset": ("unconfirmed", "broken"),
    "invalid_json": ("unconfirmed", "broken"),
    "hang": ("unconfirmed", "timeout"),
}


@pytest.mark.parametrize("kind", FAULTS)
async def test_a_fault_is_one_row_and_the_fallback_another(stage: Stage, server: Provider, kind: str) -> None:
    stage.timeout_s = 1
    server.faults.add(kind)
    asked = event(plan=plan(models=TWO))
    ended = finished(await stage(asked))
    assert (ended.tier, ended.model) == ("light", "spare")
    state, outcome = FAULTS[kind]
    assert await in_the_books(stage, server, asked) == [("mini", state, outcome), ("spare", "settled", "accepted")]
    rows = await stage.attempts(asked)
    assert rows[0].cost == (stage.asked[0].usd if state == "unconfirmed" else 0)
    assert stage.asked[0].usd > 0


async def test_a_model_nobody_serves_is_free_and_not_seen_by_the_provider(stage: Stage, server: Provider, unused_tcp_port: int) -> None:
    base = f"http://127.0.0.1:{unused_tcp_port}/v1"
    models = stage.policy.models | {"mini": stage.policy.models["mini"].model_copy(update={"api_base": base})}
    stage.policy = stage.policy.model_copy(update={"models": models})
    asked = event()
    assert finished(await stage(asked)).model == "middle"
    assert await in_the_books(stage, server, asked) == [("mini", "abandoned", "unreachable"), ("middle", "settled", "accepted")]


@pytest.mark.parametrize(
    ("kind", "outcome"), [("refusal", "refusal"), ("empty", "empty"), ("length", "truncated"), ("wrong_json", "bad_json")]
)
async def test_a_failed_check_escalates_one_tier(stage: Stage, server: Provider, kind: str, outcome: str) -> None:
    server.faults.add(kind)
    asked = event(params={"response_format": {"type": "json_object"}} if kind == "wrong_json" else {})
    ended = finished(await stage(asked))
    assert (ended.tier, ended.accepted, ended.flags) == ("standard", True, ())
    assert await in_the_books(stage, server, asked) == [("mini", "settled", outcome), ("middle", "settled", "accepted")]


async def test_at_the_top_the_best_answer_goes_out_flagged(stage: Stage, server: Provider) -> None:
    server.faults.add("length", tokens=9)
    server.faults.add("empty", times=2)
    ended = finished(await stage(event(plan=plan(flags=("max_tokens_capped",)))))
    assert (ended.tier, ended.model, ended.accepted) == ("light", "mini", False)
    assert ended.flags == ("max_tokens_capped", "check_failed")
    assert ended.content


async def test_nothing_but_empty_answers(stage: Stage, server: Provider) -> None:
    server.faults.add("empty", times=None)
    assert reason(await stage(event())) == ("failed", "provider_error")
    assert len(server.calls) == 3


async def test_an_answer_cut_by_the_users_own_limit_is_not_remembered(stage: Stage, server: Provider) -> None:
    ended = finished(await stage(event(plan=plan(max_tokens=4), params={"max_tokens": 4})))
    assert (ended.finish_reason, ended.flags, ended.accepted) == ("length", (), False)
    assert len(server.calls) == 1


@pytest.mark.parametrize("kind", ["context", "context_window"])
async def test_a_context_that_overflows_goes_to_a_larger_window(stage: Stage, server: Provider, kind: str) -> None:
    wide = stage.policy.models["large"].model_copy(update={"context": 100_000})
    stage.policy = stage.policy.model_copy(update={"models": stage.policy.models | {"large": wide}})
    server.faults.add(kind)
    asked = event()
    assert finished(await stage(asked)).model == "large"
    assert await in_the_books(stage, server, asked) == [("mini", "settled", "context"), ("large", "settled", "accepted")]


async def test_a_prompt_no_window_holds_costs_nothing(stage: Stage, server: Provider) -> None:
    assert reason(await stage(event(plan=plan(max_tokens=9000)))) == ("rejected", "context_too_long")
    assert reason(await stage(event(plan=plan(models={})))) == ("rejected", "no_model")
    assert len(server.calls) == 0


async def test_when_all_are_down_it_waits_then_goes_round_again(stage: Stage, server: Provider) -> None:
    server.faults.add("rate_limit", retry_after=7, times=3)
    asked = event()
    assert await stage(asked) == Retry("rate_limited", 7.0)
    assert len(server.calls) == 3
    assert finished(await stage(asked)).model == "mini"
    assert [o for _, _, o in await in_the_books(stage, server, asked)] == ["rate_limited"] * 3 + ["accepted"]


async def test_the_soonest_of_the_pauses_is_waited_for(stage: Stage, server: Provider) -> None:
    for model, seconds in (("mini", 60), ("middle", 4), ("large", 30)):
        server.faults.add("rate_limit", model=model, retry_after=seconds)
    assert await stage(event()) == Retry("rate_limited", 4.0)


async def test_it_never_waits_beyond_the_deadline(stage: Stage, server: Provider) -> None:
    server.faults.add("rate_limit", retry_after=500, times=None)
    assert reason(await stage(event())) == ("failed", "provider_error")
    assert len(server.calls) == 3


async def test_who_has_few_attempts_left_outwaits_a_rest(stage: Stage, server: Provider) -> None:
    """Else it would come back when the rest of its model is over, and spend its last attempts while the outage goes on."""
    server.faults.add("server_error", times=None)
    for _ in range(TRIP - 1):
        stage.rests.saw("mini", Failure("error", "server_error", "answered"))
    asked = event(plan=plan(models={"light": ("mini",)}, max_attempts=3), deadline_s=100)
    first = await stage(asked)
    assert isinstance(first, Retry)
    assert 20 < first.after < 30, "a quarter of its time, with two left"
    second = await stage(asked)
    assert isinstance(second, Retry)
    assert second.after <= FIRST_REST_S, "it has spent none this time"
    assert len(server.calls) == 1


async def test_out_of_attempts(stage: Stage, server: Provider) -> None:
    server.faults.add("server_error", times=None)
    asked = event(plan=plan(max_attempts=2))
    assert reason(await stage(asked)) == ("failed", "provider_error")
    assert reason(await stage(asked)) == ("failed", "provider_error")
    assert len(server.calls) == 2


async def test_a_paid_answer_is_sent_again_and_not_paid_again(stage: Stage, server: Provider) -> None:
    asked = event()
    first, second = await stage(asked), await stage(asked)
    assert first == second
    assert len(server.calls) == 1


@pytest.mark.parametrize("kind", ["refusal", "context", "server_error"])
async def test_it_resumes_after_each_verdict(stage: Stage, server: Provider, kind: str) -> None:
    """The worker dies once the first attempt is settled; another one takes over and does not repeat it."""
    wide = stage.policy.models["middle"].model_copy(update={"context": 100_000})
    stage.policy = stage.policy.model_copy(update={"models": stage.policy.models | {"middle": wide}})
    server.faults.add(kind)
    asked = event()
    opened = stage.ledger.open

    async def once(ask: list[Ask]) -> list[Opened]:
        if len(stage.settled) == 1:
            raise Unavailable("ledger", "dead")
        return await opened(ask)

    stage.ledger.open = once  # type: ignore[method-assign]
    with pytest.raises(Unavailable):
        await stage(asked)
    stage.ledger.open = opened  # type: ignore[method-assign]
    assert finished(await stage(asked)).model == "middle"
    assert [c.model for c in server.calls] == ["mini", "middle"]


async def test_an_answer_in_hand_outlives_a_ledger_that_is_away(stage: Stage, server: Provider) -> None:
    stage.away = 3
    asked = event()
    assert finished(await stage(asked)).status == "answered"
    assert await in_the_books(stage, server, asked) == [("mini", "settled", "accepted")]


async def test_an_answer_is_kept_until_the_ledger_is_back(stage: Stage, server: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "PAUSES_S", (0.01,) * 3)
    stage.away = 100
    asked, other = event("r-1"), event("r-2", text="How heavy is a heron?")
    with pytest.raises(Unavailable, match="ledger"):
        await stage(asked)
    with pytest.raises(Unavailable, match="ledger"):
        await stage(other)
    assert len(server.calls) == 1, "while an answer waits for the ledger, nobody is asked anything"
    stage.away = 0
    assert finished(await stage(other)).status == "answered"
    assert stage.settled[0].request_id == "r-1", "also by whoever comes first: its own request may be another worker's by now"
    assert finished(await stage(asked)).status == "answered"
    assert [c.model for c in server.calls] == ["mini", "mini"]
    assert stage.observed == [("mini", "accepted")] * 2


async def test_what_cannot_be_settled_at_the_end_is_said(
    stage: Stage, server: Provider, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(kept, "PAUSES_S", ())
    stage.away = 3
    with pytest.raises(Unavailable, match="ledger"):
        await stage(event())
    await stage.kept.close()
    assert "1 answers could not be settled" in caplog.text
    stage.away = 0
    await stage.kept.close()
    assert [s.state for s in stage.settled] == ["settled"]


@pytest.mark.parametrize("away", [0, 1], ids=["asking", "pausing"])
async def test_an_answer_in_hand_outlives_a_stop(stage: Stage, server: Provider, monkeypatch: pytest.MonkeyPatch, away: int) -> None:
    """A stop cancels the request while its settlement is asked for, or waits to be asked for again; the last try at the end settles it."""
    monkeypatch.setattr(kept, "PAUSES_S", (3600.0,))
    stage.away = away
    if not away:
        stage.gate.clear()
    task = asyncio.create_task(stage(event()))
    await stage.settles.wait()
    while stage.away:  # noqa: ASYNC110 -- the stage's own count
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    stage.gate.set()
    await stage.kept.close()
    assert {(s.request_id, s.state) for s in stage.settled} == {("r-1", "settled")}


async def test_what_the_ledger_refuses_later_troubles_nobody_else(
    stage: Stage, server: Provider, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(kept, "PAUSES_S", (0.0,))
    settle, away, refusals = stage.settle, True, itertools.count()

    async def refusing(booked: Settlement) -> Settled:
        if booked.request_id != "r-1":
            return await settle(booked)
        if away:
            raise Unavailable("ledger", "gone")
        raise ValueError(booked.answer)

    stage.kept._settle, stage.kept._refused = refusing, lambda: next(refusals)
    with pytest.raises(Unavailable, match="ledger"):
        await stage(event("r-1"))
    away = False
    assert finished(await stage(event("r-2", text="How heavy is a heron?"))).status == "answered"
    await stage.kept.close()
    assert [s.request_id for s in stage.settled] == ["r-2"]
    assert next(refusals) == 1
    (said,) = [r.getMessage() for r in caplog.records if r.name == "scrimp.call"]
    assert said == "the ledger refuses to settle acme/r-1#1: ValueError"


async def test_a_request_hears_that_its_own_settlement_is_refused(stage: Stage, server: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "PAUSES_S", (0.0,))
    tries = 0

    async def refusing(_booked: Settlement) -> Settled:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise Unavailable("ledger", "gone")
        raise ValueError

    stage.kept._settle = refusing
    with pytest.raises(ValueError):
        await stage(event())
    await stage.kept.close()


async def test_a_grant_whose_answer_was_lost_is_granted_again(stage: Stage, server: Provider) -> None:
    opened = stage.ledger.open

    async def cut(asks: list[Ask]) -> list[Opened]:
        await opened(asks)
        raise Unavailable("ledger", "connection lost")

    stage.ledger.open = cut  # type: ignore[method-assign]
    asked = event()
    with pytest.raises(Unavailable):
        await stage(asked)
    stage.ledger.open = opened  # type: ignore[method-assign]
    assert finished(await stage(asked)).status == "answered"
    assert await in_the_books(stage, server, asked) == [("mini", "settled", "accepted")]


async def test_only_the_latest_questions_without_an_answer_are_remembered(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(_asks: list[Ask]) -> list[Opened]:
        raise Unavailable("ledger", "connection lost")

    monkeypatch.setattr(call, "UNANSWERED", 2)
    stage.ledger.open = away  # type: ignore[method-assign]
    asked = [event(f"r-{n}") for n in range(3)]
    for each in (*asked, *reversed(asked)):
        with pytest.raises(Unavailable):
            await stage(each)
    first, second, third, *again = (a.seq for a in stage.asked)
    assert again[:2] == [third, second]
    assert again[2] != first


async def test_a_worker_without_a_heartbeat_sends_nothing(stage: Stage, server: Provider) -> None:
    stage.may_call = lambda: False
    asked = event()
    with pytest.raises(Unavailable, match="ledger"):
        await stage(asked)
    assert stage.asked == [], "nothing is reserved for a call that would not be sent"
    beats = iter([True, False, False])
    stage.may_call = lambda: next(beats)  # it grows too old while the ledger is asked
    with pytest.raises(Unavailable, match="ledger"):
        await stage(asked)
    assert len(server.calls) == 0
    assert stage.observed == []
    stage.may_call = lambda: True
    assert finished(await stage(asked)).model == "mini"
    assert await in_the_books(stage, server, asked) == [("mini", "abandoned", "not_sent"), ("mini", "settled", "accepted")]


async def test_cancelled_from_outside_nothing_false_is_written(stage: Stage, server: Provider) -> None:
    server.faults.add("hang")
    asked = event()
    task = asyncio.ensure_future(stage(asked))
    while not len(server.calls):  # noqa: ASYNC110 -- a log has no event to wait for
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert stage.settled == []
    assert isinstance(await stage(asked), Retry)  # still reserved: held


async def test_a_price_nobody_knows(stage: Stage, server: Provider) -> None:
    free = stage.policy.models["mini"].model_copy(update={"price": None})
    stage.policy = stage.policy.model_copy(update={"models": stage.policy.models | {"mini": free}})
    asked = event()
    finished(await stage(asked))
    (row,) = await stage.attempts(asked)
    assert (row.rates, row.cost, stage.asked[0].usd) == (None, 0, 0)
    assert row.usage.input_tokens > 0


async def test_usage_nobody_believes_is_estimated_and_says_so(stage: Stage, server: Provider) -> None:
    server.faults.add("negative_usage")
    asked = event()
    finished(await stage(asked))
    (row,) = await stage.attempts(asked)
    assert row.estimated
    assert row.cost > 0


# ---- budgets


def budget(base: str, **one: Any) -> Policy:
    return policy(base, budgets=[{"scope": {"tenant": "*"}, "window": "day"} | one])


async def test_a_full_budget_of_dollars(stage: Stage, server: Provider) -> None:
    stage.policy = budget(server.base_url, limit_usd="0.00001")
    ended = finished(await stage(event()))
    assert ended.reason is not None
    assert (ended.status, ended.reason.code, ended.reason.scope) == ("rejected", "budget_exceeded", {"tenant": "acme"})
    assert (ended.reason.limit, ended.reason.used) == ("0.00001", "0")
    assert ended.reason.resets_at is not None
    assert len(server.calls) == 0


async def test_a_full_quota_of_tokens(stage: Stage, server: Provider) -> None:
    stage.policy = budget(server.base_url, limit_tokens=20)
    ended = finished(await stage(event()))
    assert ended.reason is not None
    assert (ended.reason.code, ended.reason.limit, ended.reason.used) == ("quota_exceeded", 20, 0)


async def test_an_escalation_that_is_refused_leaves_the_best_answer(stage: Stage, server: Provider) -> None:
    stage.policy = budget(server.base_url, limit_usd="0.0004")
    server.faults.add("length", tokens=9)
    asked = event()
    ended = finished(await stage(asked))
    assert (ended.status, ended.tier, ended.accepted) == ("answered", "light", False)
    assert set(ended.flags) == {"check_failed", "escalation_refused"}
    assert len(server.calls) == 1


async def test_past_degrade_at_it_goes_down_to_light(stage: Stage, server: Provider) -> None:
    stage.policy = budget(server.base_url, limit_usd="0.0004", degrade_at=0.4)
    ended = finished(await stage(event(plan=plan("standard"))))
    assert (ended.status, ended.tier, ended.flags, ended.accepted) == ("answered", "light", ("degraded",), True)
    ended = finished(await stage(event("r-2", plan=plan("heavy", forced=True))))
    assert ended.reason is not None
    assert ended.reason.code == "budget_exceeded"
    assert [c.model for c in server.calls] == ["mini"]


async def test_degraded_it_stays_light(stage: Stage, server: Provider) -> None:
    stage.policy = budget(server.base_url, limit_usd="0.0004", degrade_at=0.4)
    server.faults.add("length", tokens=9)
    ended = finished(await stage(event(plan=plan("standard"))))
    assert set(ended.flags) == {"check_failed", "degraded"}
    server.faults.add("unauthorized")
    assert reason(await stage(event("r-2", plan=plan("standard")))) == ("failed", "provider_error")
    assert [c.model for c in server.calls] == ["mini", "mini"]


async def test_degraded_without_a_light_model_that_fits_is_over_budget(stage: Stage, server: Provider) -> None:
    stage.policy = budget(server.base_url, limit_usd="0.0004", degrade_at=0.4)
    narrow = stage.policy.models["mini"].model_copy(update={"context": 50})
    stage.policy = stage.policy.model_copy(update={"models": stage.policy.models | {"mini": narrow}})
    assert reason(await stage(event(plan=plan("standard")))) == ("rejected", "budget_exceeded")


@pytest.mark.parametrize(
    ("lane", "on_exceed", "deadline_s", "waits"),
    [
        ("bulk", "wait", 3 * 86_400, True),
        ("bulk", "wait", 0.5, False),
        ("bulk", "reject", 3 * 86_400, False),
        ("interactive", "wait", 3 * 86_400, False),
    ],
)
async def test_only_the_bulk_lane_waits_for_money(
    stage: Stage, server: Provider, lane: str, on_exceed: str, deadline_s: float, waits: bool
) -> None:
    assert finished(await stage(event())).status == "answered"
    room = str(stage.asked[0].usd)  # for one more call, were nothing used
    stage.policy = budget(server.base_url, limit_usd=room, on_exceed=on_exceed)
    assert finished(await stage(event("r-2"))).status == "answered"
    outcome = await stage(event("r-3", lane=lane, deadline_s=deadline_s))
    if waits:
        assert isinstance(outcome, Retry)
        assert outcome.why == "budget"
        assert 0 < outcome.after <= 86_400
    else:
        assert reason(outcome) == ("rejected", "budget_exceeded")


# ---- what else `open` may say

POOR = attempt(1, "light", "mini", "escalate", "refusal", said="I can't.")


async def test_held(stage: Stage) -> None:
    stage.scripted = [Held(1.5)]
    assert await stage(event()) == Retry("held", 1.5)


async def test_a_deadline_that_has_passed(stage: Stage, server: Provider) -> None:
    assert reason(await stage(event(deadline_s=-1))) == ("expired", "deadline_passed")
    stage.scripted = [Late((POOR,))]
    ended = finished(await stage(event("r-2")))
    assert (ended.content, ended.flags) == ("I can't.", ("check_failed",))
    assert len(server.calls) == 0


async def test_exhausted(stage: Stage) -> None:
    stage.scripted = [Exhausted((POOR,)), Exhausted((attempt(1, "light", "mini", None),))]
    assert finished(await stage(event())).flags == ("check_failed",)
    assert reason(await stage(event())) == ("failed", "provider_error")


async def test_another_body(stage: Stage, server: Provider) -> None:
    await stage(event())
    assert reason(await stage(event(body_hash="ff"))) == ("rejected", "request_id_conflict")
    assert len(server.calls) == 1


async def test_ended_already(stage: Stage) -> None:
    stage.scripted = [Ended()]
    assert reason(await stage(event())) == ("failed", "internal")


async def test_a_refusal_that_shows_an_answer_we_did_not_know(stage: Stage) -> None:
    shown = replace(POOR, answer=Answer("98 cm, give or", None, "length"))
    stage.scripted = [Refused("usd", {}, Decimal(1), Decimal(1), utc_now() + timedelta(hours=1), degrade=True, attempts=(shown,))]
    ended = finished(await stage(event(plan=plan("standard"))))
    assert ended.content == "98 cm, give or"
    assert set(ended.flags) == {"check_failed", "escalation_refused", "degraded"}


async def test_no_prompt_in_any_reason(stage: Stage, server: Provider) -> None:
    server.faults.add("bad_request", times=None)
    ended = finished(await stage(event(text="the-heron-keeps-a-secret")))
    assert ended.reason is not None
    assert re.search("bad_request", ended.reason.message)
    assert "secret" not in ended.reason.message
