"""Budgets and books through the stage `call`: every call on the wire is counted, at what it cost, once; and what a full budget does."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest

from schemas import Request
from tests.provider import Provider
from tests.unit.call.build import event, plan, policy
from tests.unit.call.stage import Stage, finished, in_the_books, reason
from tests.unit.ledger.scenario import counters, dollars, drift, execute
from workers.ledger.queries import Figures, Question, report
from workers.ledger.types import Attempt
from workers.outcomes import Retry, Unavailable
from workers.policy import Policy

TWO = {"light": ("mini", "spare"), "standard": ("middle",), "heavy": ("large",)}
CALLS = """\
SELECT {part} AS part, count(*) AS calls, sum(input_tokens) AS read, sum(output_tokens) AS written, sum(attempt.cost) AS cost
FROM attempt JOIN request ON request.id = attempt.request GROUP BY {part}"""


def budgeted(base: str, *budgets: dict[str, Any], **more: Any) -> Policy:
    return policy(base, budgets=[{"window": "day", "scope": {}} | one for one in budgets], **more)


async def total(url: str, kind: str = "usd") -> tuple[int, int]:
    """(reserved, spent) of the whole fleet, once it is known to be what the rows say."""
    assert await drift(url) == {}
    return (await counters(url))["{}", kind, "day"]


@pytest.fixture
def stage(stage: Stage, server: Provider) -> Stage:
    stage.policy = budgeted(server.base_url, {"limit_usd": 1}, {"limit_tokens": 100_000})
    return stage


async def only(stage: Stage, asked: Any) -> Attempt:
    (row,) = await stage.attempts(asked)
    return row


@pytest.mark.parametrize("kind", ["truncated", "reset", "invalid_json"])
async def test_stream_cut(stage: Stage, server: Provider, url: str, kind: str) -> None:
    """What broke off may have been billed: it counts at its worst case, beside the call that followed."""
    server.faults.add(kind)
    asked = event(plan=plan(models=TWO))
    assert finished(await stage(asked)).model == "spare"
    cut, good = await stage.attempts(asked)
    assert (cut.state, cut.cost) == ("unconfirmed", stage.asked[0].usd)
    assert await total(url) == (0, dollars(str(cut.cost + good.cost)))


async def test_a_consumer_that_leaves_cancels_no_books(stage: Stage, server: Provider, url: str) -> None:
    server.faults.add("hang")
    task = asyncio.ensure_future(stage(event()))
    while not len(server.calls):  # noqa: ASYNC110 -- a log has no event to wait for
        await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert await total(url) == (dollars(str(stage.asked[0].usd)), 0)


@pytest.mark.parametrize("kind", ["no_usage", "negative_usage", "absurd_usage"])
async def test_usage_missing_negative_absurd(stage: Stage, server: Provider, url: str, kind: str) -> None:
    """Never a credit, never nothing, never a billion: our own count, and the row says that it is one."""
    server.faults.add(kind)
    asked = event()
    finished(await stage(asked))
    row = await only(stage, asked)
    assert row.estimated
    assert 0 < row.cost <= stage.asked[0].usd
    assert await total(url) == (0, dollars(str(row.cost)))


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": 10, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 50}},
        {"prompt_tokens": 0, "completion_tokens": 0},
        {"prompt_tokens": -5, "completion_tokens": 4},
        {"prompt_tokens": 10, "completion_tokens": -4},
        {"prompt_tokens": 10, "completion_tokens": 4, "completion_tokens_details": {"reasoning_tokens": 400}},
        {"prompt_tokens": 10**12, "completion_tokens": 4},
        {"prompt_tokens": 10, "completion_tokens": 10**12},
        {},
    ],
)
async def test_figures_that_contradict_themselves_are_estimated(stage: Stage, server: Provider, usage: dict[str, Any]) -> None:
    server.faults.add("usage", usage=usage)
    asked = event()
    finished(await stage(asked))
    row = await only(stage, asked)
    assert row.estimated
    assert 0 < row.cost <= stage.asked[0].usd


async def test_unknown_model_is_flagged(stage: Stage, server: Provider, url: str) -> None:
    """No price is no zero: the row says that nobody knows it, and its tokens count."""
    unpriced = stage.policy.models["mini"].model_copy(update={"price": None})
    stage.policy = stage.policy.model_copy(update={"models": stage.policy.models | {"mini": unpriced}})
    asked = event()
    finished(await stage(asked))
    row = await only(stage, asked)
    assert (row.rates, row.cost) == (None, 0)
    assert await total(url, "tokens") == (0, row.usage.input_tokens + row.usage.output_tokens)


async def test_fallback_attempts_each_booked(stage: Stage, server: Provider, url: str) -> None:
    """A fault, a poor answer, a good one: three rows, each at its own model's price, and the provider's log says the same."""
    server.faults.add("server_error")
    server.faults.add("length", tokens=9)
    asked = event(plan=plan(models=TWO))
    assert finished(await stage(asked)).model == "middle"
    books = await in_the_books(stage, server, asked)
    assert books == [("mini", "settled", "server_error"), ("spare", "settled", "truncated"), ("middle", "settled", "accepted")]
    rows = await stage.attempts(asked)
    per_token = {"mini": 0, "spare": 2, "middle": 5}
    assert [r.cost for r in rows] == [
        Decimal(per_token[r.model]) * (r.usage.input_tokens + r.usage.output_tokens) / 1_000_000 for r in rows
    ]
    assert await total(url) == (0, dollars(str(sum(r.cost for r in rows))))


async def test_cached_and_written_tokens_once(stage: Stage, server: Provider, url: str) -> None:
    """`prompt_tokens` holds both: 1,000 tokens at 1, of which 600 at 0.1 and 300 at 1.25, and 10 of output at 2 dollars a million."""
    price = {"input": 1, "cached_input": "0.1", "cache_write": "1.25", "output": 2}
    models = {"mini": {"litellm": "openai/mini", "api_base": server.base_url, "context": 8000, "price": price}}
    tiers = {tier: ["mini"] for tier in ("light", "standard", "heavy")}
    stage.policy = budgeted(server.base_url, {"limit_usd": 1}, models=models, tiers=tiers, reference="mini")
    details = {"cached_tokens": 600, "cache_write_tokens": 300}
    server.faults.add("usage", usage={"prompt_tokens": 1000, "completion_tokens": 10, "prompt_tokens_details": details})
    asked = event()
    finished(await stage(asked))
    row = await only(stage, asked)
    assert (row.usage.input_tokens, row.usage.cached_input_tokens, row.usage.cache_write_tokens) == (1000, 600, 300)
    assert row.cost == Decimal("0.000555")
    assert await total(url) == (0, dollars("0.000555"))


async def test_reservation_uses_dearest_rate(stage: Stage, server: Provider, url: str) -> None:
    """All of the prompt written to the provider's cache, the longest answer: no overrun. See also test_reserve.py."""
    price = {"input": 1, "cached_input": "0.1", "cache_write": 2, "output": 4}
    mini = stage.policy.models["mini"].model_copy(update={"price": policy().models["mini"].price.model_validate(price)})  # type: ignore[union-attr]
    stage.policy = stage.policy.model_copy(update={"models": stage.policy.models | {"mini": mini}})
    asked = event()
    details = {"cached_tokens": 0, "cache_write_tokens": asked.tokens.after}
    usage = {"prompt_tokens": asked.tokens.after, "completion_tokens": 100, "prompt_tokens_details": details}
    server.faults.add("usage", usage=usage)
    finished(await stage(asked))
    row = await only(stage, asked)
    assert (row.usage.cache_write_tokens, row.usage.output_tokens) == (asked.tokens.after, 100)
    assert 0 < row.cost <= stage.asked[0].usd
    assert stage.overran == []


