"""Every answer of `open`."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from decimal import Decimal

import pytest

from tests.unit.ledger.conftest import Start
from tests.unit.ledger.scenario import HELLO, RATES, ask, counters, dollars, drift, ending, execute, facts, hold, settlement, silence
from workers.ledger.ledger import Ledger
from workers.ledger.types import Answered, Conflict, Ended, Exhausted, Granted, Held, Late, Rates, Refused

ACME = '{"tenant": "acme"}'


async def test_a_new_request_is_granted_its_first_attempt(ledger: Ledger, url: str) -> None:
    assert await ledger.open([ask("r", "0.25", 40, hold("1"), hold(100))]) == [Granted(1, ())]
    assert await counters(url) == {(ACME, "usd", "month"): (dollars("0.25"), 0), (ACME, "tokens", "month"): (40, 0)}


async def test_an_empty_batch_asks_nothing(ledger: Ledger) -> None:
    assert (await ledger.open([]), await ledger.settle([]), await ledger.end([])) == ([], [], [])


async def test_a_resent_ask_gets_the_same_grant(ledger: Ledger, url: str) -> None:
    lost_answer = ask("r", "1", 10, hold("1"))
    assert await ledger.open([lost_answer]) == await ledger.open([lost_answer]) == [Granted(1, ())]
    assert await counters(url) == {(ACME, "usd", "month"): (dollars("1"), 0)}


async def test_another_asker_is_held_while_the_owner_lives(start: Start) -> None:
    first, second = await start("first"), await start("second")
    await first.open([ask("r")])
    for asker in (first, second):  # a second delivery in the same process is another asker too
        (answer,) = await asker.open([ask("r")])
        assert isinstance(answer, Held)
        assert 0 < answer.seconds <= 5


async def test_held_is_asked_again_when_the_owner_would_be_given_up(start: Start) -> None:
    first, second = await start("first"), await start("second", stale_s=600.0)
    await first.open([ask("r", ttl_s=0.5)])
    (answer,) = await second.open([ask("r")])
    assert isinstance(answer, Held)
    assert answer.seconds <= 0.5


async def test_the_attempt_of_a_stale_owner_is_written_off_and_the_next_one_granted(start: Start, url: str) -> None:
    first, second = await start("first"), await start("second")
    await first.open([ask("r", "1", 10, hold("5"))])
    await silence(url, first)
    (answer,) = await second.open([ask("r", "2", 10, hold("5"))])
    assert isinstance(answer, Granted)
    assert answer.n == 2
    (lost,) = answer.attempts
    assert (lost.state, lost.cost, lost.answer) == ("unconfirmed", Decimal(1), None)
    assert await counters(url) == {(ACME, "usd", "month"): (dollars("2"), dollars("1"))}


async def test_an_attempt_that_its_living_owner_forgot_expires(ledger: Ledger, url: str) -> None:
    await ledger.open([ask("r", "1", 10, hold("5"), ttl_s=0)])
    (answer,) = await ledger.open([ask("r", "1", 10, hold("5"))])
    assert isinstance(answer, Granted)
    assert (answer.n, answer.attempts[0].state) == (2, "unconfirmed")
    assert await drift(url) == {}


async def test_a_closed_worker_leaves_nothing_held(start: Start) -> None:
    first, second = await start("first"), await start("second")
    await first.open([ask("r")])
    await first.close()
    (answer,) = await second.open([ask("r")])
    assert isinstance(answer, Granted)


async def test_the_stale_owner_is_written_off_even_when_the_next_attempt_is_refused(start: Start, url: str) -> None:
    first, second = await start("first"), await start("second")
    await first.open([ask("r", "1", 10, hold("1"))])
    await silence(url, first)
    (answer,) = await second.open([ask("r", "1", 10, hold("1"))])
    assert isinstance(answer, Refused)
    assert [a.state for a in answer.attempts] == ["unconfirmed"]
    assert await counters(url) == {(ACME, "usd", "month"): (0, dollars("1"))}


async def test_an_accepted_answer_comes_back_whole_and_is_never_paid_again(start: Start) -> None:
    first, second = await start("first"), await start("second")
    above = replace(RATES, input=Decimal("0.30"), reasoning=Decimal("3.5"))
    rates = replace(RATES, reasoning=Decimal("2.00"), above=((200_000, above),))
    await first.open([ask("r", rates=rates)])
    broken = "a grin \U0001f600, half of one \ud83d, a zero byte \x00"
    said = replace(HELLO, content=broken, tool_calls=({"id": "c", "function": {"name": "f", "arguments": '{"ü": 1}'}},))
    sent = settlement("r", cost="0.0001234567", answer=said, estimated=True)
    await first.settle([sent])
    for after in (0, 1, 6):
        (answer,) = await second.open([ask("r", after=after)])
        assert isinstance(answer, Answered)
        (one,) = answer.attempts
        assert (one.answer, one.rates, one.cost, one.usage, one.estimated) == (said, rates, Decimal("0.0001234567"), sent.usage, True)
        assert (one.tier, one.model, one.provider, one.verdict, one.outcome) == ("light", "mini", "openai", "accepted", "accepted")


async def test_a_cascade_resumes_after_the_attempts_it_knows(ledger: Ledger) -> None:
    await ledger.open([ask("r")])
    await ledger.settle([settlement("r", verdict="escalate", outcome="refusal")])
    (answer,) = await ledger.open([ask("r")])
    assert isinstance(answer, Answered)
    assert [(a.n, a.verdict) for a in answer.attempts] == [(1, "escalate")]
    (answer,) = await ledger.open([ask("r", tier="standard", after=1)])
    assert isinstance(answer, Granted)
    assert (answer.n, [a.answer for a in answer.attempts]) == (2, [HELLO])


async def test_an_attempt_that_was_never_sent_teaches_nothing(ledger: Ledger) -> None:
    await ledger.open([ask("r")])
    await ledger.settle([settlement("r", cost="0", tokens=0, state="abandoned", verdict="error", answer=None)])
    (answer,) = await ledger.open([ask("r")])
    assert isinstance(answer, Granted)
    assert (answer.n, answer.attempts[0].state) == (2, "abandoned")


async def test_every_row_of_a_call_that_may_have_left_counts_towards_max_attempts(ledger: Ledger) -> None:
    for n, state in enumerate(("abandoned", "settled", "unconfirmed"), start=1):
        assert isinstance((await ledger.open([ask("r", max_attempts=2, after=n)]))[0], Granted)
        await ledger.settle([settlement("r", n, verdict="error", state=state)])
    (answer,) = await ledger.open([ask("r", max_attempts=2, after=3)])
    assert isinstance(answer, Exhausted)
    assert [a.state for a in answer.attempts] == ["abandoned", "settled", "unconfirmed"]
    assert isinstance((await ledger.open([ask("r", max_attempts=3, after=3)]))[0], Granted)


async def test_an_ended_request_is_ended(ledger: Ledger) -> None:
    await ledger.end([ending("r")])
    assert await ledger.open([ask("r")]) == [Ended()]


async def test_another_body_is_a_conflict_in_flight_and_after(ledger: Ledger) -> None:
    await ledger.open([ask("r", body="one")])
    assert await ledger.open([ask("r", body="two")]) == [Conflict()]
    await ledger.end([ending("r", body="one")])
    assert await ledger.open([ask("r", body="two")]) == [Conflict()]


async def test_the_same_id_of_another_tenant_is_another_request(ledger: Ledger) -> None:
    assert await ledger.open([ask("r", tenant="a", body="one"), ask("r", tenant="b", body="two")]) == [Granted(1, ())] * 2


async def test_no_call_starts_after_the_deadline(ledger: Ledger, url: str) -> None:
    assert await ledger.open([ask("r", "1", 1, hold("5"), seconds_left=-1)]) == [Late(())]
    assert await counters(url) == {(ACME, "usd", "month"): (0, 0)}
    assert await ledger.open([ask("not counted", seconds_left=-1), ask("in time")]) == [Late(()), Granted(1, ())]


async def test_an_answer_already_paid_goes_out_after_the_deadline(ledger: Ledger) -> None:
    await ledger.open([ask("r")])
    await ledger.settle([settlement("r")])
    assert isinstance((await ledger.open([ask("r", seconds_left=-1)]))[0], Answered)


async def test_late_only_what_would_have_been_granted(ledger: Ledger) -> None:
    assert isinstance((await ledger.open([ask("r", "1", 1, hold("0"), seconds_left=-1)]))[0], Refused)


class TestBudgets:
    async def test_a_refusal_says_what_is_full(self, ledger: Ledger) -> None:
        await ledger.open([ask("a", "0.75", 70, hold("1"), hold(100))])
        (usd, tokens) = await ledger.open([ask("b", "0.5", 1, hold("1"), hold(100)), ask("c", "0.1", 50, hold("1"), hold(100))])
        assert isinstance(usd, Refused)
        assert isinstance(tokens, Refused)
        assert (usd.kind, usd.scope, usd.limit, usd.used, usd.degrade) == ("usd", {"tenant": "acme"}, Decimal(1), Decimal("0.75"), False)
        assert (tokens.kind, tokens.limit, tokens.used) == ("tokens", 100, 70)
        assert usd.resets_at.day == 1
        assert usd.resets_at.tzinfo is not None

    async def test_a_limit_is_reached_exactly(self, ledger: Ledger) -> None:
        room = hold("0.3")
        answers = await ledger.open([ask(str(i), "0.1", 1, room) for i in range(4)])
        assert [type(a) for a in answers] == [Granted, Granted, Granted, Refused]

    async def test_a_limit_finer_than_a_unit_is_not_rounded_up(self, ledger: Ledger) -> None:
        assert isinstance((await ledger.open([ask("r", "0.0000000001", 1, hold("0.00000000009"))]))[0], Refused)

    async def test_two_budgets_on_one_counter_count_once(self, ledger: Ledger, url: str) -> None:
        await ledger.open([ask("r", "1", 1, hold("5"), hold("3"))])
        assert await counters(url) == {(ACME, "usd", "month"): (dollars("1"), 0)}
        (answer,) = await ledger.open([ask("s", "2.5", 1, hold("5"), hold("3"))])
        assert isinstance(answer, Refused)
        assert answer.limit == Decimal(3)

    async def test_past_degrade_at_only_light_is_granted(self, ledger: Ledger) -> None:
        soft = hold("1", degrade_at=0.8)
        await ledger.open([ask("a", "0.8", 1, soft)])
        heavy, light = await ledger.open([ask("b", "0.1", 1, soft, tier="heavy"), ask("c", "0.1", 1, soft, tier="light")])
        assert isinstance(heavy, Refused)
        assert heavy.degrade
        assert isinstance(light, Granted)

    async def test_up_to_degrade_at_every_tier_is_granted(self, ledger: Ledger) -> None:
        """What is used counts, not what the call would bring it to: a share of almost nothing leaves the first call alone."""
        for name, amount, share in (("a", "0.7", 0.01), ("b", "0.2", 0.8)):
            (answer,) = await ledger.open([ask(name, amount, 1, hold("1", degrade_at=share), tier="heavy")])
            assert isinstance(answer, Granted)

    async def test_a_dear_tier_past_the_limit_may_still_go_down(self, ledger: Ledger) -> None:
        (answer,) = await ledger.open([ask("a", "1.5", 1, hold("1", degrade_at=0.8), tier="standard")])
        assert isinstance(answer, Refused)
        assert answer.degrade

    async def test_a_full_budget_is_full_for_every_tier(self, ledger: Ledger) -> None:
        soft = hold("1", degrade_at=0.8)
        await ledger.open([ask("a", "1", 1, soft)])
        answers = await ledger.open([ask("b", "0.1", 1, soft, tier="heavy"), ask("c", "0.1", 1, soft, tier="light")])
        assert [a.degrade for a in answers if isinstance(a, Refused)] == [False, False]

    async def test_a_hard_refusal_stands_before_a_soft_one(self, ledger: Ledger) -> None:
        (answer,) = await ledger.open([ask("a", "0.9", 60, hold("1", degrade_at=0.8), hold(50), tier="heavy")])
        assert isinstance(answer, Refused)
        assert (answer.kind, answer.degrade) == ("tokens", False)


class TestBatches:
    async def test_repeats_are_answered_as_if_one_after_another(self, ledger: Ledger) -> None:
        first = ask("r")
        answers = await ledger.open([first, first, ask("r"), ask("r", body="other")])
        assert answers[:2] == [Granted(1, ())] * 2
        assert isinstance(answers[2], Held)
        assert answers[3] == Conflict()

    async def test_money_is_handed_out_in_the_order_of_the_caller(self, ledger: Ledger) -> None:
        answers = await ledger.open([ask("z", "0.6", 1, hold("1")), ask("a", "0.6", 1, hold("1"))])
        assert [type(a) for a in answers] == [Granted, Refused]

    async def test_a_refused_first_leaves_room_for_its_repeat(self, ledger: Ledger) -> None:
        answers = await ledger.open([ask("r", "2", 1, hold("1")), ask("r", "1", 1, hold("1"))])
        assert [type(a) for a in answers] == [Refused, Granted]

    async def test_old_and_new_requests_together(self, ledger: Ledger, url: str) -> None:
        await ledger.open([ask("old"), ask("held")])
        await ledger.settle([settlement("old")])
        answers = await ledger.open([ask("new"), ask("old"), ask("held"), ask("newer")])
        assert [type(a) for a in answers] == [Granted, Answered, Held, Granted]

    async def test_a_large_batch(self, ledger: Ledger, url: str) -> None:
        asks = [ask(f"r{i}", "0.01", 1, hold("1.5"), hold(10**6, {"user": f"u{i % 50}"}), tenant=f"t{i % 7}") for i in range(300)]
        answers = await ledger.open(asks)
        assert [type(a) for a in answers] == [Granted] * 150 + [Refused] * 150
        assert await drift(url) == {}


@pytest.mark.parametrize(
    "wrong",
    [
        {"holds": (hold("-1"),)},
        {"holds": (hold("NaN"),)},
        {"facts": facts().model_copy(update={"tenant": None})},
    ],
)
async def test_an_amount_that_is_none_never_reaches_the_table(ledger: Ledger, url: str, wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        await ledger.open([replace(ask("r"), **wrong)])  # type: ignore[arg-type]
    assert await execute(url, "SELECT 1 FROM request") == []


async def test_an_unknown_price_is_kept_as_unknown(ledger: Ledger) -> None:
    await ledger.open([ask("r", rates=None)])
    await ledger.settle([settlement("r")])
    (answer,) = await ledger.open([ask("r")])
    assert isinstance(answer, Answered)
    assert answer.attempts[0].rates is None


async def test_a_new_price_does_not_change_what_an_attempt_was_priced_at(ledger: Ledger) -> None:
    dearer = Rates(Decimal(9), Decimal(9), Decimal(9), Decimal(9), "policy")
    await ledger.open([ask("r")])
    await ledger.settle([settlement("r", verdict="escalate")])
    (answer,) = await ledger.open([ask("r", after=1, rates=dearer)])
    assert isinstance(answer, Granted)
    assert answer.attempts[0].rates == RATES


async def test_a_ledger_that_is_not_started_opens_nothing(url: str) -> None:
    ledger = Ledger(url, heartbeat_s=5, stale_s=15, keep_days=7, pool_size=1)
    with pytest.raises(RuntimeError, match="not started"):
        await ledger.open([ask("r")])
    await ledger.close()


async def test_concurrent_askers_of_one_request_get_one_grant(start: Start) -> None:
    workers = [await start(f"w{i}") for i in range(4)]
    answers = await asyncio.gather(*(w.open([ask("r")]) for w in workers for _ in range(3)))
    assert sorted(type(a).__name__ for (a,) in answers) == ["Granted"] + ["Held"] * 11
