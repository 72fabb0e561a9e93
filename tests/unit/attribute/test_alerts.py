"""The rules of the alerts: which counter reached what, who is refused by which budget, what a spike is."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest

from schemas import Finished, Reason
from tests.unit.attribute.books import ended, facts
from workers.attribute.alerts import (
    budget_shares,
    days_before,
    feature_cost_spikes,
    make_alerts,
    make_refusals,
    mean_by_feature,
    refused,
    windows,
)
from workers.ledger.alerts import Finding
from workers.ledger.budgets import window
from workers.ledger.readings import CutOff, Span, Usage
from workers.ledger.types import Rates
from workers.policy import Policy, parse

NOON = datetime(2026, 3, 29, 10, 0, 30, tzinfo=UTC)  # 12:00:30 in Berlin, on the day that has 23 hours


def policy(budgets: str = "", alerts: str = "") -> Policy:
    text = "models: {m: {litellm: a/m, context: 9}}\ntiers: {light: [m]}\nreference: m\ntimezone: Europe/Berlin\n"
    return parse(text + (f"budgets: [{budgets}]\n" if budgets else "") + (f"alerts: {{{alerts}}}" if alerts else ""), "test")


def usage(scope: str, used: Any, unit: Any = "day", kind: Any = "usd") -> Usage:
    return Usage(scope, kind, unit, window(unit, "Europe/Berlin", NOON)[0], used)


EVERY = '{scope: {tenant: "*"}, window: day, limit_usd: 10}'
ACME = "{scope: {tenant: acme}, window: day, limit_usd: 5}"


@pytest.mark.parametrize(
    ("budgets", "counter", "share"),
    [
        (EVERY, usage('{"tenant": "acme"}', Decimal(8)), "0.8000"),
        (EVERY, usage('{"tenant": "acme"}', Decimal("7.9999999999")), None),
        (f"{EVERY}, {ACME}", usage('{"tenant": "acme"}', Decimal(4)), "0.8000"),  # the smaller of two limits decides
        (ACME, usage('{"tenant": "umbrella"}', Decimal(99)), None),
        (ACME, usage('{"tenant": "acme"}', Decimal(99), unit="month"), None),
        (ACME, usage('{"tenant": "acme"}', 99, kind="tokens"), None),
        (ACME, usage('{"tenant": "acme", "user": "u"}', Decimal(99)), None),
        ("{scope: {}, window: day, limit_usd: 1}", usage("{}", Decimal(3)), "3.0000"),  # an overrun
        ("{scope: {}, window: day, limit_usd: 0}", usage("{}", Decimal(3)), None),
        ("{scope: {}, window: hour, limit_tokens: 100}", usage("{}", 85, unit="hour", kind="tokens"), "0.8500"),
    ],
)
def test_the_share_of_a_counter(budgets: str, counter: Usage, share: str | None) -> None:
    found = list(budget_shares([counter], policy(budgets)))
    assert [f.evidence["share"] for f in found] == ([share] if share else [])


def test_of_several_shares_the_highest_that_is_reached() -> None:
    (found,) = budget_shares([usage('{"tenant": "acme"}', Decimal("9.5"))], policy(EVERY, "budget_shares: [0.5, 1.0, 0.9]"))
    assert (found.level, found.about, found.window, found.scope) == (9000, "usd", "day", {"tenant": "acme"})
    day = {"window": "day", "starts_at": "2026-03-28T23:00:00Z", "ends_at": "2026-03-29T22:00:00Z"}
    assert found.evidence == {"used_usd": "9.5", "limit_usd": "10", "share": "0.9500", "level": "0.9"} | day


def test_no_shares_no_alerts() -> None:
    none = policy(EVERY, "budget_shares: []")
    assert list(budget_shares([usage('{"tenant": "acme"}', Decimal(99))], none)) == []
    assert refused(refusal(), none) is None


def refusal(code: Any = "budget_exceeded", limit: Any = "10", unit: Any = "day", **more: Any) -> Finished:
    resets_at = window(unit, "Europe/Berlin", NOON)[1]
    reason = Reason(code=code, message="full", scope=more.pop("scope", {"tenant": "acme"}), limit=limit, used="0", resets_at=resets_at)
    return Finished(facts=facts(), status="rejected", reason=reason, **more)


def test_who_is_refused_has_reached_every_share() -> None:
    """Also with nothing spent: there may be no room for a single call."""
    found = refused(refusal(), policy(EVERY, "budget_shares: [0.5, 1.0]"))
    assert found is not None
    assert (found.kind, found.scope, found.level, found.starts_at) == (
        "budget_share",
        {"tenant": "acme"},
        10_000,
        window("day", "Europe/Berlin", NOON)[0],
    )


@pytest.mark.parametrize(
    "event",
    [
        refusal(limit="11"),  # an older policy's
        refusal(unit="hour"),
        refusal(scope={"feature": "support"}),
        refusal(code="quota_exceeded", limit=10),
        ended("expired", "deadline_passed"),
        ended("failed", "internal"),
    ],
)
def test_what_no_budget_of_this_policy_refused(event: Finished) -> None:
    assert refused(event, policy(EVERY)) is None


def test_tokens_are_refused_too() -> None:
    found = refused(
        refusal(code="quota_exceeded", limit=500, unit="hour"), policy('{scope: {tenant: "*"}, window: hour, limit_tokens: 500}')
    )
    assert found is not None
    assert (found.about, found.window, found.evidence["limit_tokens"]) == ("tokens", "hour", 500)


class Watch:
    def __init__(self) -> None:
        self.stored: list[Finding] = []

    async def store(self, findings: Sequence[Finding]) -> int:
        self.stored += findings
        return len(findings)


async def test_a_storm_of_refusals_asks_the_ledger_once() -> None:
    watch = Watch()
    refusals = make_refusals(watch, lambda: policy(EVERY))  # type: ignore[arg-type]
    for _ in range(3):
        await refusals([refusal(), refusal(), ended("failed", "internal")])
    assert len(watch.stored) == 1
    await refusals([refusal(scope={"tenant": "umbrella"})])
    assert [f.scope["tenant"] for f in watch.stored] == ["acme", "umbrella"]


def test_windows_that_ended_a_moment_ago_are_looked_at() -> None:
    budgets = ", ".join(f"{{scope: {{}}, window: {unit}, limit_usd: 1}}" for unit in ("minute", "day"))
    found = windows(policy(budgets), NOON)
    starts = sorted(start for unit, start in found if unit == "minute")
    assert starts == [NOON.replace(second=0) - timedelta(minutes=i) for i in (5, 4, 3, 2, 1, 0)]
    assert [start for unit, start in found if unit == "day"] == [datetime(2026, 3, 28, 23, tzinfo=UTC)]


class JustAfterMidnight(Watch):
    """Yesterday's last calls were cut off, and one was made without a price; they are found out only now."""

    def __init__(self, after: timedelta) -> None:
        super().__init__()
        self.at = window("day", "Europe/Berlin", NOON)[0] + after
        self.yesterday = window("day", "Europe/Berlin", self.at - timedelta(hours=1))

    async def now(self) -> datetime:
        return self.at

    async def usage(self, _windows: object) -> list[Any]:
        return []

    async def cut_off(self, day: Span) -> dict[str, CutOff]:
        return {"acme": CutOff(3, Decimal(5))} if day == self.yesterday else {}

    async def unpriced(self, day: Span) -> dict[str, int]:
        return {"secret": 2} if day == self.yesterday else {}

    async def spent_by_feature(self, _day: Span) -> dict[str, Decimal]:
        return {}

    async def unsent(self) -> list[Any]:
        return []