@pytest.mark.parametrize(
    ("prompt", "written", "why"), [(12, 500, "output"), (4000, 10, "input"), (12, 10, None)], ids=["max_tokens", "tokenizer", "none"]
)
async def test_an_overrun_is_counted_by_its_cause(stage: Stage, server: Provider, prompt: int, written: int, why: str | None) -> None:
    server.faults.add("usage", usage={"prompt_tokens": prompt, "completion_tokens": written})
    asked = event()
    assert finished(await stage(asked)).status == "answered"
    assert stage.overran == ([("mini", why)] if why else [])
    assert not (await only(stage, asked)).estimated


async def test_an_overrun_blocks_the_next_call(stage: Stage, server: Provider, url: str) -> None:
    stage.policy = budgeted(server.base_url, {"limit_usd": "0.001"})
    server.faults.add("usage", usage={"prompt_tokens": 3000, "completion_tokens": 10})
    assert finished(await stage(event())).status == "answered"
    assert await total(url) == (0, dollars("0.00301"))
    assert reason(await stage(event("r-2"))) == ("rejected", "budget_exceeded")
    assert len(server.calls) == 1


async def test_duplicate_rows(stage: Stage, server: Provider, url: str) -> None:
    """One row a call: an answer that is delivered again, or asked for again at once, makes none and bills nothing."""
    asked = event()
    first = await stage(asked)
    assert await stage(asked) == first
    await asyncio.gather(*(stage(event("r-2")) for _ in range(5)))
    assert await execute(url, "SELECT count(*) AS rows FROM attempt") == [(2,)]
    assert len(server.calls) == 2
    with pytest.raises(ValueError, match="request_id"):
        Request.model_validate({"request_id": "", "tenant": "acme", "feature": "bot", "messages": [{"role": "user", "content": "Hm?"}]})


