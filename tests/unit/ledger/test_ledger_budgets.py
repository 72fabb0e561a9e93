"""Which budgets apply, and the windows they count in."""

from __future__ import annotations

import itertools
import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from schemas import Facts
from tests.unit.ledger.scenario import facts
from workers.ledger.budgets import Window, holds, window
from workers.policy import Budget, Policy, parse

BASE = """
models: {mini: {litellm: openai/mini, context: 1000, price: {input: 1, output: 2}}}
tiers: {light: [mini], standard: [mini], heavy: [mini]}
reference: mini
timezone: Europe/Berlin
budgets: %s
"""


def policy(*budgets: dict[str, object]) -> Policy:
    return parse(BASE % json.dumps(budgets), "the test")


def asker(**values: str | None) -> Facts:
    return facts().model_copy(update=values)


def scopes(of: Policy, who: Facts) -> list[dict[str, str]]:
    return [json.loads(h.scope) for h in holds(of, who)]


class TestHolds:
    def test_a_named_value_applies_to_it_alone(self) -> None:
        p = policy({"scope": {"tenant": "acme"}, "window": "day", "limit_usd": 5})
        assert scopes(p, asker(tenant="acme")) == [{"tenant": "acme"}]
        assert scopes(p, asker(tenant="beta")) == []

    def test_a_star_counts_each_value_on_its_own(self) -> None:
        p = policy({"scope": {"tenant": "*"}, "window": "day", "limit_usd": 5})
        assert scopes(p, asker(tenant="acme")) == [{"tenant": "acme"}]
        assert scopes(p, asker(tenant="beta")) == [{"tenant": "beta"}]

    def test_the_empty_scope_is_the_fleet(self) -> None:
        p = policy({"scope": {}, "window": "day", "limit_usd": 5})
        assert holds(p, asker(tenant="acme"))[0].scope == holds(p, asker(tenant="beta"))[0].scope == "{}"

    @pytest.mark.parametrize("dimension", ["user", "experiment"])
    def test_a_request_without_the_dimension_is_left_alone(self, dimension: str) -> None:
        for value in ("*", "u"):
            p = policy({"scope": {"tenant": "acme", dimension: value}, "window": "day", "limit_usd": 5})
            assert scopes(p, asker(**{dimension: None})) == []
            assert scopes(p, asker(**{dimension: "u"})) == [{"tenant": "acme", dimension: "u"}]

    def test_every_dimension_must_fit(self) -> None:
        p = policy({"scope": {"tenant": "acme", "feature": "digest"}, "window": "day", "limit_usd": 5})
        assert scopes(p, asker(tenant="acme", feature="support")) == []

    def test_what_a_hold_says(self) -> None:
        dollars, tokens = holds(
            policy(
                {"scope": {"tenant": "*"}, "window": "month", "limit_usd": 0.07, "degrade_at": 0.8},
                {"scope": {"tenant": "*"}, "window": "minute", "limit_tokens": 0},
            ),
            asker(),
        )
        assert (dollars.kind, dollars.limit, dollars.window, dollars.timezone, dollars.degrade_at) == (
            *("usd", Decimal("0.07"), "month", "Europe/Berlin"),
            0.8,
        )
        assert (tokens.kind, tokens.limit, tokens.degrade_at) == ("tokens", 0, None)

    @given(st.permutations(["tenant", "feature", "user"]))
    def test_the_order_of_a_scope_does_not_matter(self, order: list[str]) -> None:
        p = policy({"scope": dict.fromkeys(order, "*"), "window": "day", "limit_usd": 5})
        assert holds(p, asker(user="u"))[0].scope == '{"feature": "support", "tenant": "acme", "user": "u"}'

    @given(*[st.lists(st.tuples(*[st.sampled_from(["*", "a", "b", None])] * 3), min_size=1, max_size=4)] * 1)
    def test_two_askers_share_a_counter_only_if_they_agree_on_all_it_names(self, rules: list[tuple[str | None, ...]]) -> None:
        names = ("tenant", "feature", "user")
        budgets = [{"scope": {n: v for n, v in zip(names, r, strict=True) if v}, "window": "day", "limit_usd": 1} for r in rules]
        p = policy(*budgets)
        askers = [asker(tenant=t, feature=f, user=u) for t, f, u in itertools.product("ab", "ab", ("a", "b", None))]
        for one, two in itertools.combinations(askers, 2):
            for shared in {h.scope for h in holds(p, one)} & {h.scope for h in holds(p, two)}:
                assert all(getattr(one, n) == getattr(two, n) == v for n, v in json.loads(shared).items())

    def test_one_budget_one_hold(self) -> None:
        budget = {"scope": {"tenant": "*"}, "window": "day", "limit_usd": 5}
        assert len(holds(policy(budget, budget | {"scope": {"tenant": "acme"}}), asker())) == 2
        assert Budget.model_validate(budget).on_exceed == "reject"


