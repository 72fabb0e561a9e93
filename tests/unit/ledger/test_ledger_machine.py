"""Any sequence of verbs, by two workers, against a model: the answers are the model's, and the counters are the sums of the rows."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from tests.unit.ledger.scenario import ask, drift, ending, execute, hold, settlement, silence
from workers.ledger.database import make_engine
from workers.ledger.ledger import Ledger
from workers.ledger.types import (
    Answered,
    Conflict,
    Ended,
    Exhausted,
    Granted,
    Held,
    Refused,
    Stored,
    Used,
    to_units,
)

R = TypeVar("R")

IDS = st.sampled_from(["r1", "r2", "r3"])
BODIES = st.sampled_from(["body", "body", "body", "other"])
WORKERS = st.integers(0, 1)
CENTS = st.integers(0, 40)
LIMIT = 100
MAX_ATTEMPTS = 3


@dataclass
class Try:
    """The model's attempt."""

    owner: int
    cents: int
    expired: bool
    state: str = "reserved"
    verdict: str | None = None
    spent: int = 0


@dataclass
class Asked:
    """The model's request."""

    body: str
    tries: list[Try] = field(default_factory=list)
    response: str | None = None
    purged: bool = False


class Machine(RuleBasedStateMachine):
    url = ""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.engine = make_engine(self.url, 1)
        self.ledgers: list[Ledger] = []
        self.silent: set[int] = set()
        self.requests: dict[str, Asked] = {}

    def run(self, work: Coroutine[Any, Any, R]) -> R:
        return self.runner.run(work)

    @initialize()
    def two_workers(self) -> None:
        for table in ("attempt", "request", "budget_usage", "worker"):
            self.run(execute(self.engine, f"DELETE FROM {table}"))
        for name in ("a", "b"):
            ledger = Ledger(self.url, heartbeat_s=3600, stale_s=600, keep_days=7, pool_size=1, name=name)
            self.ledgers.append(ledger)
            self.run(ledger.start())

    def teardown(self) -> None:
        for ledger in self.ledgers:
            self.run(ledger.close())
        self.run(self.engine.dispose())
        self.runner.close()

    def lost(self, one: Try) -> bool:
        return one.state == "reserved" and (one.expired or one.owner in self.silent)

    def write_off(self, request: Asked) -> None:
        for one in request.tries:
            if self.lost(one):
                one.state, one.spent = "unconfirmed", one.cents

    @property
    def used(self) -> int:
        return sum(one.cents if one.state == "reserved" else one.spent for r in self.requests.values() for one in r.tries)

    @rule(me=WORKERS, request_id=IDS, body=BODIES, cents=CENTS, after=st.integers(0, 3), expired=st.booleans())
    def open(self, me: int, request_id: str, body: str, cents: int, after: int, expired: bool) -> None:
        asked = ask(
            request_id,
            f"{cents / 100}",
            cents,
            hold("1"),
            hold(10_000, {}),
            body=body,
            after=after,
            max_attempts=MAX_ATTEMPTS,
            ttl_s=0.0 if expired else 300.0,
        )
        (answer,) = self.run(self.ledgers[me].open([asked]))
        request = self.requests.setdefault(request_id, Asked(body))
        if request.response is None:
            self.write_off(request)  # for whoever asks
        if request.body != body:
            expected: type = Conflict
        elif request.response is not None:
            expected = Ended
        elif any(one.state == "reserved" for one in request.tries):
            expected = Held
        elif any(
            one.state in ("settled", "unconfirmed") and one.verdict is not None and (one.verdict == "accepted" or n > after)
            for n, one in enumerate(request.tries, start=1)
        ):
            expected = Answered
        elif sum(one.state != "abandoned" for one in request.tries) >= MAX_ATTEMPTS:
            expected = Exhausted
        elif self.used + cents > LIMIT:
            expected = Refused
        else:
            expected = Granted
        assert type(answer) is expected
        if isinstance(answer, Granted | Answered | Exhausted | Refused):
            assert [a.state for a in answer.attempts] == [one.state for one in request.tries]
        if isinstance(answer, Granted):
            request.tries.append(Try(me, cents, expired))
            assert answer.n == len(request.tries)

    @rule(
        me=WORKERS,
        request_id=IDS,
        n=st.integers(1, 3),
        cents=st.integers(0, 60),
        state=st.sampled_from(["settled", "settled", "unconfirmed", "abandoned"]),
        verdict=st.sampled_from(["accepted", "escalate", "error"]),
    )
    def settle(self, me: int, request_id: str, n: int, cents: int, state: str, verdict: str) -> None:
        (answer,) = self.run(self.ledgers[me].settle([settlement(request_id, n, f"{cents / 100}", cents, state=state, verdict=verdict)]))
        request = self.requests.get(request_id)
        if request is None or n > len(request.tries):
            assert (answer.before, answer.overrun) == (None, False)
            return
        one = request.tries[n - 1]
        assert answer.before == one.state
        changes = one.state == "reserved" or (one.state == "unconfirmed" and state != "unconfirmed")
        if changes:
            one.state, one.verdict = state, verdict
            one.spent = {"settled": cents, "unconfirmed": one.cents, "abandoned": 0}[state]
        assert answer.overrun == (changes and state == "settled" and cents > one.cents)

    @rule(me=WORKERS, request_id=IDS, body=BODIES, text=st.sampled_from(["one", "two"]))
    def end(self, me: int, request_id: str, body: str, text: str) -> None:
        (answer,) = self.run(self.ledgers[me].end([ending(request_id, text, body=body)]))
        request = self.requests.setdefault(request_id, Asked(body))
        if request.response is None:
            self.write_off(request)
        if request.body != body:
            assert answer == Conflict()
        elif request.purged:
            assert answer == Used()
        else:
            assert isinstance(answer, Stored)
            assert answer.first == (request.response is None)
            request.response = request.response or text
            assert answer.response == request.response.encode()

    @rule(me=WORKERS)
    def fall_silent(self, me: int) -> None:
        self.silent.add(me)
        self.run(silence(self.engine, self.ledgers[me]))

    @rule(me=WORKERS)
    def come_back(self, me: int) -> None:
        self.silent.discard(me)
        self.run(self.ledgers[me]._heartbeat.beat())

    @rule(me=WORKERS)
    def sweep(self, me: int) -> None:
        revised = self.run(self.ledgers[me].sweep())
        for request in self.requests.values():
            self.write_off(request)
        assert {r.request_id for r in revised} <= {i for i, r in self.requests.items() if r.response is not None}
        self.run(self.ledgers[me].published(revised))
        assert self.run(self.ledgers[me].sweep()) == []

    @rule(request_id=IDS)
    def purge(self, request_id: str) -> None:
        request = self.requests.get(request_id)
        if request is not None and request.response is not None:
            request.purged = True
            self.run(execute(self.engine, "UPDATE request SET response = NULL WHERE request_id = :id", id=request_id))

    @invariant()
    def counters_are_the_sums_of_the_rows(self) -> None:
        if not self.ledgers:
            return
        assert self.run(drift(self.engine)) == {}
        rows = self.run(execute(self.engine, "SELECT reserved + spent AS used FROM budget_usage WHERE kind = 'usd'"))
        assert [row.used for row in rows] in ([], [to_units_of(self.used)])

    @invariant()
    def an_ended_request_costs_what_its_attempts_cost(self) -> None:
        for row in self.run(execute(self.engine, "SELECT * FROM request WHERE status IS NOT NULL")) if self.ledgers else ():
            tries = self.requests[row.request_id].tries
            assert row.cost == to_units_of(sum(one.spent for one in tries if one.state == "settled"))
            assert row.baseline - row.cost == row.routing + row.cache + row.compression + row.batch


def to_units_of(cents: int) -> int:
    return to_units(Decimal(cents) / 100)


def test_any_sequence_keeps_the_books(url: str) -> None:
    machine = type("Machine", (Machine,), {"url": url})
    run_state_machine_as_test(machine, settings=settings(max_examples=12, stateful_step_count=25, deadline=None))
