"""The ledger's vocabulary: what its three verbs are asked and what they answer. No I/O, no SQL.

Money is `Decimal` dollars here and an integer of 1e-10 dollars in the databases.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from decimal import ROUND_HALF_EVEN, Decimal
from fractions import Fraction
from typing import Any, Literal, Protocol

from schemas import Facts, Saved, Usage
from schemas.cost import AttemptState
from schemas.types import Source, Status, Tier

UNIT = Decimal("1e-10")
"""One unit of the databases' money columns, in dollars."""

Verdict = Literal["accepted", "escalate", "error", "context"]
"""What the cascade made of a settled attempt. accepted: the answer goes out. escalate: it failed its quality check. error: the provider
answered with an error, or the call broke. context: the prompt did not fit the model's window."""


def to_units(dollars: Decimal) -> int:
    """Exact dollars as integer units, rounded half-even (a rate per million times tokens can have more than ten decimals)."""
    return int((dollars / UNIT).to_integral_value(ROUND_HALF_EVEN))


def to_dollars(units: int) -> Decimal:
    return units * UNIT


@dataclass(frozen=True, slots=True)
class Rates:
    """Dollars per million tokens that a model's attempts are priced at. `source` says whence: `policy`, or the price map."""

    input: Decimal
    cached_input: Decimal
    cache_write: Decimal
    output: Decimal
    source: str
    reasoning: Decimal | None = None
    """None: reasoning tokens cost what output costs."""
    above: tuple[tuple[int, Rates], ...] = ()
    """Long-context prices, ascending: a request of more input tokens than the threshold is priced at these rates as a whole."""

    def at(self, input_tokens: Fraction | int) -> Rates:
        """The rates of a request of so many input tokens."""
        return next((rates for threshold, rates in reversed(self.above) if input_tokens > threshold), self)

    def input_cost(self, usage: Usage) -> Decimal:
        """Exact dollars of the prompt, at these rates. `input_tokens` includes cached and written ones, which have rates of their own."""
        fresh = usage.input_tokens - usage.cached_input_tokens - usage.cache_write_tokens
        total = max(fresh, 0) * self.input + usage.cached_input_tokens * self.cached_input + usage.cache_write_tokens * self.cache_write
        return total / 1_000_000

    def output_cost(self, usage: Usage) -> Decimal:
        """Exact dollars of what the model wrote, at these rates. `output_tokens` includes reasoning."""
        reasoning = min(usage.reasoning_tokens, usage.output_tokens)
        total = (usage.output_tokens - reasoning) * self.output
        total += reasoning * (self.output if self.reasoning is None else self.reasoning)
        return total / 1_000_000

    def cost(self, usage: Usage) -> Decimal:
        """Exact dollars of one request."""
        rates = self.at(usage.input_tokens)
        return rates.input_cost(usage) + rates.output_cost(usage)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model said. Stored with its attempt, so that a redelivery re-emits it instead of paying again."""

    content: str | None = field(repr=False)
    tool_calls: tuple[dict[str, Any], ...] | None = field(repr=False)
    finish_reason: str | None


@dataclass(frozen=True, slots=True)
class Hold:
    """One budget that a reservation must fit: a scope's counter in one window."""

    scope: str
    """Canonical JSON of the scope with its values, e.g. `{"tenant": "acme"}`; `{}` is the whole fleet."""
    kind: Literal["usd", "tokens"]
    window: Literal["minute", "hour", "day", "month"]
    timezone: str
    limit: Decimal | int
    """From the policy at this moment; never stored, so an edited policy changes no usage."""
    degrade_at: float | None = None
    waits: bool = False
    """When it is full, the bulk lane waits for its next window."""


@dataclass(frozen=True, slots=True)
class Ask:
    """`open`: may I make this call?"""

    facts: Facts
    tier: Tier
    model: str
    provider: str
    rates: Rates | None
    """None: the price is unknown; the attempt is flagged and counted."""
    usd: Decimal
    """Worst case of the call."""
    tokens: int
    holds: tuple[Hold, ...]
    after: int
    """Number of attempts whose verdicts the caller knows."""
    max_attempts: int
    ttl_s: float
    """A live owner that forgets its attempt must not hold it for ever."""
    seq: int
    """Names the asker inside its process, so that a resent `open` gets the same grant."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One row as the cascade and the books see it."""

    n: int
    tier: Tier
    model: str
    provider: str
    state: AttemptState
    usage: Usage
    cost: Decimal
    """Exact dollars: real when settled, the worst case when unconfirmed, 0 when abandoned or reserved."""
    rates: Rates | None
    verdict: Verdict | None
    outcome: str | None
    """A word for people and metrics: accepted, refusal, truncated, rate_limited, …"""
    answer: Answer | None
    estimated: bool = False


