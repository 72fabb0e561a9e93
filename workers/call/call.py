"""call: ask the cheapest model that can do it, one attempt row at a time, until an answer may go out.

Before each request on the wire the ledger grants an attempt; after it the attempt is settled with its cost, the answer and the verdict.
Where the cascade stands is read off the attempts, so a redelivery resumes it, and sends an answer that is paid out again.

Ends: answered, or `no_model`, `context_too_long`, `budget_exceeded`, `quota_exceeded`, `request_id_conflict`, `deadline_passed`,
`provider_error`. Retries: another worker has the request; every model is down for the moment; the bulk lane waits for money. Parks (raises
`Unavailable`): the ledger cannot be reached, or the heartbeat is too old to send a call. Without the ledger nothing is sent.
A cancellation from outside goes through at once: the attempt stays reserved, and the ledger makes it unconfirmed once its owner is gone.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Protocol

from schemas import Compressed, Plan, Prompt
from schemas.types import Lane, utc_now
from workers.call.books import overrun, row, settlement
from workers.call.cascade import FIRST_WAIT_S, Fail, Try, Wait, attempts_left, best, give_up, next_step
from workers.call.endings import ending, failed, over_budget
from workers.call.estimate import Margins
from workers.call.failures import NOT_SENT, Failure
from workers.call.kept import Kept
from workers.call.provider import Reply
from workers.call.reserve import countable, prompt_tokens, worst
from workers.call.rest import Rests
from workers.call.slots import NoSlot, Slot, Slots
from workers.ledger.budgets import holds
from workers.ledger.types import (
    Answered,
    Ask,
    Attempt,
    Conflict,
    Ended,
    Exhausted,
    Granted,
    Held,
    Late,
    Opened,
    Rates,
    Refused,
)
from workers.outcomes import Outcome, Retry, Unavailable, expired
from workers.policy import Model, Policy

TTL_MARGIN_S = 30.0
"""How much longer than a call's time-out its attempt stays reserved: it may wait for a slot first, and its settlement for the ledger."""

UNANSWERED = 4096
"""Questions without an answer that are remembered: the latest, more than a process has under way. The rest went to other workers, mostly.
To lose one costs a wait and no call: what it was granted is held until it runs out, and then counts as `unconfirmed`."""

LATE_S = 1.0
"""Until the ledger is asked for the ending of a request whose deadline has passed here. Its clock decides, and may be behind ours."""
LAST_WAIT_S = 3_600.0
"""The bulk lane's deadline is a day away: no attempt is kept longer than this."""
NO_HEARTBEAT = "the last heartbeat is too old to send a call"

_SEQ = itertools.count(1)
"""One for the process: the ledger takes an equal number of an equal owner for the same question asked again."""


class Complete(Protocol):
    """One request on the wire; `Client.complete`."""

    async def __call__(
        self,
        model: Model,
        prompt: Prompt,
        *,
        max_tokens: int,
        stop: tuple[str, ...],
        instruction: str | None,
        api_key: str | None,
        timeout_s: float,
    ) -> Reply | Failure: ...


