"""The checker finds every lie: a small run in which all is right, and one thing at a time made wrong in it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.chaos.checker.evidence import Attempt, Blow, Call, Counter, Evidence, Json, Record, Row
from tests.chaos.checker.rules import RULES, figures, judge

AT = datetime(2026, 5, 4, 12, 0, 30, tzinfo=UTC)
COST = 10 * 1 + 5 * 4
"""Microdollars of ten tokens in and five out."""
PID = 71
"""Of the process that makes the calls."""
CLOCK_S = AT.timestamp() - 50
"""Of the day, when the clock of calls and blows began: `AT` is its 50."""
ARRIVED = datetime(2026, 5, 4, 12, tzinfo=UTC)
TIMES = {"created_at": "2026-05-04T12:00:00Z", "finished_at": "2026-05-04T12:00:31Z"}
NOTHING = {"cost_usd": "0", "baseline_usd": "0", "saved_usd": dict.fromkeys(("routing", "cache", "compression", "batch"), "0")}
PAID = NOTHING | {"cost_usd": "0.000030", "baseline_usd": "0.000750", "saved_usd": NOTHING["saved_usd"] | {"routing": "0.000720"}}


def question(name: str, tenant: str = "a", text: str = "How?", documents: tuple[str, ...] = ()) -> Json:
    messages = [{"role": "user", "content": text}]
    return {
        "request_id": name,
        "tenant": tenant,
        "messages": messages,
        "documents": [{"id": d} for d in documents],
        "metadata": {"of": name},
    }


def sent(body: Json | bytes, offset: int, **facts: Any) -> Record:
    return Record("requests", 0, offset, b"k", body if isinstance(body, bytes) else json.dumps(body).encode(), at=ARRIVED, **facts)


def response(body: Json, status: str = "answered", **facts: Any) -> Json:
    asked = {name: body[name] for name in ("request_id", "tenant", "metadata")}
    told = {"status": status, "reason": None, "content": None, "source": None, "attempts": 0, "usage": {}, **NOTHING, **TIMES}
    return asked | told | facts


def published(topic: str, told: Json) -> Record:
    return Record(topic, 0, 0, f"{told['tenant']}/{told['request_id']}".encode(), json.dumps(told).encode())


def cost(told: Json, states: tuple[str, ...], revision: int = 1) -> Json:
    same = ("request_id", "tenant", "cost_usd", "baseline_usd", "saved_usd", "usage")
    return {name: told[name] for name in same} | {"revision": revision, "attempts": [{"state": state} for state in states]}


def attempt(request: int, n: int = 1, call: int | None = 1, **facts: Any) -> Attempt:
    answer = None if call is None else {"content": f"[call {call}] So."}
    made = Attempt(request, n, "mini", "settled", 900_000, COST * 10_000, 15, 10, 5, "accepted", "accepted", answer, (1,), AT, AT, PID)
    return replace(made, **facts)


def row(number: int, told: Json, *attempts: Attempt) -> Row:
    value = json.dumps(told).encode()
    return Row(number, told["tenant"], told["request_id"], None, told["status"], value, 1, 1, attempts)


def call(number: int, text: str = "How?", **facts: Any) -> Call:
    usage = {"prompt_tokens": 10, "completion_tokens": 5}
    made = Call(number, "mini", 100, ({"role": "user", "content": text},), 50.0, 51.0, 200, None, usage)
    return replace(made, **facts)


def right() -> Evidence:
    """One that was asked twice and paid once, one that a kill cut off, one from the cache, an expired one, a refused one, a dead letter."""
    paid, cut, cached = question("paid"), question("cut", text="What?"), question("cached")
    late = question("late", text="When?") | {"deadline_at": "2020-01-01T00:00:00Z"}
    wrong = question("wrong", text="")
    ended = {
        "paid": response(paid, content="[call 1] So.", source="model", attempts=1, **PAID),
        "cut": response(cut, content="[call 3] So.", source="model", attempts=2, **PAID),
        "cached": response(cached, content="[call 1] So.", source="cache_exact"),
        "late": response(late, "expired", reason={"code": "deadline_passed"}),
    }
    refused = response(wrong, "rejected", reason={"code": "invalid_request"})
    rows = {
        "a/paid": row(1, ended["paid"], attempt(1)),
        "a/cut": row(
            2,
            ended["cut"],
            attempt(2, call=None, state="unconfirmed", cost=900_000, used_tokens=60, outcome=None, verdict=None),
            attempt(2, n=2, call=3),
        ),
        "a/cached": row(3, ended["cached"]),
        "a/late": row(4, ended["late"]),
    }
    states = {"paid": ("settled",), "cut": ("unconfirmed", "settled"), "cached": (), "late": ()}
    letter = Record(
        "dead",
        0,
        0,
        b"k",
        b"{",
        (("x-odd", b"\xff"), ("x-dead-topic", b"c.requests"), ("x-dead-partition", b"0"), ("x-dead-offset", b"9")),
    )
    return Evidence(
        run={
            "prefix": "c.",
            "clock_s": CLOCK_S,
            "timeout_s": 5.0,
            "budgets": [{"scope": {"tenant": "a"}, "window": "day", "limit_usd": "0.001"}],
            "prices": {"mini": [1, 4]},
            "max_tokens": 300,
            "steady_s": 1.0,
            "start_s": 1.0,
            "seen": [],
        },
        sent=(
            *(sent(body, i) for i, body in enumerate((paid, paid, cut, cached, late, wrong))),
            sent(b"{", 9, headers=(("x-odd", b"\xff"),)),
        ),
        blows=(Blow("kill", "call-1", PID, 60.0, 60.0),),
        calls=(call(1), call(2, "What?", arrived=59.0, ended=61.0, status=None, usage=None), call(3, "What?", arrived=70.0, ended=71.0)),
        topics={
            "responses": tuple(published("responses", told) for told in (*ended.values(), ended["paid"], refused)),
            "costs": tuple(published("costs", cost(ended[name], states[name])) for name in ended),
            "dead": (letter,),
        },
        rows=rows,
        counters=(Counter(1, '{"tenant":"a"}', "usd", "day", AT, 0, 2 * COST * 10_000 + 900_000),),
        verified={"requests": 4, "attempts": 3, "spent_usd": "0.00006", "problems": []},
    )


def _topic(e: Evidence, name: str, records: Callable[[tuple[Record, ...]], tuple[Record, ...]]) -> Evidence:
    return replace(e, topics={**e.topics, name: records(e.topics[name])})


def _told(e: Evidence, topic: str, key: bytes, **change: Any) -> Evidence:
    """Every record of this key on this topic says something else."""

    def other(record: Record) -> Record:
        return replace(record, value=json.dumps(json.loads(record.value or b"") | change).encode()) if record.key == key else record

    return _topic(e, topic, lambda records: tuple(map(other, records)))


def _row(e: Evidence, key: str, **change: Any) -> Evidence:
    return replace(e, rows={**e.rows, key: replace(e.rows[key], **change)})


def _attempt(e: Evidence, key: str, n: int = 1, **change: Any) -> Evidence:
    attempts = tuple(replace(a, **change) if a.n == n else a for a in e.rows[key].attempts)
    return _row(e, key, attempts=attempts)


def _call(e: Evidence, n: int, **change: Any) -> Evidence:
    return replace(e, calls=tuple(replace(c, **change) if c.n == n else c for c in e.calls))


def _sent(e: Evidence, offset: int, **change: Any) -> Evidence:
    """The record at this offset was, in truth, another."""
    return replace(e, sent=tuple(replace(r, **change) if r.offset == offset else r for r in e.sent))


def _due(e: Evidence, name: str, at_s: float) -> Evidence:
    """The request of this name had this deadline, on the clock of calls and blows."""
    deadline = (AT + timedelta(seconds=at_s - 50)).isoformat()
    bodies = [json.loads(r.value or b"") if r.value != b"{" else {} for r in e.sent]
    dated = [
        replace(r, value=json.dumps(body | {"deadline_at": deadline}).encode()) if body.get("request_id") == name else r
        for r, body in zip(e.sent, bodies, strict=True)
    ]
    return replace(e, sent=tuple(dated))


def _frozen(e: Evidence, began: float, ended: float, pid: int = PID) -> Evidence:
    return replace(e, blows=(*e.blows, Blow("freeze", "call-1", pid, began, ended)))


LIES: dict[str, tuple[str, Callable[[Evidence], Evidence]]] = {
    "a request is lost": (
        "every_readable_request_has_one_ending",
        lambda e: _topic(e, "responses", lambda records: tuple(r for r in records if r.key != b"a/cut")),
    ),
    "a repeat gets no copy": ("every_readable_request_has_one_ending", lambda e: _topic(e, "responses", lambda r: (*r[:4], r[5]))),
    "a copy is not the same": (
        "every_readable_request_has_one_ending",
        lambda e: _topic(e, "responses", lambda r: (*r, replace(r[0], value=(r[0].value or b"") + b" "))),
    ),
    "a bug": (
        "every_readable_request_has_one_ending",
        lambda e: _told(e, "responses", b"a/late", status="failed", reason={"code": "internal"}),
    ),
    "an answer to nobody": (
        "every_readable_request_has_one_ending",
        lambda e: _topic(e, "responses", lambda r: (*r, replace(r[0], key=b"a/nobody"))),
    ),
    "under way for ever": ("endings_are_in_the_books", lambda e: _row(e, "a/cut", status=None)),
    "another ending in the books": ("endings_are_in_the_books", lambda e: _row(e, "a/paid", response=b"{}")),
    "answered and not booked": (
        "endings_are_in_the_books",
        lambda e: replace(e, rows={k: r for k, r in e.rows.items() if k != "a/cached"}),
    ),
    "expired in time": ("only_the_late_expire", lambda e: _told(e, "responses", b"a/paid", status="expired")),
    "expired a second before the deadline that it named": (
        "only_the_late_expire",
        lambda e: _due(_told(e, "responses", b"a/paid", status="expired"), "paid", 52),
    ),
    "expired in the bulk lane after two minutes": (
        "only_the_late_expire",
        lambda e: _sent(_told(e, "responses", b"a/cut", status="expired", finished_at="2026-05-04T12:02:01Z"), 2, topic="requests.bulk"),
    ),
    "answered, and it came too late": ("only_the_late_expire", lambda e: _told(e, "responses", b"a/late", status="answered")),
    "a dead letter is lost": ("unreadable_records_are_dead_letters", lambda e: _topic(e, "dead", lambda _: ())),
    "a dead letter with other bytes": (
        "unreadable_records_are_dead_letters",
        lambda e: _topic(e, "dead", lambda r: (replace(r[0], value=b"{}"),)),
    ),
    "a dead letter without the headers": (
        "unreadable_records_are_dead_letters",
        lambda e: _topic(e, "dead", lambda r: (replace(r[0], headers=r[0].headers[1:]),)),
    ),
    "a dead letter of a good record": (
        "unreadable_records_are_dead_letters",
        lambda e: _topic(
            e, "dead", lambda r: (*r, replace(r[0], value=e.sent[0].value, headers=(*r[0].headers[1:3], ("x-dead-offset", b"0"))))
        ),
    ),
    "no cost record": ("every_ending_has_its_cost_record", lambda e: _topic(e, "costs", lambda r: r[1:])),
    "a revision is not published": ("every_ending_has_its_cost_record", lambda e: _row(e, "a/paid", revision=2)),
    "a revision with two values": (
        "every_ending_has_its_cost_record",
        lambda e: _topic(e, "costs", lambda r: (*r, replace(r[0], value=(r[0].value or b"") + b" "))),
    ),
    "an attempt at another price": ("money_adds_up", lambda e: _attempt(e, "a/paid", cost=1)),
    "unconfirmed below the worst case": ("money_adds_up", lambda e: _attempt(e, "a/cut", cost=1)),
    "reserved for ever": ("money_adds_up", lambda e: _attempt(e, "a/cut", state="reserved")),
    "levers that do not add up": ("money_adds_up", lambda e: _told(e, "costs", b"a/paid", baseline_usd="0.000751")),
    "a counter that is off": (
        "counters_are_the_sums_of_their_attempts",
        lambda e: replace(e, counters=(replace(e.counters[0], spent=e.counters[0].spent + 1),)),
    ),
    "money that stays reserved": (
        "counters_are_the_sums_of_their_attempts",
        lambda e: replace(e, counters=(replace(e.counters[0], reserved=1),)),
    ),
    "an audit with a finding": ("the_books_verify", lambda e: replace(e, verified=e.verified | {"problems": ["a lost row"]})),
    "an audit that has not seen all": ("the_books_verify", lambda e: replace(e, verified=e.verified | {"attempts": 2})),
    "an audit with other sums": ("the_books_verify", lambda e: replace(e, verified=e.verified | {"spent_usd": "0.00005"})),
    "a budget is passed": (
        "no_budget_is_passed",
        lambda e: replace(e, run={**e.run, "budgets": [{"scope": {"tenant": "a"}, "window": "day", "limit_usd": "0.000149"}]}),
    ),
    "the provider bills more than the budget": (
        "no_budget_is_passed",
        lambda e: _call(e, 2, status=200, usage={"prompt_tokens": 1000, "completion_tokens": 1}),
    ),
    "a call without an attempt": ("every_call_has_its_attempt", lambda e: replace(e, calls=(*e.calls, call(4)))),
    "a call that nobody asked for": ("every_call_has_its_attempt", lambda e: replace(e, calls=(*e.calls, call(4, "Who?")))),
    "a settled attempt without a call": ("every_call_has_its_attempt", lambda e: replace(e, calls=e.calls[1:])),
    "an answer that was never given": (
        "answers_are_those_of_their_calls",
        lambda e: _attempt(e, "a/paid", answer={"content": "[call 7] So."}),
    ),
    "an answer to another question": (
        "answers_are_those_of_their_calls",
        lambda e: _attempt(e, "a/paid", answer={"content": "[call 3] So."}),
    ),
    "settled without its answer": ("answers_are_those_of_their_calls", lambda e: _attempt(e, "a/paid", answer=None)),
    "tokens that were not billed": (
        "answers_are_those_of_their_calls",
        lambda e: _attempt(e, "a/paid", input_tokens=14, output_tokens=4, cost=300_000),
    ),
    "cut off, and nothing had happened": ("calls_made_twice_were_cut_off", lambda e: replace(e, blows=())),
    "cut off far from any kill": (
        "calls_made_twice_were_cut_off",
        lambda e: _call(e, 2, arrived=50.0, ended=51.0),
    ),
    "cut off after the kill": ("calls_made_twice_were_cut_off", lambda e: _call(e, 2, arrived=66.0, ended=67.0)),
    "cut off as another process was killed": (
        "calls_made_twice_were_cut_off",
        lambda e: replace(e, blows=(replace(e.blows[0], pid=PID + 1),)),
    ),
    "cut off long after the database was back": (
        "calls_made_twice_were_cut_off",
        lambda e: replace(e, blows=(Blow("database_crash", None, None, 40.0, 42.0),)),
    ),
    "repeated, and the kill explains one only": (
        "calls_made_twice_were_cut_off",
        lambda e: replace(e, calls=(*e.calls, call(4, "What?", arrived=59.5, ended=60.5))),
    ),
    "timed out in a second": ("calls_made_twice_were_cut_off", lambda e: _attempt(replace(e, blows=()), "a/cut", outcome="timeout")),
    "cut off, and not to be seen": ("calls_made_twice_were_cut_off", lambda e: _attempt(e, "a/cut", state="abandoned")),
    "a call three seconds after its deadline": ("no_call_starts_after_its_deadline", lambda e: _due(e, "cut", 67)),
    "a call three seconds after the deadline that it did not name": (
        "no_call_starts_after_its_deadline",
        lambda e: _call(e, 3, arrived=143.0, ended=144.0),
    ),
    "a call after the deadline of all who ask it": (
        "no_call_starts_after_its_deadline",
        lambda e: _due(_due(e, "paid", 45), "cached", 46),
    ),
    "a call after its deadline, and another process was frozen": (
        "no_call_starts_after_its_deadline",
        lambda e: _frozen(_due(e, "cut", 67), 66.0, 69.5, PID + 1),
    ),
    "a call after its deadline, and its process was frozen before it": (
        "no_call_starts_after_its_deadline",
        lambda e: _frozen(_due(e, "cut", 67), 62.0, 66.5),
    ),
    "a call seconds after its process was thawed": (
        "no_call_starts_after_its_deadline",
        lambda e: _frozen(_due(e, "cut", 65), 64.0, 67.5),
    ),
    "a call after its deadline, and the database had crashed": (
        "no_call_starts_after_its_deadline",
        lambda e: _due(replace(e, blows=(*e.blows, Blow("database_crash", None, None, 66.0, 69.5))), "cut", 67),
    ),
    "a call without a limit": ("every_call_is_bounded", lambda e: _call(e, 1, max_tokens=None)),
    "an answer of another tenant": (
        "cached_answers_stay_at_home",
        lambda e: _topic(
            _sent(e, 4, value=json.dumps(question("cached", tenant="b")).encode()),
            "responses",
            lambda r: (*r, published("responses", response(question("cached", tenant="b"), content="[call 1] So.", source="cache_exact"))),
        ),
    ),
    "an answer about other documents": (
        "cached_answers_stay_at_home",
        lambda e: _sent(e, 3, value=json.dumps(question("cached", documents=("manual-a",))).encode()),
    ),
    "an answer that no cache may give": ("cached_answers_stay_at_home", lambda e: _sent(e, 3, uncacheable=True)),
    "an answer of nobody": ("cached_answers_stay_at_home", lambda e: _told(e, "responses", b"a/cached", content="[call 2] So.")),
    "a worker that ends by itself": ("the_fleet_is_steady_again", lambda e: replace(e, run={**e.run, "seen": ["call-1 ended by itself"]})),
}


def test_the_truth_is_believed() -> None:
    assert {rule: found for rule, found in judge(right()).items() if found} == {}


def test_of_two_empty_answers_the_one_that_a_kill_cut_off_is_the_one_that_is_not_booked() -> None:
    e = _attempt(right(), "a/cut", n=2, answer={"content": ""})
    e = _told(e, "responses", b"a/cut", status="failed", reason={"code": "provider_error"}, content=None, source=None)
    kept = next(r.value for r in e.topics["responses"] if r.key == b"a/cut")
    e = _row(e, "a/cut", status="failed", response=kept)

    assert judge(e)["calls_made_twice_were_cut_off"] == []
    assert judge(_call(e, 2, arrived=99.0, ended=99.5))["calls_made_twice_were_cut_off"]


def test_a_call_under_way_as_the_database_crashed_or_that_took_all_of_its_time_is_cut_off_too() -> None:
    crash = replace(right(), blows=(Blow("database_crash", None, None, 58.0, 58.5),))
    assert judge(crash)["calls_made_twice_were_cut_off"] == []
    late = _attempt(replace(right(), blows=()), "a/cut", outcome="timeout", settled_at=AT + timedelta(seconds=6))
    assert judge(late)["calls_made_twice_were_cut_off"] == []


def _much_later_in_bulk(e: Evidence) -> Evidence:
    return _sent(_call(e, 3, arrived=143.0, ended=144.0), 2, topic="requests.bulk")


@pytest.mark.parametrize(
    "told",
    [
        pytest.param(lambda e: _due(e, "cut", 68.5), id="on its way for a second and a half"),
        pytest.param(lambda e: _frozen(_due(e, "cut", 65), 64.0, 69.5), id="its process was frozen over the deadline"),
        pytest.param(lambda e: _due(e, "paid", 45), id="another one who asks the same has the time"),
        pytest.param(lambda e: _due(replace(e, run={**e.run, "start_s": 60.0}), "cut", 67), id="a machine half as fast"),
        pytest.param(_much_later_in_bulk, id="the bulk lane has a day"),
    ],
)
def test_a_call_that_was_begun_in_time_may_arrive_a_little_late(told: Callable[[Evidence], Evidence]) -> None:
    assert judge(told(right()))["no_call_starts_after_its_deadline"] == []


def test_from_its_deadline_on_a_request_may_expire_and_what_it_paid_for_may_still_come() -> None:
    expired = _due(_told(right(), "responses", b"a/cut", status="expired"), "cut", 51)
    assert judge(expired)["only_the_late_expire"] == []
    assert judge(_due(right(), "cut", 48))["only_the_late_expire"] == []


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_found(lie: str) -> None:
    rule, tell = LIES[lie]
    assert judge(tell(right()))[rule], f"{rule} believes it"


def test_every_rule_is_lied_to() -> None:
    assert {rule.__name__ for rule in RULES} == {rule for rule, _ in LIES.values()}


def test_figures() -> None:
    told = figures(right())
    assert (told["sent"], told["requests"], told["unreadable"]) == (7, 5, 1)
    assert told["by_status"] == {"answered": 3, "expired": 1}
    assert (told["calls"], told["calls_cut_off"], told["copies_beyond_those_asked_for"]) == (3, 1, 0)
    assert (told["of_the_hurried"], told["latest_call_s"]) == ({}, 0)
    hurried = figures(_due(right(), "cut", 69))
    assert (hurried["of_the_hurried"], hurried["latest_call_s"]) == ({"answered": 1}, 1)
