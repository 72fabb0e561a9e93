"""`python -m tests.unit.ledger.budgets.dying URL LOG POINT`: one delivery of one request through `call` and its ending, by a process that
kills itself at POINT (opened, called, settled, ended). The provider is a log file; a line is a call that was billed."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from schemas import Usage
from tests.unit.call.build import event, policy
from workers.attribute.statement import Prices, statement
from workers.call.call import make_call
from workers.call.failures import Failure
from workers.call.kept import Kept
from workers.call.provider import Reply
from workers.call.rest import Rests
from workers.call.slots import Slots
from workers.ledger import prices
from workers.ledger.ledger import Ledger
from workers.ledger.types import Answer, Ask, Ending, Opened, Settled, Settlement, Stored
from workers.outcomes import End, Outcome
from workers.policy import Policy

POLICY: Policy = policy(budgets=[{"scope": {}, "window": "month", "limit_usd": 1}])
REQUEST = event(deadline_s=3600)


async def deliver(ledger: Ledger, log: Path, at: Callable[[str], None] = lambda _: None) -> Outcome | bytes:
    """The bytes of the ending, or what the stage says instead. `at` is told of every point."""

    async def open_(ask: Ask) -> Opened:
        (answer,) = await ledger.open([ask])
        at("opened")
        return answer

    async def complete(*_: Any, **__: Any) -> Reply | Failure:
        with log.open("a") as lines:
            lines.write("billed\n")
        at("called")
        return Reply(Answer("Ninety-eight centimetres.", None, "stop"), Usage(input_tokens=12, output_tokens=8), estimated=False)

    async def settle(settlement: Settlement) -> Settled:
        (answer,) = await ledger.settle([settlement])
        at("settled")
        return answer

    call = make_call(
        open=open_,
        kept=Kept(settle),
        complete=complete,
        policy=lambda: POLICY,
        rates=prices.rates,
        count=len,
        may_call=lambda: True,
        key=lambda _: None,
        timeout_s=5,
        slots={"interactive": Slots(1), "bulk": Slots(1)},
        rests=Rests(),
    )
    outcome = await call(REQUEST)
    if not isinstance(outcome, End):
        return outcome
    said = outcome.finished
    priced = partial(statement, said, prices=Prices(POLICY, prices.rates, "policy"))
    (closed,) = await ledger.end([Ending(said.facts, said.status, None, said.tier, said.model, said.source, priced)])
    at("ended")
    assert isinstance(closed, Stored)
    return closed.response


def _die_at(point: str) -> Callable[[str], None]:
    return lambda reached: os.kill(os.getpid(), signal.SIGKILL) if reached == point else None


async def _main(url: str, log: str, point: str) -> None:
    ledger = Ledger(url, heartbeat_s=3600, stale_s=600, keep_days=7, pool_size=1, name="victim")
    await ledger.start()
    await deliver(ledger, Path(log), _die_at(point))


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
