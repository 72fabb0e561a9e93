"""`python -m tests.unit.ledger.budgets.forks`: worker processes that use the ledger and may be killed.

For each line of JSON on standard input, a `Job`, it forks a process, which is cheap since everything is imported already. Standard output
tells of each: its pid, how far it is after every batch, its end. The dead are not waited for, so a pid stays theirs. All die with this
process, which ends with its input. A worker that is started again at an earlier place does what a redelivery does.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import random
import signal
import sys
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import TypeVar

from tests.unit.ledger.scenario import ask, hold, settlement
from workers.attribute.attribute import failed_internal
from workers.attribute.statement import Prices, statement
from workers.ledger.ledger import Ledger
from workers.ledger.types import Ask, Ending, Granted, Hold, Opened, Rates, Refused, Settlement
from workers.outcomes import Unavailable
from workers.policy import load

BATCH = 64
CENT = Rates(*[Decimal(10_000)] * 4, source="policy")
"""A token costs a cent, so that the books can be priced again from their tokens."""
PRICES = Prices(load(None), rates=lambda _: CENT, price_map="policy")
TENANTS = ("acme", "acme", "acme", "beta", "gamma")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Job:
    url: str
    name: str
    requests: int
    limits: dict[str, str | int]
    """Limit by scope (JSON; `*` as in the policy): dollars as text, tokens as a number."""
    size: int | None = None
    """Cents, and tokens, of every call; None: 1 to 99 at random."""
    settles: bool = False
    """False: everything that is granted stays reserved."""
    start: int = 0
    """The first request to ask for; those before it are done."""
    heartbeat_s: float = 5
    stale_s: float = 60


@dataclass(slots=True)
class Said:
    """A line about a worker."""

    name: str
    pid: int
    done: int
    granted: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    """By what the scope of the full budget names, such as `tenant+user`."""
    ended: bool = False
    error: str | None = None


class Forks:
    """The processes, as a test sees them."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    def fork(self, job: Job) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asdict(job)).encode() + b"\n")

    async def said(self) -> Said:
        """The next line. A worker that fell over is a failure of the test."""
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        assert line, "the forks are gone"
        said = Said(**json.loads(line))
        assert said.error is None, said.error
        return said


@asynccontextmanager
async def forks() -> AsyncIterator[Forks]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.unit.ledger.budgets.forks"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[4],
    )
    assert process.stdin is not None
    try:
        yield Forks(process)
    finally:
        process.stdin.close()
        await process.communicate()


# ---- on the other side


def main() -> None:
    for line in sys.stdin:
        if os.fork() == 0:
            _die_with_the_parent()
            _be(Job(**json.loads(line)))


def _be(job: Job) -> None:
    said = Said(job.name, os.getpid(), job.start)
    _say(said)
    try:
        asyncio.run(_work(job, said))
        said.ended = True
    except BaseException:  # noqa: BLE001 -- the test is told, whatever it is
        said.error = traceback.format_exc()
    _say(said)
    os._exit(0)


async def _work(job: Job, said: Said) -> None:
    ledger = Ledger(job.url, heartbeat_s=job.heartbeat_s, stale_s=job.stale_s, keep_days=7, pool_size=1, name=job.name)
    await _insist(ledger.start)
    while said.done < job.requests:
        rnd = random.Random(f"{job.name}/{said.pid}/{said.done}")
        numbers = range(said.done, min(said.done + BATCH, job.requests))
        asks = [_ask(job, f"{job.name}-{i}", rnd) for i in numbers]
        answers = await _insist(lambda: ledger.open(asks))  # noqa: B023 -- awaited here
        if job.settles:
            await _live(ledger, asks, answers, rnd)
        said.done = numbers.stop
        said.granted += sum(isinstance(a, Granted) for a in answers)
        for answer in answers:
            if isinstance(answer, Refused):
                named = "+".join(sorted(answer.scope))
                said.refused[named] = said.refused.get(named, 0) + 1
        _say(said)
    await ledger.close()


def _ask(job: Job, request_id: str, rnd: random.Random) -> Ask:
    of = random.Random(request_id)  # a redelivered request is of the same people
    who = {"tenant": of.choice(TENANTS), "user": f"u{of.randrange(20)}"}
    cents = job.size or rnd.randint(1, 99)
    holds = _holds(job, who)
    rnd.shuffle(holds)
    return ask(request_id, str(Decimal(cents) / 100), cents, *holds, **who, rates=CENT, max_attempts=50)


def _holds(job: Job, who: dict[str, str]) -> list[Hold]:
    scopes = {text: {name: who[name] if value == "*" else value for name, value in json.loads(text).items()} for text in job.limits}
    return [hold(limit, scopes[text]) for text, limit in job.limits.items()]


async def _live(ledger: Ledger, asks: list[Ask], answers: list[Opened], rnd: random.Random) -> None:
    """Settle most of what was granted, at no more than was reserved; leave the rest as a call that is still under way."""
    granted = [(one, answer.n) for one, answer in zip(asks, answers, strict=True) if isinstance(answer, Granted)]
    settlements = {one.facts.key: _settlement(one, n, rnd) for one, n in granted if rnd.random() < 0.9}
    todo = [*settlements.values(), *list(settlements.values())[:3]]
    rnd.shuffle(todo)
    endings = [_ending(one) for one, _ in granted if one.facts.key in settlements and rnd.random() < 0.3]
    await _insist(lambda: ledger.settle(todo))
    await _insist(lambda: ledger.end(endings))


def _ending(one: Ask) -> Ending:
    finished = failed_internal(one.facts)
    return Ending(one.facts, finished.status, "internal", None, None, None, partial(statement, finished, prices=PRICES))


def _settlement(one: Ask, n: int, rnd: random.Random) -> Settlement:
    state = rnd.choice(["settled"] * 6 + ["unconfirmed", "abandoned"])
    tokens, verdict = rnd.randint(0, one.tokens), rnd.choice(["accepted", "escalate", "error"])
    return settlement(one.facts.request_id, n, str(Decimal(tokens) / 100), tokens, tenant=one.facts.tenant, state=state, verdict=verdict)


async def _insist(verb: Callable[[], Awaitable[R]]) -> R:
    while True:
        try:
            return await verb()
        except Unavailable:
            await asyncio.sleep(0.05)


def _say(said: Said) -> None:
    os.write(1, json.dumps(asdict(said)).encode() + b"\n")


def _die_with_the_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


if __name__ == "__main__":
    main()
