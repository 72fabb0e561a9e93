"""What the metrics learn of an ending."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest
from prometheus_client import REGISTRY

from schemas import Saved
from workers.attribute.attribute import Observed
from workers.cli.stages import _observe

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
LABELS = {"lane": "interactive", "feature": "of-this-test"}


def sample(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def test_the_time_that_a_request_took_is_in_the_histogram_of_its_lane_and_status() -> None:
    labels = {"lane": "interactive", "status": "answered"}

    def taken() -> list[float]:
        return [sample("scrimp_request_seconds_bucket", **labels, le=le) for le in ("2.5", "5.0", "+Inf")]

    before = taken()
    _observe(ANSWERED)
    assert [now - then for now, then in zip(taken(), before, strict=True)] == [0, 1, 1]


def test_dollars_that_may_have_been_spent_are_counted_apart() -> None:
    before = sample("scrimp_unconfirmed_usd_total", **LABELS)
    _observe(ANSWERED)
    assert sample("scrimp_unconfirmed_usd_total", **LABELS) - before == 0.5


@pytest.mark.parametrize(("status", "reason"), [("rejected", "budget_exceeded"), ("expired", "deadline_passed"), ("failed", "internal")])
def test_what_got_no_answer_is_counted_by_its_reason(status: str, reason: str) -> None:
    labels = LABELS | {"status": status, "reason": reason}
    before = sample("scrimp_refused_total", **labels)
    _observe(replace(ANSWERED, status=status, reason=reason))  # type: ignore[arg-type]
    _observe(ANSWERED)
    assert sample("scrimp_refused_total", **labels) - before == 1