@dataclass(frozen=True, slots=True)
class Granted:
    """Attempt `n` is yours: make the call, then settle it."""

    n: int
    attempts: tuple[Attempt, ...]


@dataclass(frozen=True, slots=True)
class Answered:
    """There are attempts with a verdict that the caller did not know (a redelivery): take them into account and ask again if need be."""

    attempts: tuple[Attempt, ...]


@dataclass(frozen=True, slots=True)
class Held:
    """Another live worker has it. Ask again in `seconds`."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Ended:
    """The request has its ending. `attribute` publishes the stored response again."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A budget is full. Nothing was reserved in any scope."""

    kind: Literal["usd", "tokens"]
    scope: dict[str, str]
    limit: Decimal | int
    used: Decimal | int
    resets_at: datetime
    degrade: bool
    """The budget is only past its `degrade_at`: a cheaper tier may still fit."""
    attempts: tuple[Attempt, ...]
    waits: bool = False
    """The bulk lane may wait until `resets_at`: the policy says so, and an empty window has room for this call."""


@dataclass(frozen=True, slots=True)
class Exhausted:
    """`max_attempts` rows exist, without the abandoned ones: they never left."""

    attempts: tuple[Attempt, ...]


@dataclass(frozen=True, slots=True)
class Late:
    """A call could be granted, but the deadline has passed by the database's clock: none starts."""

    attempts: tuple[Attempt, ...]


@dataclass(frozen=True, slots=True)
class Conflict:
    """The id belongs to another body."""


Opened = Granted | Answered | Held | Ended | Refused | Exhausted | Late | Conflict


@dataclass(frozen=True, slots=True)
class Settlement:
    """`settle`: what the call really cost, what it said, and what the cascade makes of it."""

    tenant: str
    request_id: str
    n: int
    usage: Usage
    cost: Decimal
    verdict: Verdict
    outcome: str
    answer: Answer | None
    estimated: bool = False
    state: Literal["settled", "unconfirmed", "abandoned"] = "settled"
    """unconfirmed: cut off (time-out, broken connection), booked at its worst case. abandoned: known not to have been sent."""


@dataclass(frozen=True, slots=True)
class Settled:
    before: AttemptState | None
    """reserved | unconfirmed: booked now; settled | abandoned: a repeat; None: no such attempt."""
    overrun: bool
    """It cost more than its reservation."""


@dataclass(frozen=True, slots=True)
class Books:
    """What an ending is priced from: the attempts of the request at the moment of its ending."""

    attempts: tuple[Attempt, ...]
    ended_at: datetime
    revision: int


@dataclass(frozen=True, slots=True)
class Statement:
    """What an ending comes to: the bytes to publish and the figures to keep."""

    response: bytes = field(repr=False)
    cost_record: bytes
    cost: Decimal
    unconfirmed: Decimal
    baseline: Decimal
    saved: Saved


@dataclass(frozen=True, slots=True)
class Ending:
    """`end`: this is how the request ended. `state` builds the statement from the books, without I/O."""

    facts: Facts
    status: Status
    reason_code: str | None
    tier: Tier | None
    model: str | None
    source: Source | None
    state: Callable[[Books], Statement] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Stored:
    """The first ending of this body: these bytes are published, now and on every repeat."""

    response: bytes = field(repr=False)
    cost_record: bytes
    first: bool
    """True when this call stored it; False for a repeat."""


@dataclass(frozen=True, slots=True)
class Used:
    """The id was used and its response has been purged."""


Closed = Stored | Conflict | Used


@dataclass(frozen=True, slots=True)
class Revised:
    """A stored CostRecord whose newer revision has not been published."""

    tenant: str
    request_id: str
    revision: int
    cost_record: bytes


class LedgerPort(Protocol):
    """What the stages need of the ledger. Every method raises `Unavailable("ledger", …)` when the database cannot be reached."""

    async def open(self, asks: list[Ask]) -> list[Opened]: ...

    async def settle(self, settlements: list[Settlement]) -> list[Settled]: ...

    async def end(self, endings: list[Ending]) -> list[Closed]: ...


class SweepPort(Protocol):
    """What the sweep needs of the ledger."""

    async def sweep(self) -> list[Revised]:
        """Attempts of stale owners become unconfirmed; the revisions that were not published yet."""
        ...

    async def published(self, revised: list[Revised]) -> None:
        """Note that these revisions are out."""
        ...
