"""What a request cost, what it would have cost without the fleet, and which lever made the difference. Pure arithmetic.

A request's money is walked through five prices, in the order of the pipeline:

    v0  the reference model on the original input and the real output; without an answer 0
    v1  the answering model on the same tokens, plus every other settled attempt (escalated, failed)
    v2  v1; on a cache hit only the other attempts, and then v3 = v4 = v2
    v3  v2 with the compressed input
    v4  v3 at the batch price, which is what was paid

    routing = v0 - v1    cache = v1 - v2    compression = v2 - v3    batch = v3 - v4

Each v is an exact sum (to 28 digits, of prices with more decimals than that), rounded once (half-even, to the micro-dollar), so that the
levers add up to `baseline - cost` by construction. Where compression has stretched the input they are sums of fractions, else of decimals.
The original input is the billed input times our token count before compression over our count after it, at the same cached share.

Spending is exact; saving is an estimate against a model that was not called. Where a price is unknown `price_unknown` says so: an
unknown price of a call counts as 0, and an unknown price of the reference claims no saving by routing (v0 = v1).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any

from schemas import Saved, TokensAround, Usage
from schemas.types import MICRO
from workers.ledger.types import Attempt, Rates

_MICROS = int(1 / MICRO)
"""In a dollar."""


@dataclass(frozen=True, slots=True)
class Measure:
    """What an answer is measured by, whoever gave it."""

    usage: Usage
    """As billed: of the attempt that answered, or of the one that once made the stored answer."""
    tokens: TokensAround | None
    """Our count of the prompt around compression; None: it was never compressed."""
    rates: Rates | None
    """The answering model's, outside the batch lane; None: unknown."""
    batch: bool = False


@dataclass(frozen=True, slots=True)
class Figures:
    """A request's money in dollars, rounded to the micro-dollar; `baseline - cost == saved.total`, exactly."""

    cost: Decimal
    unconfirmed: Decimal
    baseline: Decimal
    saved: Saved
    price_unknown: bool


def figures(attempts: Sequence[Attempt], answering: Attempt | None, measure: Measure | None, reference: Rates | None) -> Figures:
    """The figures of one ending.

    Args:
        attempts: all attempts of the request.
        answering: the one of them that gave the answer; None on a cache hit, and without an answer.
        measure: of the answer; None without one.
        reference: the reference model's rates; None: unknown.
    """
    stretch = _stretch(measure.tokens) if measure else 1
    exact: Any = Decimal if stretch == 1 else Fraction  # the two do not add up
    v4 = exact(_total(a.cost for a in attempts if a.state == "settled"))
    if measure is None:
        v0, v1, v2, v3 = Decimal(0), v4, v4, v4
    else:
        real, original = (exact(_price(measure.rates, measure.usage, longer)) for longer in (1, stretch))
        v3 = v4 + real - exact(answering.cost) if answering and measure.batch else v4
        v2 = v3 + original - real if answering else v3
        v1 = v2 if answering else v2 + original
        v0 = exact(_price(reference, measure.usage, stretch)) if reference else v1
    baseline, answered, uncached, compressed, cost = map(_to_micros, (v0, v1, v2, v3, v4))
    return Figures(
        cost=cost,
        unconfirmed=_to_micros(_total(a.cost for a in attempts if a.state in ("unconfirmed", "reserved"))),
        baseline=baseline,
        saved=Saved(routing=baseline - answered, cache=answered - uncached, compression=uncached - compressed, batch=compressed - cost),
        price_unknown=any(a.rates is None and a.state != "abandoned" for a in attempts)
        or (measure is not None and (measure.rates is None or reference is None)),
    )


def _price(rates: Rates | None, usage: Usage, stretch: Fraction | int) -> Decimal | Fraction:
    """Exact dollars of `usage` with its input made longer by `stretch`; its output stays. Long input is priced as the long input it is."""
    if rates is None:
        return Decimal(0)
    if stretch == 1:
        return rates.cost(usage)
    rates = rates.at(usage.input_tokens * stretch)
    return Fraction(rates.input_cost(usage)) * stretch + Fraction(rates.output_cost(usage))


def _stretch(tokens: TokensAround | None) -> Fraction | int:
    return Fraction(tokens.before, tokens.after) if tokens and 0 < tokens.after != tokens.before else 1


def _total(costs: Iterable[Decimal]) -> Decimal:
    return sum(costs, Decimal(0))


def _to_micros(dollars: Decimal | Fraction) -> Decimal:
    return round(dollars * _MICROS) * MICRO  # round() is half-even, of either