@pytest.mark.parametrize(("after", "told"), [(timedelta(minutes=4), True), (timedelta(minutes=6), False)])
async def test_what_is_found_out_just_after_midnight_is_told_of_yesterday(after: timedelta, *, told: bool) -> None:
    watch = JustAfterMidnight(after)
    current = policy(EVERY)
    rates = Rates(Decimal(1), Decimal(1), Decimal(1), Decimal(1), "policy")

    async def publish(_messages: object) -> None:
        raise AssertionError("nothing is unsent")

    await make_alerts(watch, lambda: current, lambda _model: rates, publish, spikes_every_s=60)()  # type: ignore[arg-type]
    found = {(f.kind, f.starts_at) for f in watch.stored}
    assert found == ({(kind, watch.yesterday[0]) for kind in ("unconfirmed_spend", "price_unknown")} if told else set())


def test_the_days_before_are_days_of_the_clock() -> None:
    days = days_before(window("day", "Europe/Berlin", NOON + timedelta(days=2)), "Europe/Berlin")
    assert len(days) == 14
    assert {(end - start) / timedelta(hours=1) for start, end in days} == {23, 24}
    assert all(late[0] == early[1] for late, early in pairwise(days))


def spikes(today: str, *days: str, factor: float = 2) -> list[Finding]:
    before = [{"digest": Decimal(day)} if day else {} for day in days]
    return list(feature_cost_spikes({"digest": Decimal(today)}, mean_by_feature(before), window("day", "UTC", NOON), factor))


def test_a_spike_is_above_the_factor() -> None:
    assert spikes("2", "1", "1", "1") == []
    (found,) = spikes("2.0000000001", "1", "1", "1")
    assert (found.kind, found.scope, found.evidence["mean_usd"], found.evidence["days"]) == (
        "feature_cost_spike",
        {"feature": "digest"},
        "1",
        3,
    )
    assert spikes("2.1", "1", "1", "1", factor=2.5) == []


def test_the_mean_is_of_seven_days_whatever_was_spent_on_them() -> None:
    """300 dollars on three of seven days are 42.86 a day."""
    days = ("100", "", "100", "", "", "", "100")
    assert spikes("85", *days) == []
    (found,) = spikes("86", *days)
    assert found.evidence["mean_usd"] == "42.8571428571"
    assert spikes("150", *days)


def test_the_mean_of_a_young_feature_is_of_the_days_since_it_was_first_seen() -> None:
    assert spikes("2", "", "", "3") == []
    (found,) = spikes("2.1", "", "", "3")
    assert (found.evidence["mean_usd"], found.evidence["days"]) == ("1", 3)
    assert spikes("2", "1") == []
    assert spikes("2.1", "1")


def test_what_is_older_than_seven_days_makes_a_feature_old_and_its_mean_no_higher() -> None:
    days = ("7", "", "", "", "", "", "", "99")
    assert spikes("2", *days) == []
    (found,) = spikes("2.1", *days)
    assert (found.evidence["mean_usd"], found.evidence["days"]) == ("1", 7)


def test_without_anything_to_compare_with_nothing_is_a_spike() -> None:
    assert spikes("99") == []
    assert spikes("99", "", "", "", "", "", "", "", "1") == []
