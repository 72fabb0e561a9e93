"""What a person should look at, on `llm.alerts`: the rules, and the round that looks, stores and publishes.

Each is told once for its scope and window, whoever finds it and however often; an edited policy tells nothing twice. A round that is cut
off is made good by the next one, of any process: what was stored and not published is published then, the same bytes with the same id.
Parks nothing: `Unavailable` comes out of a round, and the next one comes soon. Nothing in an alert but names, numbers and times.
"""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Protocol

from schemas import Finished
from schemas.types import usd
from workers import topics
from workers.ledger.alerts import Finding, Unsent
from workers.ledger.budgets import Window, window
from workers.ledger.readings import CutOff, Span, Usage
from workers.ledger.types import Rates
from workers.outcomes import Message
from workers.policy import Budget, Model, Policy

DAYS = 7
"""Before today, over which a feature's mean is taken; over fewer where it was first seen since."""
LOOKED_BACK = 2 * DAYS
"""Days before today in which a feature is looked for. One that spent nothing for so long begins anew."""
LATE = timedelta(minutes=5)
"""A window is looked at for this long after its end: it may fill between two rounds, or while nobody looks."""
MOMENT = timedelta(microseconds=1)


class WatchPort(Protocol):
    """What the alerts need of the ledger (`workers.ledger.watch`). Every method raises `Unavailable` when it cannot be reached."""

    async def now(self) -> datetime: ...

    async def usage(self, windows: set[tuple[Window, datetime]]) -> list[Usage]: ...

    async def cut_off(self, day: Span) -> Mapping[str, CutOff]: ...

    async def unpriced(self, day: Span) -> Mapping[str, int]: ...

    async def spent_by_feature(self, day: Span) -> Mapping[str, Decimal]: ...

    async def store(self, findings: Sequence[Finding]) -> int: ...

    async def unsent(self) -> list[Unsent]: ...

    async def sent(self, unsent: list[Unsent]) -> None: ...


def make_alerts(
    watch: WatchPort,
    policy: Callable[[], Policy],
    rates: Callable[[Model], Rates | None],
    publish: Callable[[Sequence[Message]], Awaitable[None]],
    *,
    spikes_every_s: float,
) -> Callable[[], Awaitable[list[Unsent]]]:
    """The round, to be called every few seconds. Returns what it published.

    Args:
        spikes_every_s: the look for spikes reads every attempt of the day, so it is not made in every round.
    """
    looked_at = -spikes_every_s
    means: tuple[Span, dict[str, tuple[Decimal, int]]] | None = None

    async def spikes(today: Span, timezone: str, factor: float) -> list[Finding]:
        nonlocal looked_at, means
        if time.monotonic() - looked_at < spikes_every_s:
            return []
        looked_at = time.monotonic()
        if means is None or means[0] != today:  # what is over does not change, or hardly: once a day will do
            means = today, mean_by_feature([await watch.spent_by_feature(day) for day in days_before(today, timezone)])
        return list(feature_cost_spikes(await watch.spent_by_feature(today), means[1], today, factor))

    async def look() -> list[Unsent]:
        current = policy()
        rules, now = current.alerts, await watch.now()
        today, *before = lately("day", current.timezone, now)
        unpriced = dict(await watch.unpriced(today))
        if rates(current.models[current.reference]) is None:
            unpriced.setdefault(current.reference, 0)
        found = [
            *budget_shares(await watch.usage(windows(current, now)), current),
            *unknown_prices(unpriced, today),
            *await spikes(today, current.timezone, rules.cost_spike),
        ]
        for day in (today, *before):
            found += unconfirmed_spend(await watch.cut_off(day), day, rules.unconfirmed_usd)
        for day in before:
            found += unknown_prices(await watch.unpriced(day), day)
        await watch.store(found)
        unsent = await watch.unsent()
        if unsent:
            await publish([Message(topics.ALERTS, each.scope, each.body) for each in unsent])
            await watch.sent(unsent)
        return unsent

    return look


def make_refusals(watch: WatchPort, policy: Callable[[], Policy]) -> Callable[[Sequence[Finished]], Awaitable[None]]:
    """Called with every batch of endings before it is committed: a budget that refuses is stored as an alert, and the round publishes it.
    `Unavailable` comes out, so that the batch comes again."""
    told: set[tuple[object, ...]] = set()

    async def refusals(events: Sequence[Finished]) -> None:
        current = policy()
        found = {(f.kind, f.about, f.window, f.starts_at, str(f.scope)): f for event in events if (f := refused(event, current))}
        if found.keys() <= told:
            return
        await watch.store(list(found.values()))
        if len(told) > 10_000:
            told.clear()
        told.update(found)

    return refusals


# ---- budgets


def windows(policy: Policy, now: datetime) -> set[tuple[Window, datetime]]:
    """The windows of the policy's budgets that run, or ended a short while ago: unit and start."""
    return {(unit, start) for unit in {budget.window for budget in policy.budgets} for start, _ in lately(unit, policy.timezone, now)}


def lately(unit: Window, timezone: str, now: datetime) -> Iterator[Span]:
    """The window that runs, and those that ended a short while ago."""
    start, end = window(unit, timezone, now)
    while end > now - LATE:
        yield start, end
        start, end = window(unit, timezone, start - MOMENT)


def budget_shares(counters: Sequence[Usage], policy: Policy) -> Iterator[Finding]:
    """The counters that have reached a share of their limit; each at the highest one."""

    for counter in counters:
        scope: dict[str, str] = json.loads(counter.scope)
        limits = [limit for budget in policy.budgets if (limit := _limit(budget, counter, scope)) is not None]
        if not limits or not (limit := min(limits)):
            continue  # a limit of nothing is reached by whoever is refused
        share = Decimal(counter.used) / limit
        if reached := [level for level in policy.alerts.budget_shares if share >= Decimal(str(level))]:
            span = window(counter.window, policy.timezone, counter.starts_at)
            evidence = _money(counter.kind, counter.used, limit) | {"share": str(round(share, 4))}
            said = f"{_who(scope)}: {share:.0%} of the {counter.window}'s budget is used"
            yield _of_budget(scope, counter.kind, counter.window, span, max(reached), said, evidence)


