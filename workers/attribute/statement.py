"""What an ending comes to: the bytes of its `Response` and its `CostRecord`, and the figures the ledger keeps. Pure.

`statement` is called by the ledger inside the transaction that ends the request, so it does no I/O; an exception in it is a bug and
undoes that transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from schemas import CostRecord, Finished, Response, Usage
from workers.attribute.baseline import Figures, Measure, figures
from workers.ledger.revision import attempt_record, usage
from workers.ledger.types import Attempt, Books, Rates, Statement
from workers.policy import Model, Policy


@dataclass(frozen=True, slots=True)
class Prices:
    """What the figures are measured with. `price_map` names the map that prices what the policy does not."""

    policy: Policy
    rates: Callable[[Model], Rates | None]
    price_map: str

    def of(self, name: str | None) -> Rates | None:
        """The rates of one of the policy's models; None when it has left the policy, or has no known price."""
        model = self.policy.models.get(name) if name else None
        return self.rates(model) if model else None

    @property
    def reference(self) -> Rates | None:
        return self.of(self.policy.reference)


def statement(finished: Finished, books: Books, prices: Prices, told: Callable[[CostRecord], None] = lambda _: None) -> Statement:
    """The statement of an ending that claims its id. `told` is given the cost record that is in it."""
    answering = _answering(finished, books.attempts)
    money = figures(books.attempts, answering, _measure(finished, answering, prices), prices.reference)
    billed = usage(books.attempts)
    record = _cost_record(finished, books, billed, money, answering, prices)
    told(record)
    return Statement(
        response=_encode(_response(finished, books, billed, money)),
        cost_record=_encode(record),
        cost=money.cost,
        unconfirmed=money.unconfirmed,
        baseline=money.baseline,
        saved=money.saved,
    )


def unclaimed(finished: Finished, now: datetime) -> bytes:
    """The response to a rejection that claims no id: no attempt, no money, no row."""
    return _encode(_response(finished, Books((), now, 0), Usage(), _NOTHING))


_NOTHING = figures((), None, None, None)


def _response(finished: Finished, books: Books, billed: Usage, money: Figures) -> Response:
    facts = finished.facts
    answered = finished.status == "answered"
    return Response(
        request_id=facts.request_id,
        tenant=facts.tenant,
        feature=facts.feature,
        user=facts.user,
        experiment=facts.experiment,
        lane=facts.lane,
        status=finished.status,
        reason=None if answered else finished.reason,
        content=finished.content if answered else None,
        tool_calls=finished.tool_calls if answered else None,
        finish_reason=finished.finish_reason if answered else None,
        source=finished.source if answered else None,
        tier=finished.tier,
        model=finished.model,
        attempts=sum(a.state != "abandoned" for a in books.attempts),
        flags=finished.flags,
        usage=billed,
        cost_usd=money.cost,
        unconfirmed_usd=money.unconfirmed,
        baseline_usd=money.baseline,
        saved_usd=money.saved,
        created_at=facts.created_at,
        finished_at=books.ended_at,
        trace_id=facts.trace_id,
        metadata=facts.metadata,
    )


def _cost_record(finished: Finished, books: Books, billed: Usage, money: Figures, answering: Attempt | None, prices: Prices) -> CostRecord:
    facts = finished.facts
    if facts.tenant is None or facts.feature is None:
        raise ValueError("an ending without tenant and feature claims no id and has no cost record")
    return CostRecord(
        request_id=facts.request_id,
        tenant=facts.tenant,
        feature=facts.feature,
        user=facts.user,
        experiment=facts.experiment,
        purpose=facts.purpose,
        revision=books.revision,
        lane=facts.lane,
        status=finished.status,
        tier=finished.tier,
        model=finished.model,
        provider=answering.provider if answering else None,
        source=finished.source if finished.status == "answered" else None,
        usage=billed,
        cost_usd=money.cost,
        unconfirmed_usd=money.unconfirmed,
        baseline_usd=money.baseline,
        saved_usd=money.saved,
        price_unknown=money.price_unknown,
        estimated=any(a.estimated for a in books.attempts),
        price_map=_price_map(books.attempts, finished, prices),
        occurred_at=books.ended_at,
        trace_id=facts.trace_id,
        attempts=tuple(map(attempt_record, books.attempts)),
    )


def _price_map(attempts: Sequence[Attempt], finished: Finished, prices: Prices) -> str:
    """Whose prices the record holds: `policy`, the map's name, or both."""
    used = {a.rates for a in attempts if a.rates}
    if finished.status == "answered":
        used |= {rates for rates in (prices.reference, prices.of(finished.model)) if rates}
    return "+".join(sorted({rates.source for rates in used})) or prices.price_map


def _answering(finished: Finished, attempts: Sequence[Attempt]) -> Attempt | None:
    """The attempt whose answer went out. None: nobody was asked for it (a cache hit), or no answer."""
    if finished.status != "answered" or finished.source in ("cache_exact", "cache_semantic"):
        return None

    def likeness(attempt: Attempt) -> tuple[bool, bool, bool, int]:
        said = attempt.answer
        same = said is not None and (said.content, said.tool_calls) == (finished.content, finished.tool_calls)
        return same, attempt.verdict == "accepted", attempt.tier == finished.tier, attempt.n

    said = (a for a in attempts if a.state == "settled" and a.model == finished.model and a.verdict in ("accepted", "escalate"))
    return max(said, key=likeness, default=None)


def _measure(finished: Finished, answering: Attempt | None, prices: Prices) -> Measure | None:
    if finished.status != "answered":
        return None
    if answering:
        batch = finished.source == "batch"
        # An attempt keeps the rates it was made at; only a batch attempt's are not those of a plain call.
        return Measure(answering.usage, finished.tokens, prices.of(finished.model) if batch else answering.rates, batch)
    if stored := finished.cached_from:
        return Measure(stored.usage, stored.tokens, prices.of(finished.model))
    return Measure(finished.usage or Usage(), finished.tokens, prices.of(finished.model))


def _encode(event: Response | CostRecord) -> bytes:
    return event.model_dump_json().encode()
