"""Whatever happens to a ledger by its own verbs, its books are right: zombies, write-offs, revisions, repeats, purges, erasure."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import sqlalchemy as sa
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from schemas import Usage
from tests.unit.ledger.history import ENDINGS, PRICES, asked, ended, settled
from tests.unit.ledger.scenario import HELLO, execute, facts, hold
from workers.ledger.database import Database, make_engine
from workers.ledger.forget import Person, forget
from workers.ledger.ledger import Ledger
from workers.ledger.tables import worker
from workers.ledger.types import Ask, Granted
from workers.ledger.verify import verify

R = TypeVar("R")

IDS = st.sampled_from(["r1", "r2", "r3", "r4"])
WORKERS = st.integers(0, 1)
TOKENS = st.integers(0, 1000)
USAGE = st.builds(
    Usage, input_tokens=TOKENS, cached_input_tokens=TOKENS, cache_write_tokens=TOKENS, output_tokens=TOKENS, reasoning_tokens=TOKENS
)
A_MONTH = 31 * 86_400.0


class Machine(RuleBasedStateMachine):
    url = ""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.engine = make_engine(self.url, 1)
        self.ledgers: list[Ledger] = []
        self.asked: dict[tuple[str, int], Ask] = {}
        self.purged = False

    def run(self, work: Coroutine[Any, Any, R]) -> R:
        return self.runner.run(work)

    @initialize()
    def two_workers(self) -> None:
        for table in ("attempt", "request", "budget_usage", "price", "worker"):
            self.run(execute(self.engine, f"DELETE FROM {table}"))
        for name in ("a", "b"):
            ledger = Ledger(self.url, heartbeat_s=3600, stale_s=600, keep_days=0, pool_size=1, name=name)
            self.ledgers.append(ledger)
            self.run(ledger.start())

    def teardown(self) -> None:
        for ledger in self.ledgers:
            self.run(ledger.close())
        self.run(self.engine.dispose())
        self.runner.close()

    @rule(
        me=WORKERS,
        request_id=IDS,
        micros=st.integers(0, 2000),
        tokens=TOKENS,
        rates=st.sampled_from(PRICES),
        after=st.integers(0, 4),
        expired=st.booleans(),
    )
    def open(self, me: int, request_id: str, micros: int, tokens: int, rates: Any, after: int, expired: bool) -> None:
        holds = (hold("0.01"), hold(100_000, {}, "day"), hold("1", {"user": "u"}, "minute"), hold("2", {}, "hour"))
        ttl = 0.0 if expired else 300.0
        one = asked(request_id, f"{micros}e-6", tokens, *holds, rates=rates, user="u", after=after, ttl_s=ttl, max_attempts=4)
        (answer,) = self.run(self.ledgers[me].open([one]))
        if isinstance(answer, Granted):
            self.asked[request_id, answer.n] = one

    @rule(
        me=WORKERS,
        request_id=IDS,
        n=st.integers(1, 4),
        used=USAGE,
        state=st.sampled_from(["settled", "settled", "settled", "unconfirmed", "abandoned"]),
        verdict=st.sampled_from(["accepted", "escalate", "error"]),
        estimated=st.booleans(),
    )
    def settle(self, me: int, request_id: str, n: int, used: Usage, state: str, verdict: str, estimated: bool) -> None:
        if one := self.asked.get((request_id, n)):
            said = {"verdict": verdict, "outcome": verdict, "answer": None if verdict == "error" else HELLO, "estimated": estimated}
            self.run(self.ledgers[me].settle([settled(one, n, used, state=state, **said)]))

    @rule(me=WORKERS, request_id=IDS, how=st.sampled_from(ENDINGS))
    def end(self, me: int, request_id: str, how: str) -> None:
        self.run(self.ledgers[me].end([ended(facts(request_id, user="u"), how)]))

    @rule(me=WORKERS)
    def fall_silent(self, me: int) -> None:
        hour_ago = datetime.now(UTC) - timedelta(hours=1)  # a day, and its row would be purged
        self.run(execute(self.engine, sa.update(worker).where(worker.c.id == self.ledgers[me].owner).values(beat=hour_ago)))

    @rule(me=WORKERS)
    def come_back(self, me: int) -> None:
        self.run(self.ledgers[me]._heartbeat.beat())

    @rule(me=WORKERS, publishes=st.booleans())
    def sweep(self, me: int, publishes: bool) -> None:
        revised = self.run(self.ledgers[me].sweep())
        if publishes:
            self.run(self.ledgers[me].published(revised))

    @rule(me=WORKERS)
    def purge(self, me: int) -> None:
        self.run(self.ledgers[me].purge())
        self.purged = True

    @rule()
    def forget(self) -> None:
        self.run(self.forget_the_user())

    async def forget_the_user(self) -> None:
        database = Database(self.url, 1)
        await forget(database, Person("acme", "u"))
        await database.close()

    @invariant()
    def the_books_are_right(self) -> None:
        if self.ledgers:
            found = self.run(verify(self.url, stale_s=600, grace_s=A_MONTH, keep_days=0 if self.purged else 7))
            assert found.problems == []


def test_any_history_of_the_verbs_leaves_the_books_right(url: str) -> None:
    machine = type("Machine", (Machine,), {"url": url})
    examples = 15 if url.startswith("sqlite") else 3  # to look at the books after every step takes a connection of its own
    run_state_machine_as_test(machine, settings=settings(max_examples=examples, stateful_step_count=25, deadline=None))
