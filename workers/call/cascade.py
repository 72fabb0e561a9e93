"""Which model is asked next. THE heart of the stage, and a pure function of the plan, the attempts so far, and who rests.

So resuming after a crash needs nothing remembered: the ledger's attempts say where the cascade stands. The rules:

- It starts in the plan's tier. An answer that fails its check goes one tier up, if the plan allows a cascade.
- A model that fails hands over to the next one of its tier, and the last of a tier to the tier above.
- A prompt that does not fit goes to the first model, upward, whose window holds it.
- Where all are down for the moment, it waits and goes round again; a model that is down for good is left out. Each of the last two attempts
  is waited for.
- A model that rests is passed over like one that has failed; where all rest, the request waits, and spends no attempt.
- A forced tier is never left. Every call counts as an attempt, and so does one that was cut off; one that never left does not. Out of
  attempts, the best answer goes out, or none.
- A call cut off by our own crash says nothing about its model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from schemas import Plan
from schemas.types import TIERS, Flag, Tier
from workers.call.failures import NOT_SENT, TRANSIENT
from workers.ledger.types import Attempt
from workers.policy import Model

FIRST_WAIT_S = 1.0
LONGEST_WAIT_S = 300.0
LAST = 2
"""Attempts that are kept for later where every model has failed: one after the other they would be gone long before the deadline."""


@dataclass(frozen=True, slots=True)
class Try:
    tier: Tier
    model: str
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Accept:
    """This answer goes out."""

    attempt: Attempt
    flags: tuple[Flag, ...] = ()


@dataclass(frozen=True, slots=True)
class Fail:
    code: Literal["no_model", "context_too_long", "provider_error"]
    message: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Every model that could answer is down for the moment."""

    seconds: float
    why: str
    then: Try
    resting: bool = False
    """They rest: nothing of this request's own says so."""


Step = Try | Accept | Fail | Wait


def next_step(
    plan: Plan, models: Mapping[str, Model], attempts: Sequence[Attempt], prompt_tokens: int, resting: Mapping[str, float] = {}
) -> Step:
    """What to do now. `models` are the policy's; `attempts` in order of `n`; `prompt_tokens` by our own count; `resting`: the models that
    are to be left alone, and for how many seconds."""
    verdicts = {a.verdict for a in attempts}
    if "accepted" in verdicts or attempts_left(plan, attempts) <= 0:
        return give_up(attempts)
    if "escalate" in verdicts and (plan.forced or not plan.cascade or _floor(plan, attempts) is None):
        return give_up(attempts)
    known = [t for t in _upward(plan, attempts) if t.model in models]
    if not known:
        return (
            give_up(attempts) if attempts else Fail("no_model", f"no model serves tier {plan.tier}" + ("" if plan.forced else " or above"))
        )
    fitting = _fitting(known, models, attempts, prompt_tokens)
    if not fitting:
        told = f"{prompt_tokens} tokens of prompt and the answer fit no model's window"
        return give_up(attempts, Fail("context_too_long", told))
    return _first_alive(fitting, attempts, resting, attempts_left(plan, attempts)) or give_up(attempts)


def attempts_left(plan: Plan, attempts: Sequence[Attempt]) -> int:
    return plan.max_attempts - sum(a.state != "abandoned" for a in attempts)


def best(attempts: Sequence[Attempt]) -> Attempt | None:
    """The answer to send when no better one will come: the accepted one, else the last that says anything."""
    said = [a for a in attempts if a.answer is not None and (a.answer.tool_calls or (a.answer.content or "").strip())]
    return next((a for a in said if a.verdict == "accepted"), said[-1] if said else None)


def give_up(attempts: Sequence[Attempt], otherwise: Fail | None = None) -> Accept | Fail:
    """The best answer, flagged for what it is; without one, the failure."""
    answer = best(attempts)
    if answer is None:
        last = attempts[-1].outcome if attempts else None
        return otherwise or Fail("provider_error", f"no answer after {len(attempts)} attempts; the last: {last or 'cut off'}")
    return Accept(answer, () if answer.verdict == "accepted" else ("check_failed",))


def _floor(plan: Plan, attempts: Sequence[Attempt]) -> int | None:
    """Index of the lowest tier that may still answer; None when the highest has failed its check."""
    failed = [TIERS.index(a.tier) + 1 for a in attempts if a.verdict == "escalate"]
    floor = max([TIERS.index(plan.tier), *failed])
    return floor if floor < len(TIERS) else None


def _upward(plan: Plan, attempts: Sequence[Attempt]) -> list[Try]:
    floor = _floor(plan, attempts)
    tiers = () if floor is None else TIERS[floor : floor + 1] if plan.forced else TIERS[floor:]
    return [Try(tier, model, plan.max_tokens[tier]) for tier in tiers for model in plan.models.get(tier, ())]


def _fitting(tries: Sequence[Try], models: Mapping[str, Model], attempts: Sequence[Attempt], prompt_tokens: int) -> list[Try]:
    """Those whose window holds prompt and answer, and is larger than any that has overflowed."""
    overflowed = {a.model for a in attempts if a.verdict == "context"}
    small = max((models[name].context for name in overflowed if name in models), default=0)
    return [
        t
        for t in tries
        if t.model not in overflowed and models[t.model].context > small and prompt_tokens + t.max_tokens <= models[t.model].context
    ]


def _first_alive(tries: Sequence[Try], attempts: Sequence[Attempt], resting: Mapping[str, float], left: int) -> Try | Wait | None:
    """The first of those that failed least; a wait before everybody is asked once more, and before each of the last attempts; None when all
    are down for good."""
    failed = [a for a in attempts if a.verdict == "error" and a.outcome != NOT_SENT]
    for_good = {a.model for a in failed if a.outcome not in TRANSIENT}
    alive = [t for t in tries if t.model not in for_good]
    if not alive:
        return None
    times = Counter(a.model for a in failed)
    if not (awake := [t for t in alive if t.model not in resting]):
        soonest = min(alive, key=lambda t: resting[t.model])
        return Wait(resting[soonest.model], "resting", soonest, resting=True)
    alive = awake
    fewest = min(times[t.model] for t in alive)
    first = next(t for t in alive if times[t.model] == fewest)
    if fewest == 0 or (left > LAST and any(times[t.model] > fewest for t in alive)):
        return first
    last = next(a.outcome for a in reversed(failed) if a.model in {t.model for t in alive})
    return Wait(min(FIRST_WAIT_S * 2 ** (fewest - 1), LONGEST_WAIT_S), last or "provider", first)