def make_call(
    *,
    open: Callable[[Ask], Awaitable[Opened]],  # noqa: A002 -- the ledger's verb
    kept: Kept,
    complete: Complete,
    policy: Callable[[], Policy],
    rates: Callable[[Model], Rates | None],
    count: Callable[[str], int],
    may_call: Callable[[], bool],
    key: Callable[[str | None], str | None],
    timeout_s: float,
    slots: Mapping[Lane, Slots],
    rests: Rests,
    observe: Callable[[str, str], None] = lambda _model, _outcome: None,
    overran: Callable[[str, str], None] = lambda _model, _why: None,
    now: Callable[[], datetime] = utc_now,
) -> Callable[[Compressed], Awaitable[Outcome]]:
    """The stage.

    Args:
        open: the ledger's verb for one request; may raise `Unavailable`.
        kept: settles, and keeps what the ledger cannot take.
        rates: a model's prices; None where nobody knows them.
        count: tokens of a text.
        may_call: false while this worker's heartbeat is too old, since another one may have taken its attempts over.
        key: the secret behind a variable's name.
        timeout_s: of one request on the wire.
        slots: of each lane. One is held while a model is asked, and not while the answer is settled.
        rests: the models that are left alone for a while.
        observe: told (the policy's model name, the outcome's word) of every attempt.
        overran: told (the policy's model name, why) of every attempt that came to more than its reservation.
    """

    unanswered: dict[str, Ask] = {}
    margins = Margins()

    async def ask(this: Ask) -> Opened:
        """`open`. What was asked when the ledger went away may have been granted, and only the same question gets the same grant."""
        if not may_call():
            raise Unavailable("ledger", NO_HEARTBEAT)
        before = unanswered.pop(this.facts.key, None)
        if before is not None and replace(this, seq=before.seq) == before:
            this = before
        try:
            return await open(this)
        except Unavailable:
            unanswered[this.facts.key] = this
            if len(unanswered) > UNANSWERED:
                del unanswered[next(iter(unanswered))]
            raise

    async def call(event: Compressed) -> Outcome:
        current, plan = policy(), event.plan
        budgets = holds(current, event.facts)
        counted = prompt_tokens(event, count)
        attempts: tuple[Attempt, ...] = ()
        pauses: dict[str, float] = {}  # by the models that were asked here and failed: seconds they want to be left alone
        over: tuple[Try, Refused] | None = None  # what sent us down to the light tier
        await kept.catch_up()
        while True:
            step = next_step(plan, current.models, attempts, counted, rests.left())
            if isinstance(step, Wait):
                left = (event.facts.deadline_at - now()).total_seconds()
                if step.resting and left > 0:
                    # Who has just spent one of the last attempts waits for longer than the rest, or comes back in time to spend the next.
                    seconds = spread(step.seconds, left, attempts_left(plan, attempts)) if pauses else step.seconds
                    return Retry(step.why, min(seconds, left))  # at its deadline the ledger says that it is too late
                if pauses and not step.resting:
                    seconds = max(min(pauses.values()), spread(step.seconds, left, attempts_left(plan, attempts)))
                    return Retry(step.why, seconds) if seconds < left else ending(event, give_up(attempts), attempts)
                step = step.then  # the failures are from before: whoever brought the request back has waited
            if isinstance(step, Fail) and step.code != "provider_error" and over:
                return over_budget(event, *over)
            if not isinstance(step, Try):
                return ending(event, step, attempts)
            model = current.models[step.model]
            price = rates(model)
            reserved = worst(event.prompt, counted, step.max_tokens, margins.of(model), price)
            this = Ask(
                facts=event.facts,
                tier=step.tier,
                model=step.model,
                provider=model.provider,
                rates=price,
                usd=reserved.usd,
                tokens=reserved.tokens,
                holds=budgets,
                after=attempts[-1].n if attempts else 0,
                max_attempts=plan.max_attempts,
                ttl_s=timeout_s + TTL_MARGIN_S,
                seq=next(_SEQ),
            )
            got: Reply | Failure | None = None
            try:
                async with slots[event.facts.lane].asking() as slot:
                    opened = await ask(this)
                    if isinstance(opened, Granted):
                        got = await send(event, step, model, slot)
            except NoSlot:
                return Retry("slot", 0)
            if isinstance(opened, Granted | Answered | Refused | Exhausted | Late):
                attempts = opened.attempts
            match opened:
                case Granted(n=n):
                    assert got is not None
                    booked = settlement(event.facts, n, event.prompt.params, step, reserved, price, got)
                    if booked.outcome == NOT_SENT:
                        await kept.settle(booked)
                        if not may_call():
                            raise Unavailable("ledger", NO_HEARTBEAT)
                        return Retry("slot", LATE_S if now() >= event.facts.deadline_at else 0)
                    observe(step.model, booked.outcome)
                    if why := overrun(booked, step, reserved):
                        overran(step.model, why)
                    if isinstance(got, Reply) and not got.estimated and countable(event.prompt):
                        margins.learn(model, counted, got.usage.input_tokens)
                    await kept.settle(booked)
                    attempts = (*attempts, row(booked, step, model, price))
                    if isinstance(got, Failure):
                        pauses[step.model] = got.retry_after or 0
                case Answered():
                    continue
                case Refused(degrade=True) if may_degrade(plan, step, attempts):
                    plan, over = plan.model_copy(update={"tier": "light", "forced": True}), (step, opened)
                case Refused() if best(attempts):
                    return ending(event, give_up(attempts), attempts, "escalation_refused")
                case Refused():
                    if waits(event, opened):
                        return Retry("budget", max((opened.resets_at - now()).total_seconds(), 1))
                    return over_budget(event, step, opened)
                case Held(seconds=seconds):
                    return Retry("held", seconds)
                case Late() if not best(attempts):
                    return expired(event.facts, tier=step.tier, model=attempts[-1].model if attempts else None)
                case Late() | Exhausted():
                    return ending(event, give_up(attempts), attempts)
                case Conflict():
                    return failed(event, "rejected", "request_id_conflict", "this id belongs to a request with another body")
                case Ended():
                    # attribute knows the ending by the body's hash and publishes what is stored, not this.
                    return failed(event, "failed", "internal", "already ended")

    async def send(event: Compressed, step: Try, model: Model, slot: Slot) -> Reply | Failure:
        """What came of the call; `NOT_SENT` where no slot came free in time, or by now the heartbeat is too old to send it, or it is too
        late: the ledger looked before the wait for the slot, and before its answer was on its way."""
        with suppress(NoSlot):
            await slot.take()
        if not (slot.taken and may_call()) or now() >= event.facts.deadline_at:
            return Failure("error", NOT_SENT, "no")
        rests.tries(step.model)
        got = await complete(
            model,
            event.prompt,
            max_tokens=step.max_tokens,
            stop=event.plan.stop,
            instruction=event.plan.instruction,
            api_key=key(model.api_key_env),
            timeout_s=timeout_s,
        )
        rests.saw(step.model, got if isinstance(got, Failure) else None)
        return got

    return call


def spread(seconds: float, left: float, attempts: int) -> float:
    """The wait of so many seconds made to fit the time that is `left` to the deadline and the `attempts` that are left until then. The last
    ones must last: half of the time is waited before the last, a quarter before the one before it, and never more than half."""
    share = {1: 0.5, 2: 0.25}.get(attempts, 0.0)
    return max(min(max(seconds, share * left), left / 2, LAST_WAIT_S), FIRST_WAIT_S)


def may_degrade(plan: Plan, step: Try, attempts: tuple[Attempt, ...]) -> bool:
    """A budget asks for a cheaper tier: only where the tier is ours to choose, there is one, and no answer stands ready."""
    return not plan.forced and step.tier != "light" and bool(plan.models.get("light")) and not best(attempts)


def waits(event: Compressed, refused: Refused) -> bool:
    """The bulk lane waits for money where that helps and the budget's window begins anew before the deadline."""
    return refused.waits and event.facts.lane == "bulk" and refused.resets_at < event.facts.deadline_at
