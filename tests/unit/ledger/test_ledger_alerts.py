"""Alerts on both databases: read from the rows, told once, whoever finds them and whoever dies."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from schemas import Alert
from schemas.types import utc_now
from tests.unit.ledger.conftest import Start
from tests.unit.ledger.scenario import RATES, ask, execute, hold, settlement, silence
from workers.attribute.alerts import make_alerts
from workers.ledger.alerts import Finding
from workers.ledger.ledger import Ledger
from workers.ledger.tables import alert, attempt
from workers.outcomes import Message, Unavailable
from workers.policy import Policy, parse

POLICY = """
models: {mini: {litellm: openai/mini, context: 9000}}
tiers: {light: [mini]}
reference: mini
budgets:
  - {scope: {tenant: "*"}, window: month, limit_usd: 10}
  - {scope: {tenant: acme}, window: month, limit_tokens: 1000}
"""


class Topic:
    """`llm.alerts`, and what publishes to it."""

    def __init__(self) -> None:
        self.records: list[Message] = []
        self.down = False

    async def publish(self, messages: Sequence[Message]) -> None:
        if self.down:
            raise Unavailable("kafka", "away")
        self.records += messages

    @property
    def alerts(self) -> list[Alert]:
        return [Alert.model_validate_json(m.value) for m in self.records if isinstance(m.value, bytes)]

    def told(self) -> list[tuple[str, dict[str, str]]]:
        return [(a.kind, a.scope) for a in self.alerts]


def rounds(ledger: Ledger, topic: Topic, policy: str = POLICY, **settings: Any) -> Callable[[], Awaitable[Any]]:
    parsed: Policy = parse(policy, "test")
    return make_alerts(ledger.watch, lambda: parsed, settings.get("rates", lambda model: RATES), topic.publish, spikes_every_s=0)


async def spend(ledger: Ledger, request_id: str, cost: str, tokens: int = 3, **about: Any) -> None:
    both = (hold("10", {"tenant": about.get("tenant", "acme")}), hold(1000))
    await ledger.open([ask(request_id, cost, tokens, *both, **about)])
    await ledger.settle([settlement(request_id, cost=cost, tokens=tokens, tenant=about.get("tenant", "acme"))])


async def test_a_share_of_a_budget_is_told_once(start: Start, url: str) -> None:
    ledger, other = await start("one"), await start("two")
    topic = Topic()
    look, also = rounds(ledger, topic), rounds(other, topic)
    await spend(ledger, "a", "7.9", tokens=799)
    await look()
    assert topic.told() == []
    await spend(ledger, "b", "0.1")
    await asyncio.gather(look(), also())
    await spend(ledger, "c", "1.9")
    await look()
    await also()
    assert sorted(a.evidence["level"] for a in topic.alerts) == ["0.8", "0.8"]
    (dollars,) = [a for a in topic.alerts if "limit_usd" in a.evidence]
    (tokens,) = [a for a in topic.alerts if "limit_tokens" in a.evidence]
    assert (dollars.kind, dollars.scope, dollars.evidence["used_usd"]) == ("budget_share", {"tenant": "acme"}, "8")
    assert (tokens.evidence["used_tokens"], tokens.evidence["limit_tokens"], tokens.evidence["share"]) == (802, 1000, "0.8020")
    assert "tenant acme: 80% of the month's budget is used" in dollars.message
    assert {m.key for m in topic.records} == {'{"tenant": "acme"}'}


EDITS = {
    "the same": POLICY,
    "a lower limit": POLICY.replace("limit_usd: 10", "limit_usd: 9"),
    "a higher limit": POLICY.replace("limit_usd: 10", "limit_usd: 11"),
    "lower shares": POLICY + "alerts: {budget_shares: [0.5, 0.7]}",
    "a comment": POLICY + "# spring",
}


@pytest.mark.parametrize("edited", EDITS)
async def test_an_edited_policy_tells_nothing_twice(ledger: Ledger, url: str, edited: str) -> None:
    topic = Topic()
    await spend(ledger, "a", "9", tokens=3)
    await rounds(ledger, topic)()
    assert len(topic.records) == 1
    await rounds(ledger, topic, EDITS[edited])()
    assert len(topic.records) == 1


async def test_a_higher_share_is_news(ledger: Ledger, url: str) -> None:
    topic = Topic()
    look = rounds(ledger, topic, POLICY + "alerts: {budget_shares: [0.5, 0.8, 1.0]}")
    for request_id, cost in (("a", "6"), ("b", "0.1"), ("c", "3.9"), ("d", "0")):
        await spend(ledger, request_id, cost)
        await look()
    assert [a.evidence["level"] for a in topic.alerts] == ["0.5", "1"]
    assert len({a.alert_id for a in topic.alerts}) == 2


async def test_what_was_stored_and_not_published_comes_later(start: Start, url: str) -> None:
    """Killed between storing and publishing: another worker publishes it once the first one is lost, the same bytes."""
    first, second, topic = await start("first"), await start("second"), Topic()
    await spend(first, "a", "9")
    topic.down = True
    with pytest.raises(Unavailable):
        await rounds(first, topic)()
    (stored,) = await execute(url, sa.select(alert))
    topic.down = False
    assert await rounds(second, topic)() == []  # the first one lives, and may be publishing
    await silence(url, first)
    (published,) = await rounds(second, topic)()
    assert (published.id, topic.records[0].value) == (stored.id, stored.body)
    assert await rounds(first, topic)() == []
    assert len(topic.records) == 1


async def test_killed_after_publishing_it_comes_again_with_the_same_id(start: Start, url: str) -> None:
    first, second, topic = await start("first"), await start("second"), Topic()
    await spend(first, "a", "9")

    async def dies(messages: Sequence[Message]) -> None:
        await topic.publish(messages)
        raise Unavailable("ledger", "killed here")

    with pytest.raises(Unavailable):
        await make_alerts(first.watch, lambda: parse(POLICY, "t"), lambda m: RATES, dies, spikes_every_s=0)()
    await silence(url, first)
    await rounds(second, topic)()
    await rounds(second, topic)()
    assert len(topic.records) == 2
    assert topic.records[0].value == topic.records[1].value


async def test_the_id_is_of_what_it_is_about(ledger: Ledger, url: str) -> None:
    """So whoever reads the topic knows one that it has seen, though the ledger was restored in between."""
    topic = Topic()
    await spend(ledger, "a", "9")
    await rounds(ledger, topic)()
    await execute(url, sa.delete(alert))
    await rounds(ledger, topic)()
    first, again = topic.alerts
    assert (first.alert_id == again.alert_id, first.at < again.at) == (True, True)


async def test_many_workers_tell_once(start: Start, url: str) -> None:
    workers, topic = [await start(f"w{i}") for i in range(4)], Topic()
    for i in range(30):
        await spend(workers[0], f"r{i}", "9", tenant=f"t{i}")
    for _ in range(2):
        await asyncio.gather(*(rounds(worker, topic)() for worker in workers))
    scopes = [a.scope["tenant"] for a in topic.alerts]
    assert len(scopes) == 30
    assert len(set(scopes)) == 30


async def test_a_flood_is_published_in_rounds_the_oldest_first(ledger: Ledger, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No statement names more ids than a database takes, however many users reach their limits at once."""
    monkeypatch.setattr("workers.ledger.alerts.AT_ONCE", 4)
    flood = [Finding("budget_share", {"user": f"u{i}"}, "month", utc_now(), "full", {}) for i in range(10)]
    assert await ledger.watch.store(flood) == 10
    look = rounds(ledger, topic := Topic())
    assert [len(await look()) for _ in range(4)] == [4, 4, 2, 0]
    assert len({a.scope["user"] for a in topic.alerts}) == 10
    assert [a.alert_id for a in topic.alerts] == [row.id for row in await execute(url, sa.select(alert).order_by(alert.c.at, alert.c.id))]