async def test_report_equals_rows(stage: Stage, server: Provider, url: str) -> None:
    """Counter, rows, the report and the provider's own books say the same, in every part and in all: no roll-up says something else."""
    server.faults.add("length", tokens=9)
    who = [
        {"tenant": f"t-{i % 2}", "feature": f"f-{i % 3}", "user": f"u-{i}" if i else None, "experiment": "e-1" if i > 2 else None}
        for i in range(4)
    ]
    for i, facts in enumerate(who):
        finished(await stage(event(f"r-{i}", **facts)))
    billed = [call.usage for call in server.calls]
    tokens = sum(u["prompt_tokens"] + u["completion_tokens"] for u in billed if u)
    assert await total(url, "tokens") == (0, tokens)

    told = await report(url, Question())
    assert (told.total.requests, told.total.attempts) == (len(who), len(server.calls))
    assert told.total.input_tokens + told.total.output_tokens == tokens
    assert (0, dollars(str(told.total.spent_usd))) == await total(url)
    for dimension, parts in told.by.items():
        assert sum(parts.values(), Figures()) == told.total, dimension
        if dimension != "window":
            said = {
                part: (f.attempts, f.input_tokens, f.output_tokens, dollars(str(f.spent_usd))) for part, f in parts.items() if f.attempts
            }
            table = "attempt" if dimension in ("tier", "model") else "request"
            rows = await execute(url, CALLS.format(part=f'{table}."{dimension}"'))
            assert said == {row.part: (row.calls, int(row.read), int(row.written), int(row.cost)) for row in rows}, dimension


async def test_bypass_routes(stage: Stage, server: Provider, url: str) -> None:
    """Nothing is sent without a grant, whatever way the stage takes: start, fallback, escalation, larger window, next round."""
    stage.policy = budgeted(server.base_url, {"limit_usd": 0})
    for i, step in enumerate((plan("light"), plan("standard"), plan("heavy", forced=True), plan(models=TWO))):
        for lane in ("interactive", "bulk"):
            assert reason(await stage(event(f"{lane}-{i}", plan=step, lane=lane))) == ("rejected", "budget_exceeded")
    assert len(server.calls) == 0
    assert await execute(url, "SELECT 1 FROM attempt") == []


async def test_ledger_away_sends_nothing(stage: Stage, server: Provider, url: str) -> None:
    opened = stage.ledger.open

    async def away(asks: Any) -> Any:
        raise Unavailable("ledger", "connection lost")

    stage.ledger.open = away  # type: ignore[method-assign]
    with pytest.raises(Unavailable):
        await stage(event())
    assert len(server.calls) == 0
    stage.ledger.open = opened  # type: ignore[method-assign]
    assert finished(await stage(event())).status == "answered"


# ---- what a full budget does

WHO = {"tenant": "acme", "feature": "bot", "user": "u-1", "experiment": "e-1"}


