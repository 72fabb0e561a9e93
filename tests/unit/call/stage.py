"""The stage as tests drive it: through real LiteLLM and a real ledger; and its endings, read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from schemas import Compressed, Finished
from schemas.types import LANES
from tests.provider import Provider
from workers.call.call import make_call
from workers.call.kept import Kept
from workers.call.provider import Client
from workers.call.rest import Rests
from workers.call.slots import Slots
from workers.encoder import tokens
from workers.ledger import prices
from workers.ledger.ledger import Ledger
from workers.ledger.types import (
    Ask,
    Attempt,
    Conflict,
    Ended,
    Granted,
    Held,
    Opened,
    Settled,
    Settlement,
)
from workers.outcomes import End, Outcome, Unavailable
from workers.policy import Policy


@dataclass
class Stage:
    """The stage and what surrounds it; every part can be swapped before a call."""

    client: Client
    ledger: Ledger
    policy: Policy
    may_call: Callable[[], bool] = lambda: True
    timeout_s: float = 5
    settled: list[Settlement] = field(default_factory=list)
    asked: list[Ask] = field(default_factory=list)
    observed: list[tuple[str, str]] = field(default_factory=list)
    overran: list[tuple[str, str]] = field(default_factory=list)
    scripted: list[Opened] = field(default_factory=list)
    """Answers of `open` that stand in for the ledger's."""
    away: int = 0
    """How often the ledger cannot be reached at the next settlements."""

    def __post_init__(self) -> None:
        self.kept, self.rests = Kept(self.settle), Rests()
        self.slots = {lane: Slots(8) for lane in LANES}
        self.complete: Callable[..., Any] = lambda *args, **options: self.client.complete(*args, **options)
        self.gate, self.settles = asyncio.Event(), asyncio.Event()
        self.gate.set()
        self.call = make_call(
            open=lambda ask: self.open(ask),
            kept=self.kept,
            complete=lambda *args, **options: self.complete(*args, **options),
            policy=lambda: self.policy,
            rates=prices.rates,
            count=tokens.count,
            may_call=lambda: self.may_call(),
            key=lambda _: None,
            timeout_s=self.timeout_s,
            slots=self.slots,
            rests=self.rests,
            observe=lambda model, outcome: self.observed.append((model, outcome)),
            overran=lambda model, why: self.overran.append((model, why)),
        )

    async def __call__(self, asked: Compressed) -> Outcome:
        return await self.call(asked)

    async def open(self, ask: Ask) -> Opened:
        self.asked.append(ask)
        return self.scripted.pop(0) if self.scripted else (await self.ledger.open([ask]))[0]

    async def settle(self, settlement: Settlement) -> Settled:
        self.settles.set()
        await self.gate.wait()
        if self.away:
            self.away -= 1
            raise Unavailable("ledger", "gone")
        self.settled.append(settlement)
        return (await self.ledger.settle([settlement]))[0]

    async def attempts(self, asked: Compressed) -> tuple[Attempt, ...]:
        """The rows of a request: an `open` that cannot be granted shows them."""
        ask = replace(self.asked[-1], facts=asked.facts, max_attempts=0, after=99, seq=10**6)
        shown = (await self.ledger.open([ask]))[0]
        assert not isinstance(shown, Granted | Held | Ended | Conflict)
        return shown.attempts


def finished(outcome: Outcome) -> Finished:
    assert isinstance(outcome, End), outcome
    return outcome.finished


def reason(outcome: Outcome) -> tuple[str, str]:
    ended = finished(outcome)
    assert ended.reason is not None
    assert ended.content is None
    return ended.status, ended.reason.code


async def in_the_books(stage: Stage, server: Provider, asked: Compressed) -> list[tuple[str, str, str | None]]:
    """(model, state, outcome) of every attempt, after a look that the provider saw those that were sent, and no other."""
    rows = await stage.attempts(asked)
    sent = [stage.policy.models[a.model].litellm.partition("/")[2] for a in rows if a.state != "abandoned"]
    assert [c.model for c in server.calls] == sent
    assert all(c.max_tokens for c in server.calls)
    return [(a.model, a.state, a.outcome) for a in rows]