ZONES = st.sampled_from(
    [
        *("UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Asia/Kathmandu", "Australia/Sydney", "Pacific/Apia"),
        *("America/Sao_Paulo", "Africa/Cairo", "America/Havana", "Asia/Beirut", "Pacific/Kiritimati", "Africa/Casablanca"),
    ]
)
UNITS: st.SearchStrategy[Window] = st.sampled_from(["minute", "hour", "day", "month"])
TIMES = st.datetimes(datetime(2005, 1, 1), datetime(2038, 1, 1), timezones=st.just(UTC))
SPRING = datetime(2026, 3, 29, 1, 0, tzinfo=UTC)
AUTUMN = datetime(2026, 10, 25, 1, 0, tzinfo=UTC)
"""The clocks of Berlin change."""


class TestWindow:
    @given(UNITS, ZONES, TIMES)
    @example("day", "Pacific/Apia", datetime(2011, 12, 30, 10, 0, tzinfo=UTC))  # a day that was left out
    @example("day", "America/Sao_Paulo", datetime(2018, 11, 4, 3, 0, tzinfo=UTC))  # a midnight that was left out
    @example("day", "America/Havana", datetime(2026, 11, 1, 5, 30, tzinfo=UTC))  # a midnight that came twice
    @example("hour", "Europe/Berlin", AUTUMN)
    def test_now_lies_in_its_window(self, unit: Window, zone: str, now: datetime) -> None:
        start, end = window(unit, zone, now)
        assert start <= now < end
        assert start.utcoffset() == end.utcoffset() == timedelta(0)

    @given(UNITS, ZONES, TIMES, st.floats(0, 1, exclude_max=True))
    @example("day", "Pacific/Apia", datetime(2011, 12, 30, 9, 0, tzinfo=UTC), 0.5)
    @example("hour", "Europe/Berlin", AUTUMN, 0.99)
    @example("day", "Europe/Berlin", AUTUMN, 0.999)
    def test_a_window_is_one_and_the_next_begins_where_it_ends(self, unit: Window, zone: str, now: datetime, part: float) -> None:
        start, end = window(unit, zone, now)
        assert window(unit, zone, start) == (start, end)
        inside = min(start + (end - start) * part, end - timedelta(microseconds=1))
        assert window(unit, zone, inside) == (start, end)
        assert window(unit, zone, end)[0] == end

    @given(st.sampled_from(["day", "month"]), ZONES, TIMES)
    def test_a_day_is_a_date_of_the_wall(self, unit: Window, zone: str, now: datetime) -> None:
        start, end = window(unit, zone, now)
        local, first, last = (t.astimezone(ZoneInfo(zone)) for t in (now, start, end - timedelta(microseconds=1)))
        assert (local.year, local.month) == (first.year, first.month) == (last.year, last.month)
        if unit == "day":
            assert local.date() == first.date() == last.date()

    @pytest.mark.parametrize(("at", "hours"), [(SPRING, 23), (AUTUMN, 25), (datetime(2026, 6, 1, tzinfo=UTC), 24)])
    def test_a_day_is_as_long_as_the_calendar_makes_it(self, at: datetime, hours: int) -> None:
        start, end = window("day", "Europe/Berlin", at)
        assert end - start == timedelta(hours=hours)

    def test_an_hour_the_clocks_repeat_is_two_windows(self) -> None:
        before, after = (window("hour", "Europe/Berlin", AUTUMN + timedelta(minutes=m)) for m in (-30, 30))
        assert before[1] == after[0] == AUTUMN

    def test_hours_are_aligned_to_the_wall(self) -> None:
        start, end = window("hour", "Asia/Kolkata", datetime(2026, 1, 1, 12, 45, tzinfo=UTC))
        assert (start.minute, end - start) == (30, timedelta(hours=1))

    def test_months(self) -> None:
        start, end = window("month", "America/New_York", datetime(2026, 12, 31, 23, 0, tzinfo=UTC))
        assert (start, end) == (datetime(2026, 12, 1, 5, tzinfo=UTC), datetime(2027, 1, 1, 5, tzinfo=UTC))
