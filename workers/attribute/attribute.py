"""attribute: prices every ending, stores it in the ledger and answers the user. The only writer of `llm.responses` and `llm.costs`.

Ends: never with a new `Finished` (it would come back here). An ending that claims its id is stored with its statement in one ledger
transaction, and the stored bytes are published: the first time and on every repeat the same ones. A rejection that claims no id is
published without a row. An id that belongs to another body, or whose answer was purged, is rejected; its row stays untouched.
Parks: on `Unavailable("ledger")`, which comes out of the ledger. Retries and expires nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import partial

from schemas import UNCLAIMED, CostRecord, Facts, Finished, Reason, Saved
from schemas.types import Lane, ReasonCode, Source, Status, Tier
from workers import topics
from workers.attribute.statement import Prices, statement, unclaimed
from workers.ledger.types import Closed, Conflict, Ending, LedgerPort, Rates, Revised, Stored, SweepPort, Used
from workers.outcomes import Emit, Message, Outcome
from workers.policy import Model, Policy


@dataclass(frozen=True, slots=True)
class Observed:
    """What the metrics learn of a first ending. Nothing in it names a tenant, a user or a prompt."""

    status: Status
    reason: ReasonCode | None
    lane: Lane
    feature: str | None
    tier: Tier | None
    model: str | None
    source: Source | None
    cost: Decimal
    unconfirmed: Decimal
    baseline: Decimal
    saved: Saved
    price_unknown: bool
    seconds: float
    """From arrival to ending."""


def make_attribute(
    *,
    ledger: LedgerPort,
    policy: Callable[[], Policy],
    rates: Callable[[Model], Rates | None],
    price_map: str,
    now: Callable[[], datetime],
    observe: Callable[[Observed], None],
) -> Callable[[Sequence[Finished]], Awaitable[list[Outcome]]]:
    """The stage: a batch of endings in, one outcome for each, in their order.

    Args:
        rates: what a model of the policy costs; None when nobody knows.
        price_map: the name of the price map, for the cost records.
        observe: told of every first ending.
    """

    async def attribute(events: Sequence[Finished]) -> list[Outcome]:
        current = policy()
        prices = Prices(current, rates, price_map)
        claims = [event for event in events if _claims(event)]
        made: dict[str, CostRecord] = {}
        endings = [_ending(event, prices, partial(made.__setitem__, event.facts.key)) for event in claims]
        closed = iter(await ledger.end(endings) if claims else ())
        return [_publish(event, next(closed) if _claims(event) else None, made, current) for event in events]

    def _publish(event: Finished, closed: Closed | None, made: Mapping[str, CostRecord], current: Policy) -> Outcome:
        match closed:
            case Stored(response, cost_record, first):
                record = made[event.facts.key] if first else CostRecord.model_validate_json(cost_record)
                if first:
                    observe(_observed(event, record))
                # The same event again may mean that the first time was cut off before its publish. Another one is the user's repeat, which
                # gets its response and costs nothing: whoever sums up the topic must not count it.
                same = first or record.trace_id == event.facts.trace_id
                cost = (Message(topics.COSTS, event.facts.key, cost_record),) if same else ()
                return Emit((*_response(event.facts, response, current), *cost))
            case Conflict():
                event = _rejected(event.facts, "request_id_conflict", "this request_id belongs to another request body")
            case Used():
                event = _rejected(event.facts, "request_id_used", "this request_id was used and its answer is no longer kept")
        return Emit(_response(event.facts, unclaimed(event, now()), current))

    return attribute


def failed_internal(facts: Facts) -> Finished:
    """The ending of a request whose event this stage could not work on: its dead letter is for operators, this is for the user."""
    return Finished(facts=facts, status="failed", reason=Reason(code="internal", message="scrimp failed on this request"))


def make_sweep(ledger: SweepPort, publish: Callable[[Sequence[Message]], Awaitable[None]]) -> Callable[[], Awaitable[int]]:
    """The sweep, to be called every few seconds: reserved attempts of dead workers become unconfirmed, also when nobody asks again, and
    cost records whose newer revision has not been published are. Returns how many were.

    A crash between the publish and its note in the ledger publishes a revision twice; a revision replaces itself.
    """

    async def sweep() -> int:
        revised = await ledger.sweep()
        if revised:
            await publish([_revision(r) for r in revised])
            await ledger.published(revised)
        return len(revised)

    return sweep


def _claims(event: Finished) -> bool:
    """Does this ending claim its id? Not without a tenant and a feature to book it on, and not when a rule says so."""
    facts = event.facts
    return facts.tenant is not None and facts.feature is not None and (event.reason is None or event.reason.code not in UNCLAIMED)


def _ending(event: Finished, prices: Prices, told: Callable[[CostRecord], None]) -> Ending:
    return Ending(
        facts=event.facts,
        status=event.status,
        reason_code=event.reason.code if event.reason else None,
        tier=event.tier,
        model=event.model,
        source=event.source,
        state=partial(statement, event, prices=prices, told=told),
    )


def _rejected(facts: Facts, code: ReasonCode, message: str) -> Finished:
    return Finished(facts=facts, status="rejected", reason=Reason(code=code, message=message))


def _response(facts: Facts, value: bytes, policy: Policy) -> tuple[Message, ...]:
    """The record for the user, on the tenant's own topic if the policy names one. The fleet's own requests have nobody to answer."""
    if facts.purpose != "request":
        return ()
    tenant = policy.tenant(facts.tenant) if facts.tenant is not None else None
    return (Message(topics.RESPONSES, facts.key, value, {"x-lane": facts.lane}, tenant.responses_topic if tenant else None),)


def _revision(revised: Revised) -> Message:
    return Message(topics.COSTS, f"{revised.tenant}/{revised.request_id}", revised.cost_record)


def _observed(event: Finished, booked: CostRecord) -> Observed:
    return Observed(
        status=booked.status,
        reason=event.reason.code if event.reason else None,
        lane=booked.lane,
        feature=booked.feature,
        tier=booked.tier,
        model=booked.model,
        source=booked.source,
        cost=booked.cost_usd,
        unconfirmed=booked.unconfirmed_usd,
        baseline=booked.baseline_usd,
        saved=booked.saved_usd,
        price_unknown=booked.price_unknown,
        seconds=(booked.occurred_at - event.facts.created_at).total_seconds(),
    )
