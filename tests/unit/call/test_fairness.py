"""Turns: no tenant beyond its cap, room for others where they ask, and nobody who waits is lost, counted or late."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import Compressed
from tests.unit.call.build import event, policy
from workers.call.fairness import GONE_S, LATELY_S, LONGEST_S, PAUSE_S, Turns, make_fair
from workers.call.slots import under_way
from workers.outcomes import Emit, Outcome, Retry


class Clock:
    def __init__(self) -> None:
        self.at = 100.0

    def __call__(self) -> float:
        return self.at


def test_a_tenant_alone_has_the_whole_window() -> None:
    turns = Turns(8, Clock())
    assert [turns.take("a", f"r{n}", None) for n in range(under_way(8))] == [None] * 16
    assert turns.take("a", "one more", None) is not None


@pytest.mark.parametrize("cap", [None, 1000])
@pytest.mark.parametrize(("window", "most"), [(1, 1), (2, 1), (8, 7), (32, 28), (100, 88)])
def test_room_is_kept_while_others_ask(window: int, most: int, cap: int | None) -> None:
    clock = Clock()
    turns = Turns(window, clock)
    assert turns.take("b", "only", None) is None
    turns.give_back("b")
    taken = [turns.take("a", f"r{n}", cap) for n in range(window)]
    assert taken.count(None) == most

    clock.at += LATELY_S + 1
    assert turns.take("a", "late", cap) is None, "the room is for those who ask"


def test_the_newest_of_two_tenants_is_held_to_it_as_well() -> None:
    turns = Turns(4, Clock())
    assert [turns.take("a", f"a{n}", None) for n in range(3)] == [None] * 3
    assert [turns.take("b", f"b{n}", None) is None for n in range(4)] == [True, True, True, False]
    assert turns.take("a", "a3", None) is not None


def test_a_cap_of_its_own_holds_whoever_asks() -> None:
    turns = Turns(32, Clock())
    assert [turns.take("a", f"r{n}", 3) is None for n in range(5)] == [True, True, True, False, False]
    assert turns.take("b", "r", 3) is None
    turns.give_back("a")
    assert turns.take("a", "r3", 3) is None
    assert turns.take("a", "r4", 3) is not None
    assert turns.take("a", "r4", 4) is None, "a changed policy counts from the next ask"


def test_the_oldest_asks_most_often_and_all_together_seldom() -> None:
    turns = Turns(4, Clock())
    turns.take("a", "running", 1)
    first = [turns.take("a", f"r{n}", 1) or 0 for n in range(320)]
    again = [turns.take("a", f"r{n}", 1) or 0 for n in range(320)]
    assert first == again == sorted(first)
    assert (first[0], max(first)) == (PAUSE_S, LONGEST_S)
    assert sum(1 / pause for pause in first) < 200, "asks a second"
    turns.give_back("a")
    assert turns.take("a", "r0", 1) is None
    assert turns.take("a", "r1", 1) == PAUSE_S, "it moves up"


def test_who_does_not_come_back_is_forgotten() -> None:
    clock = Clock()
    turns = Turns(4, clock)
    turns.take("a", "running", 1)
    for n in range(10):
        turns.take("a", f"gone{n}", 1)
    assert turns.waiting == 10
    clock.at += LONGEST_S + GONE_S + 1
    assert turns.take("a", "here", 1) == PAUSE_S
    assert turns.waiting == 1


def test_also_where_its_tenant_asks_no_more() -> None:
    clock = Clock()
    turns = Turns(4, clock)
    for tenant in ("a", "b"):
        turns.take(tenant, "running", 1)
        turns.take(tenant, "gone", 1)
        turns.give_back(tenant)
    clock.at += LONGEST_S + GONE_S + 1
    turns.take("c", "here", None)
    assert set(turns._lines) == {"c"}
    turns.take("d", "running", 1)
    turns.take("d", "gone", 1)
    clock.at += LONGEST_S + GONE_S + 1
    assert turns.waiting == 0


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 30), st.booleans()), max_size=200), st.integers(1, 9))
def test_never_more_than_the_cap(steps: list[tuple[str, int, bool]], window: int) -> None:
    """Whatever comes and goes: no tenant above its cap or its room, and below both nobody waits."""
    clock = Clock()
    turns = Turns(window, clock)
    running: Counter[str] = Counter()
    caps = {"a": 1, "b": 3, "c": None}
    asked: dict[str, float] = {}
    for tenant, request, gives_back in steps:
        clock.at += 0.5
        if gives_back and running[tenant]:
            turns.give_back(tenant)
            running[tenant] -= 1
            continue
        granted = turns.take(tenant, str(request), caps[tenant]) is None
        others = any(clock.at - at <= LATELY_S for other, at in asked.items() if other != tenant)
        room = max(window - 1, 1) if others else under_way(window)
        assert granted == (running[tenant] < min(caps[tenant] or room, room))
        running[tenant] += granted
        asked[tenant] = clock.at


class Stage:
    """A `call` that runs until it is let go."""

    def __init__(self) -> None:
        self.running: list[str] = []
        self.two = asyncio.Event()
        self.go = asyncio.Event()

    async def __call__(self, asked: Compressed) -> Outcome:
        self.running.append(asked.facts.request_id)
        if len(self.running) == 2:
            self.two.set()
        await self.go.wait()
        return Emit()


async def test_a_request_at_the_cap_waits_without_a_call() -> None:
    stage = Stage()
    capped = policy(tenants={"acme": {"max_in_flight": 1}, "unknown": "allow"})
    fair = make_fair(stage, Turns(8), lambda: capped)
    first, other = asyncio.ensure_future(fair(event("first"))), asyncio.ensure_future(fair(event("other", tenant="umbrella")))
    await stage.two.wait()
    held = await fair(event("second"))
    assert isinstance(held, Retry)
    assert held.after > 0
    stage.go.set()
    assert await first == await other == await fair(event("second")) == Emit()
    assert stage.running == ["first", "other", "second"]


async def test_it_comes_back_for_its_deadline_and_ends_past_it() -> None:
    stage = Stage()
    stage.go.set()
    capped = policy(tenants={"acme": {"max_in_flight": 1}})
    turns = Turns(8)
    fair = make_fair(stage, turns, lambda: capped)
    turns.take("acme", "another", 1)
    soon = await fair(event("soon", deadline_s=0.01))
    assert isinstance(soon, Retry)
    assert soon.after <= 0.01
    assert await fair(event("late", deadline_s=-1)) == Emit(), "the stage says how it ends; it takes no turn"
    assert turns.waiting == 1
    assert await fair(event("soon", deadline_s=-1)) == Emit()
    assert turns.waiting == 0, "what has ended waits no longer"


async def test_a_turn_is_given_back_whatever_happens() -> None:
    async def broken(_event: Compressed) -> Outcome:
        raise RuntimeError

    capped = policy(tenants={"acme": {"max_in_flight": 1}})
    turns = Turns(8)
    fair = make_fair(broken, turns, lambda: capped)
    for _ in range(3):
        with pytest.raises(RuntimeError):
            await fair(event())
    hanging = asyncio.ensure_future(make_fair(Stage(), turns, lambda: capped)(event()))
    await asyncio.sleep(0)
    hanging.cancel()
    await asyncio.gather(hanging, return_exceptions=True)
    assert turns.take("acme", "next", 1) is None
