"""SIGKILL of `call` at four points, sent by the process to itself, with others' requests under way; then a fresh process.

Nothing is lost, nobody is charged twice, and what a call may have cost unseen stands in the books. An answer that was paid goes out, though
its deadline is over when the fresh process finds it.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.kafka.asking import question, questions
from tests.kafka.books import account
from tests.kafka.dying import POINTS
from tests.kafka.fleet import Fleet
from tests.kafka.topics import Topics

STAGES = ("classify", "cache", "compress", "attribute")

DYING = Path(__file__).with_name("dying.py")


@dataclass(frozen=True)
class Left:
    """What a death at this point leaves in the books for its own request, and with the provider."""

    states: list[str]
    calls: int


LEFT = {
    "before_open": Left(["settled"], calls=1),
    "after_open": Left(["unconfirmed", "settled"], calls=1),
    "before_settle": Left(["unconfirmed", "settled"], calls=2),
    "after_settle": Left(["settled"], calls=1),
}


@pytest.mark.parametrize("point", POINTS)
async def test_sigkill_of_call(point: str, fleet: Fleet, topics: Topics, tenant: str) -> None:
    fleet.provider.latency(0.2)
    mortal = (sys.executable, "-P", str(DYING), str(fleet.folder))
    if not fleet.running("call"):
        await asyncio.to_thread(fleet.start, "call", by=mortal, call__window=4)
    others = questions(tenant, 12)
    deadline = datetime.now(UTC) + (timedelta(seconds=10) if point == "after_settle" else timedelta(seconds=120))
    fatal = question(tenant, f"die-{point}-1", deadline_at=deadline.isoformat())

    await topics.ask(*others[:6], fatal, *others[6:])
    assert await asyncio.to_thread(fleet.processes["call"].ended, 60) == -signal.SIGKILL
    if point == "after_settle":
        await asyncio.sleep((deadline - datetime.now(UTC)).total_seconds())
    await asyncio.to_thread(fleet.start, "call", by=mortal, call__window=4)

    accounts = await account(fleet, topics, [fatal, *others])
    for name, one in accounts.items():
        assert (one.response["status"], one.row.sent.count("settled")) == ("answered", 1), f"{name}: {one.row}"
        assert one.response["attempts"] == len(one.row.sent), name
        assert one.calls <= 2, f"{name}: a death repeats a call at most once"
    died = accounts[fatal["request_id"]]
    assert (died.row.sent, died.calls) == (LEFT[point].states, LEFT[point].calls)