def refused(event: Finished, policy: Policy) -> Finding | None:
    """Of a request that a budget refused: the budget has no room for a call of its size, whatever share of it is used."""
    reason = event.reason
    if reason is None or reason.scope is None or reason.resets_at is None or not policy.alerts.budget_shares:
        return None
    kind = {"budget_exceeded": "usd", "quota_exceeded": "tokens"}.get(reason.code)
    if kind is None or reason.limit is None:
        return None
    for budget in policy.budgets:
        span = window(budget.window, policy.timezone, reason.resets_at - MOMENT)
        limit = budget.limit_usd if kind == "usd" else budget.limit_tokens
        if limit == Decimal(reason.limit) and span[1] == reason.resets_at and _covers(budget, reason.scope):
            said = f"{_who(reason.scope)}: the {budget.window}'s budget refuses requests"
            evidence = _money(kind, Decimal(reason.used or 0), Decimal(reason.limit))
            return _of_budget(reason.scope, kind, budget.window, span, max(policy.alerts.budget_shares), said, evidence)
    return None


def _of_budget(scope: dict[str, str], kind: str, unit: Window, span: Span, level: float, said: str, evidence: dict[str, Any]) -> Finding:
    evidence = evidence | _span(unit, span) | {"level": f"{level:g}"}
    return Finding("budget_share", scope, unit, span[0], said, evidence, about=kind, level=round(level * 10_000))


def _limit(budget: Budget, counter: Usage, scope: dict[str, str]) -> Decimal | None:
    """The limit of this budget, where it counts by this counter."""
    limit = budget.limit_usd if counter.kind == "usd" else budget.limit_tokens
    return Decimal(limit) if limit is not None and budget.window == counter.window and _covers(budget, scope) else None


def _covers(budget: Budget, scope: Mapping[str, str]) -> bool:
    return budget.scope.keys() == scope.keys() and all(wanted in ("*", scope[name]) for name, wanted in budget.scope.items())


def _money(kind: str, used: Decimal | int, limit: Decimal | int) -> dict[str, Any]:
    if kind == "usd":
        return {"used_usd": usd(Decimal(used)), "limit_usd": usd(Decimal(limit))}
    return {"used_tokens": int(used), "limit_tokens": int(limit)}


# ---- money that nobody is sure of


def unconfirmed_spend(cut_off: Mapping[str, CutOff], today: Span, above: Decimal) -> Iterator[Finding]:
    """Tenants whose calls were cut off today, for more money than `above`."""
    for tenant, lost in cut_off.items():
        if lost.cost > above:
            said = f"tenant {tenant}: calls that were cut off today may have cost up to ${usd(lost.cost)}; the provider's invoice knows"
            evidence = {"unconfirmed_usd": usd(lost.cost), "attempts": lost.attempts}
            yield Finding("unconfirmed_spend", {"tenant": tenant}, "day", today[0], said, evidence | _span("day", today))


def unknown_prices(unpriced: Mapping[str, int], today: Span) -> Iterator[Finding]:
    """Models that were called today though nobody knows their price, and a reference model without one (no call)."""
    for model, calls in unpriced.items():
        said = f"model {model}: neither the policy nor the price map knows its price; what it costs and saves counts as nothing"
        yield Finding("price_unknown", {"model": model}, "day", today[0], said, {"attempts": calls} | _span("day", today))


# ---- spikes


def days_before(today: Span, timezone: str) -> list[Span]:
    """The last days before today, by the same clock, the latest first."""
    days = [today]
    for _ in range(LOOKED_BACK):
        days.append(window("day", timezone, days[-1][0] - MOMENT))
    return days[1:]


def mean_by_feature(days: Sequence[Mapping[str, Decimal]]) -> dict[str, tuple[Decimal, int]]:
    """Of each feature the mean of the last `DAYS` days, or of those since it was first seen, and how many those were. `days` are what was
    spent on each, the latest first."""
    seen = {feature: n for n, day in enumerate(days, start=1) for feature in day}  # the earliest day comes last, and stays
    over = {feature: min(n, DAYS) for feature, n in seen.items()}
    return {feature: (sum((day.get(feature, Decimal(0)) for day in days[:n]), Decimal(0)) / n, n) for feature, n in over.items()}


def feature_cost_spikes(
    spent: Mapping[str, Decimal], means: Mapping[str, tuple[Decimal, int]], today: Span, factor: float
) -> Iterator[Finding]:
    """Features that have spent more today than `factor` times their mean. Without a mean above 0 there is nothing to compare with."""
    for feature, dollars in spent.items():
        mean, days = means.get(feature, (Decimal(0), 0))
        if 0 < mean * Decimal(str(factor)) < dollars:
            said = f"feature {feature}: ${usd(dollars)} spent today, {dollars / mean:.1f} times its mean of ${usd(round(mean, 6))} a day"
            evidence = {"spent_usd": usd(dollars), "mean_usd": usd(round(mean, 10)), "days": days, "factor": f"{factor:g}"}
            yield Finding("feature_cost_spike", {"feature": feature}, "day", today[0], said, evidence | _span("day", today))


def _span(unit: Window, span: Span) -> dict[str, str]:
    return {"window": unit, "starts_at": _text(span[0]), "ends_at": _text(span[1])}


def _text(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def _who(scope: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in sorted(scope.items())) or "the whole fleet"
