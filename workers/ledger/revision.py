"""The next revision of a CostRecord: what a settlement after the ending changes in the book. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import ROUND_HALF_EVEN, Decimal

from schemas import AttemptRecord, CostRecord, Usage
from schemas.types import MICRO
from workers.ledger.types import Attempt


def spent(attempts: Iterable[Attempt]) -> Decimal:
    """What the settled attempts cost, rounded once to the micro-dollar."""
    return _micro(sum((a.cost for a in attempts if a.state == "settled"), Decimal(0)))


def unconfirmed(attempts: Iterable[Attempt]) -> Decimal:
    """What attempts that were cut off may have cost on top, rounded once to the micro-dollar."""
    return _micro(sum((a.cost for a in attempts if a.state == "unconfirmed"), Decimal(0)))


def usage(attempts: Iterable[Attempt]) -> Usage:
    """The tokens of the settled attempts; of the others nobody knows them."""
    return sum((a.usage for a in attempts if a.state == "settled"), Usage())


def attempt_record(attempt: Attempt) -> AttemptRecord:
    return AttemptRecord(
        n=attempt.n,
        model=attempt.model,
        provider=attempt.provider,
        state=attempt.state,
        usage=attempt.usage,
        cost_usd=attempt.cost,
        outcome=attempt.outcome,
    )


def revise(record: CostRecord, attempts: Sequence[Attempt]) -> CostRecord:
    """`record` with the attempts as they are now. The baseline is an estimate and stays; routing carries the difference, so that the
    levers still add up to `baseline - cost`."""
    cost = spent(attempts)
    saved = record.saved_usd
    routing = record.baseline_usd - cost - saved.cache - saved.compression - saved.batch
    return record.model_copy(
        update={
            "revision": record.revision + 1,
            "attempts": tuple(map(attempt_record, attempts)),
            "cost_usd": cost,
            "unconfirmed_usd": unconfirmed(attempts),
            "usage": usage(attempts),
            "saved_usd": saved.model_copy(update={"routing": routing}),
            "price_unknown": record.price_unknown or any(a.rates is None for a in attempts if a.state == "settled"),
            "estimated": record.estimated or any(a.estimated for a in attempts),
        }
    )


def _micro(exact: Decimal) -> Decimal:
    return exact.quantize(MICRO, ROUND_HALF_EVEN)