async def test_money_that_nobody_is_sure_of(start: Start, url: str) -> None:
    ledger, lost, topic = await start("here"), await start("lost"), Topic()
    await lost.open([ask("a", "0.25", 9), ask("b", "0.5", 9), ask("c", "3", 9, tenant="umbrella")])
    await silence(url, lost)
    await ledger.sweep()
    look = rounds(ledger, topic, POLICY + "alerts: {unconfirmed_usd: 0.75}")
    await look()
    assert topic.told() == [("unconfirmed_spend", {"tenant": "umbrella"})]
    look = rounds(ledger, topic)
    await look()
    await look()
    assert topic.told()[1:] == [("unconfirmed_spend", {"tenant": "acme"})]
    assert {"unconfirmed_usd": "0.75", "attempts": 2}.items() <= topic.alerts[1].evidence.items()


async def test_a_price_that_nobody_knows(ledger: Ledger, url: str) -> None:
    topic = Topic()
    await ledger.open([ask("a", "0", 9, rates=None, model="odd"), ask("b", "0", 9, rates=None, model="unsent")])
    await ledger.settle([settlement("a", cost="0"), settlement("b", state="abandoned")])
    look = rounds(ledger, topic)
    await look()
    await look()
    assert topic.told() == [("price_unknown", {"model": "odd"})]
    await rounds(ledger, topic, rates=lambda model: None)()  # the reference's own
    assert topic.told()[1:] == [("price_unknown", {"model": "mini"})]