@pytest.mark.parametrize("star", [False, True], ids=["named", "star"])
@pytest.mark.parametrize("kind", ["usd", "tokens"])
@pytest.mark.parametrize("names", [(), ("tenant",), ("feature",), ("user",), ("experiment",), ("tenant", "user")])
async def test_every_scope_refuses_its_own_and_nobody_else(
    stage: Stage, server: Provider, names: tuple[str, ...], kind: str, star: bool
) -> None:
    scope = {name: "*" if star else WHO[name] for name in names}
    room = {"limit_usd": "0.0002"} if kind == "usd" else {"limit_tokens": 180}  # for one call, and not for two
    stage.policy = budgeted(server.base_url, {"scope": scope} | room)
    server.faults.add("usage", usage={"prompt_tokens": 60, "completion_tokens": 60}, times=None)
    assert finished(await stage(event("first", **WHO))).status == "answered"
    ended = finished(await stage(event("second", **WHO)))
    assert ended.reason is not None
    assert ended.reason.code == ("budget_exceeded" if kind == "usd" else "quota_exceeded")
    assert ended.reason.scope == {name: WHO[name] for name in names}
    others = [event(f"other-{name}", **WHO | {name: "other"}) for name in names]
    for other in others:
        assert finished(await stage(other)).status == "answered"
    assert len(server.calls) == 1 + len(others)


@pytest.mark.parametrize("kind", ["usd", "tokens"])
async def test_degrade_and_soft_thresholds_fire_once(stage: Stage, server: Provider, url: str, kind: str) -> None:
    """Below the share the dear tier, from it on the cheap one, at the limit none; each request is told once. Alerts: test_alerts.py."""
    room = {"limit_usd": "0.005"} if kind == "usd" else {"limit_tokens": 1000}
    stage.policy = budgeted(server.base_url, room | {"degrade_at": 0.5})
    server.faults.add("usage", usage={"prompt_tokens": 250, "completion_tokens": 250}, times=None)
    seen = []
    for i in range(4):
        ended = finished(await stage(event(f"r-{i}", plan=plan("standard"))))
        seen.append((ended.model, ended.flags) if ended.content else (ended.status, ended.reason and ended.reason.code))
    dear, cheap = ("middle", ()), ("mini", ("degraded",))
    over = ("rejected", "budget_exceeded" if kind == "usd" else "quota_exceeded")
    assert seen == [dear, cheap, *([cheap] * 2 if kind == "usd" else [over] * 2)]
    assert (await total(url, kind))[0] == 0


@pytest.mark.parametrize("kind", ["usd", "tokens"])
async def test_bulk_waits_for_the_window_that_says_so(stage: Stage, server: Provider, kind: str) -> None:
    """Two budgets of one scope and limit: the one that is full says whether to wait."""
    room = {"limit_usd": "0.0002"} if kind == "usd" else {"limit_tokens": 180}
    hour, day = room | {"window": "hour", "on_exceed": "reject"}, room | {"window": "day", "on_exceed": "wait"}
    server.faults.add("usage", usage={"prompt_tokens": 60, "completion_tokens": 60}, times=None)
    stage.policy = budgeted(server.base_url, hour, day)
    assert finished(await stage(event("r-1", lane="bulk", deadline_s=3 * 86_400))).status == "answered"
    assert reason(await stage(event("r-2", lane="bulk", deadline_s=3 * 86_400)))[0] == "rejected"
    stage.policy = budgeted(server.base_url, day, hour)
    waiting = await stage(event("r-3", lane="bulk", deadline_s=3 * 86_400))
    assert isinstance(waiting, Retry)
    assert waiting.why == "budget"


async def test_nobody_waits_for_what_no_window_will_hold(stage: Stage, server: Provider) -> None:
    for i, room in enumerate(({"limit_usd": "0.00001"}, {"limit_tokens": 20}, {"limit_usd": 0}, {"limit_tokens": 0})):
        stage.policy = budgeted(server.base_url, room | {"on_exceed": "wait"})
        assert reason(await stage(event(f"r-{i}", lane="bulk", deadline_s=3 * 86_400)))[0] == "rejected"
