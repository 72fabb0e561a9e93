"""What the metrics learn of an ending, and what the rounds of `attribute` survive."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock

import pytest
from prometheus_client import REGISTRY

from schemas import Saved
from schemas.types import utc_now
from workers.attribute.attribute import Observed
from workers.cli.stages import Parts, _alert, _observe, _sweep
from workers.ledger.alerts import Unsent
from workers.ledger.types import Revised
from workers.policy import parse
from workers.runtime.producer import Outgoing, Unpublishable

ANSWERED = Observed(
    status="answered",
    reason=None,
    lane="interactive",
    feature="of-this-test",
    tier="light",
    model="mini",
    source="model",
    cost=Decimal("0.25"),
    unconfirmed=Decimal("0.5"),
    baseline=Decimal(1),
    saved=Saved(),
    price_unknown=False,
    seconds=3.0,
)
NAMED = {"of-this-test"}
LABELS = {"lane": "interactive", "feature": "of-this-test"}


def sample(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def test_the_time_that_a_request_took_is_in_the_histogram_of_its_lane_and_status() -> None:
    labels = {"lane": "interactive", "status": "answered"}

    def taken() -> list[float]:
        return [sample("scrimp_request_seconds_bucket", **labels, le=le) for le in ("2.5", "5.0", "+Inf")]

    before = taken()
    _observe(ANSWERED, NAMED)
    assert [now - then for now, then in zip(taken(), before, strict=True)] == [0, 1, 1]


def test_dollars_that_may_have_been_spent_are_counted_apart() -> None:
    before = sample("scrimp_unconfirmed_usd_total", **LABELS)
    _observe(ANSWERED, NAMED)
    assert sample("scrimp_unconfirmed_usd_total", **LABELS) - before == 0.5


@pytest.mark.parametrize(("status", "reason"), [("rejected", "budget_exceeded"), ("expired", "deadline_passed"), ("failed", "internal")])
def test_what_got_no_answer_is_counted_by_its_reason(status: str, reason: str) -> None:
    labels = LABELS | {"status": status, "reason": reason}
    before = sample("scrimp_refused_total", **labels)
    _observe(replace(ANSWERED, status=status, reason=reason), NAMED)  # type: ignore[arg-type]
    _observe(ANSWERED, NAMED)
    assert sample("scrimp_refused_total", **labels) - before == 1


@pytest.mark.parametrize("feature", ["made-up", "", None])
def test_a_feature_that_the_policy_does_not_name_is_no_label(feature: str | None) -> None:
    labels = {"lane": "interactive", "feature": "other"}
    before = sample("scrimp_unconfirmed_usd_total", **labels)
    _observe(replace(ANSWERED, feature=feature), NAMED)
    assert sample("scrimp_unconfirmed_usd_total", **labels) - before == 0.5
    assert REGISTRY.get_sample_value("scrimp_unconfirmed_usd_total", labels | {"feature": feature or ""}) is None


class Broker:
    """Refuses the first record it is sent, and takes the next."""

    def __init__(self) -> None:
        self.asked = 0
        self.taken = asyncio.Event()

    async def send(self, records: Sequence[Outgoing]) -> None:
        self.asked += 1
        if self.asked == 1:
            raise Unpublishable("TopicAuthorizationFailedError")
        self.taken.set()


@pytest.mark.parametrize(("task", "what"), [(_alert, "alerts"), (_sweep, "sweep")])
async def test_what_the_broker_refuses_is_counted_and_tried_again(task: Any, what: str, caplog: pytest.LogCaptureFixture) -> None:
    text = "models: {m: {litellm: a/m, context: 9, price: {input: 1, output: 1}}}\ntiers: {light: [m]}\nreference: m\n"
    watch = AsyncMock(**{"now.return_value": utc_now(), "unpriced.return_value": {}, "cut_off.return_value": {}})
    watch.spent_by_feature.return_value = {}
    watch.unsent.return_value = [Unsent("id", "price_unknown", "{}", b"{}")]
    ledger = AsyncMock(watch=watch)
    ledger.sweep.return_value = [Revised("acme", "r-1", 2, b"{}")]
    settings: Any = SimpleNamespace(kafka=SimpleNamespace(topic_prefix=""), attribute=SimpleNamespace(sweep_s=0.01))
    broker = Broker()
    parts = Parts(settings, lambda: parse(text, "test"), broker, ledger=ledger)  # type: ignore[arg-type]
    before = sample("scrimp_rounds_refused_total", what=what)
    running = asyncio.create_task(task(parts))
    taken = asyncio.create_task(broker.taken.wait())
    await asyncio.sleep(0)
    assert REGISTRY.get_sample_value("scrimp_rounds_refused_total", {"what": what}) is not None, "an increase from nothing is none"
    await asyncio.wait([running, taken], return_when=asyncio.FIRST_COMPLETED)
    try:
        assert taken.done(), "the round has stopped"
        assert sample("scrimp_rounds_refused_total", what=what) - before == 1
        assert "TopicAuthorizationFailedError" in caplog.text
    finally:
        running.cancel()
        taken.cancel()