async def day_of(url: str, request_ids: str, days: int) -> None:
    """Move the attempts of these requests to so many days ago."""
    about = f"(SELECT id FROM request WHERE request_id LIKE '{request_ids}')"
    moved = sa.update(attempt).where(sa.text(f"request IN {about}")).values(opened_at=utc_now() - timedelta(days=days))
    await execute(url, moved)


@pytest.mark.parametrize(("today", "spikes"), [("2.0", []), ("2.01", [("feature_cost_spike", {"feature": "support"})])])
async def test_a_feature_that_spends_more_than_usual(ledger: Ledger, url: str, today: str, spikes: list[Any]) -> None:
    """1, 2.4 and 3.6 make a mean of 1 over seven days; what is older does not count."""
    for day, cost in ((1, "1"), (3, "2.4"), (7, "3.6"), (8, "99")):
        await ledger.open([ask(f"d{day}", "2", 9)])
        await ledger.settle([settlement(f"d{day}", cost=cost)])
        await day_of(url, f"d{day}", day)
    await ledger.open([ask("today", "2", 9)])
    await ledger.settle([settlement("today", cost=today)])
    topic = Topic()
    look = rounds(ledger, topic, POLICY.partition("budgets:")[0])
    await look()
    await look()
    assert topic.told() == spikes
    if spikes:
        found = {"spent_usd": "2.01", "mean_usd": "1", "days": 7, "factor": "2"}
        assert found.items() <= topic.alerts[0].evidence.items()


async def test_a_feature_that_begins_today_is_no_spike(ledger: Ledger, url: str) -> None:
    await ledger.open([ask("a", "50", 9)])
    await ledger.settle([settlement("a", cost="50")])
    topic = Topic()
    await rounds(ledger, topic, POLICY.partition("budgets:")[0])()
    assert topic.told() == []


async def test_old_alerts_are_purged(ledger: Ledger, url: str) -> None:
    topic = Topic()
    await spend(ledger, "a", "9")
    await rounds(ledger, topic)()
    await ledger.purge()
    assert len(await execute(url, sa.select(alert.c.id))) == 1
    await execute(url, sa.update(alert).values(starts_at=utc_now() - timedelta(days=41)))
    await ledger.purge()
    assert await execute(url, sa.select(alert.c.id)) == []
