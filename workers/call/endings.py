"""How a request ends in this stage: the `Finished` of each case. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from schemas import Compressed, Finished, Reason
from schemas.types import TIERS, Flag, ReasonCode, Status, Tier, usd
from workers.call.cascade import Accept, Fail, Try
from workers.ledger.types import Attempt, Refused
from workers.outcomes import End


def ending(event: Compressed, step: Accept | Fail, attempts: Sequence[Attempt], *more: Flag) -> End:
    """The cascade's last word: an answer with its flags and `more`, or the failure."""
    if isinstance(step, Accept):
        return answered(event, step, more)
    last = attempts[-1] if attempts else None
    status: Status = "failed" if step.code == "provider_error" else "rejected"
    tier, model = (last.tier, last.model) if last else (event.plan.tier, None)
    return failed(event, status, step.code, step.message, tier=tier, model=model)


def answered(event: Compressed, step: Accept, more: Sequence[Flag] = ()) -> End:
    attempt, plan = step.attempt, event.plan
    assert attempt.answer is not None  # the cascade accepts nothing else
    said = attempt.answer
    degraded: tuple[Flag, ...] = ("degraded",) if TIERS.index(attempt.tier) < TIERS.index(plan.tier) else ()
    return End(
        Finished(
            facts=event.facts,
            status="answered",
            content=said.content,
            tool_calls=said.tool_calls,
            finish_reason=said.finish_reason,
            source="model",
            tier=attempt.tier,
            model=attempt.model,
            flags=tuple(dict.fromkeys((*plan.flags, *step.flags, *more, *degraded))),
            tokens=event.tokens,
            # An answer cut by the limit the user set is what was asked for, and still no answer to give to others.
            accepted=attempt.verdict == "accepted" and said.finish_reason != "length",
            usage=attempt.usage,
            cache_plan=plan.cache,
            cache_key=event.cache_key,
        )
    )


def failed(event: Compressed, status: Status, code: ReasonCode, message: str, *, tier: Tier | None = None, model: str | None = None) -> End:
    reason = Reason(code=code, message=message)
    return End(
        Finished(facts=event.facts, status=status, reason=reason, tier=tier, model=model, flags=event.plan.flags, tokens=event.tokens)
    )


def over_budget(event: Compressed, step: Try, refused: Refused) -> End:
    dollars = refused.kind == "usd"
    what = f"dollars in {_scope(refused)}" if dollars else f"tokens in {_scope(refused)}"
    reason = Reason(
        code="budget_exceeded" if dollars else "quota_exceeded",
        message=f"{_amount(refused.used)} of {_amount(refused.limit)} {what} are used or reserved; the next call may not fit",
        scope=refused.scope,
        limit=_amount(refused.limit),
        used=_amount(refused.used),
        resets_at=refused.resets_at,
    )
    finished = Finished(
        facts=event.facts, status="rejected", reason=reason, tier=step.tier, model=step.model, flags=event.plan.flags, tokens=event.tokens
    )
    return End(finished)


def _amount(value: Decimal | int) -> str | int:
    return usd(value) if isinstance(value, Decimal) else value


def _scope(refused: Refused) -> str:
    return ", ".join(f"{name} {value}" for name, value in refused.scope.items()) or "the whole fleet"
