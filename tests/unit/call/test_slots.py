"""Slots: as many calls with a model as the window says; a few more ask ahead; what is being settled holds none; who waits too long comes
again, at no cost."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import workers.call.slots
from tests.provider import Provider
from tests.unit.call.build import event
from tests.unit.call.stage import Stage, finished, reason
from workers.call.call import LATE_S
from workers.call.slots import FLOW_S, NoSlot, Slots
from workers.ledger.types import Granted
from workers.outcomes import Outcome, Retry


async def test_no_more_calls_at_once_than_slots(stage: Stage, server: Provider) -> None:
    stage.slots["interactive"] = Slots(2)
    under_way, most, both = 0, 0, asyncio.Event()
    complete = stage.client.complete

    async def counted(*args: Any, **options: Any) -> Any:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        if under_way == 2:
            both.set()
        await both.wait()
        try:
            return await complete(*args, **options)
        finally:
            under_way -= 1

    stage.complete = counted
    ended = await asyncio.gather(*(stage(event(request_id=f"r{n}")) for n in range(8)))
    assert [finished(e).status for e in ended] == ["answered"] * 8
    assert most == 2


async def test_a_slot_is_free_while_an_answer_is_settled(stage: Stage, server: Provider) -> None:
    stage.slots["interactive"] = Slots(1)
    stage.gate.clear()
    first = asyncio.create_task(stage(event(request_id="first")))
    await stage.settles.wait()
    second = asyncio.create_task(stage(event(request_id="second")))
    stage.settles.clear()
    await stage.settles.wait()
    assert (len(server.calls), first.done()) == (2, False)
    stage.gate.set()
    assert [finished(e).status for e in await asyncio.gather(first, second)] == ["answered"] * 2


class Clock:
    """The slots' clock, which stands still."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


async def hang(stage: Stage, *names: str) -> tuple[asyncio.Event, list[asyncio.Task[Outcome]]]:
    """Requests that take every slot: their model answers when the event is set."""
    answered, complete, sent = asyncio.Event(), stage.complete, asyncio.Semaphore(0)

    async def hangs(*args: Any, **options: Any) -> Any:
        sent.release()
        await answered.wait()
        return await complete(*args, **options)

    stage.complete = hangs
    tasks = [asyncio.create_task(stage(event(request_id=name))) for name in names]
    for _ in names:
        await sent.acquire()
    return answered, tasks


async def until_asked(stage: Stage, times: int) -> None:
    while len(stage.asked) < times:  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0.001)


@pytest.mark.parametrize(("freed", "ahead"), [(1, ["e"]), (2, ["e", "f"]), (3, ["e", "f"])])
async def test_as_many_ask_ahead_as_slots_came_free_lately_and_half_the_window_at_most(
    stage: Stage, server: Provider, freed: int, ahead: list[str]
) -> None:
    stage.slots["interactive"] = Slots(4, Clock())
    for n in range(freed):
        assert finished(await stage(event(request_id=f"before {n}"))).status == "answered"
    answered, tasks = await hang(stage, *"abcd")
    tasks += [asyncio.create_task(stage(event(request_id=name))) for name in "efgh"]
    await until_asked(stage, freed + 4 + len(ahead))
    await asyncio.sleep(0.05)
    assert ([ask.facts.request_id for ask in stage.asked[freed + 4 :]], len(server.calls)) == (ahead, freed)
    answered.set()
    assert [finished(e).status for e in await asyncio.gather(*tasks)] == ["answered"] * 8
    assert len(server.calls) == freed + 8


async def test_while_no_slot_comes_free_nobody_asks_ahead(stage: Stage, server: Provider) -> None:
    clock = Clock()
    stage.slots["interactive"] = Slots(4, clock)
    assert finished(await stage(event(request_id="before"))).status == "answered"
    clock.now += FLOW_S + 0.1
    answered, tasks = await hang(stage, *"abcd")
    tasks.append(asyncio.create_task(stage(event(request_id="e"))))
    await asyncio.sleep(0.05)
    assert len(stage.asked) == 5
    answered.set()
    assert [finished(e).status for e in await asyncio.gather(*tasks)] == ["answered"] * 5


async def test_who_waits_too_long_for_a_slot_comes_again(stage: Stage, server: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers.call.slots, "WAIT_S", 0.01)
    stage.slots["interactive"] = Slots(1)
    answered, tasks = await hang(stage, "a")
    assert await stage(event(request_id="b")) == Retry("slot", 0)
    assert ([ask.facts.request_id for ask in stage.asked], len(server.calls)) == (["a"], 0)
    answered.set()
    await asyncio.gather(*tasks)


async def test_a_grant_that_waits_too_long_for_a_slot_is_given_up_at_no_cost(
    stage: Stage, server: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers.call.slots, "WAIT_S", 0.05)
    monkeypatch.setattr(workers.call.slots, "FLOW_S", 0.01)
    stage.slots["interactive"] = Slots(1, Clock())
    assert finished(await stage(event(request_id="before"))).status == "answered"
    answered, tasks = await hang(stage, "a")
    late = event(request_id="b")
    assert await stage(late) == Retry("slot", 0)
    assert [(s.request_id, s.state, s.outcome, s.cost) for s in stage.settled[1:]] == [("b", "abandoned", "not_sent", 0)]
    answered.set()
    await asyncio.gather(*tasks)
    assert finished(await stage(late)).status == "answered"
    of_b = [(s.n, s.state) for s in stage.settled if s.request_id == "b"]
    assert (of_b, len(server.calls)) == ([(1, "abandoned"), (2, "settled")], 3)


async def test_a_grant_whose_deadline_passes_in_the_wait_for_a_slot_is_not_sent(stage: Stage, server: Provider) -> None:
    stage.slots["interactive"] = Slots(1, Clock())
    assert finished(await stage(event(request_id="before"))).status == "answered"
    answered, tasks = await hang(stage, "a")
    late = event(request_id="b", deadline_s=1)
    asking = asyncio.create_task(stage(late))
    await until_asked(stage, 3)
    await asyncio.sleep(1.1)
    answered.set()
    assert await asking == Retry("slot", LATE_S)
    await asyncio.gather(*tasks)
    assert [(s.state, s.outcome, s.cost) for s in stage.settled if s.request_id == "b"] == [("abandoned", "not_sent", 0)]
    assert reason(await stage(late)) == ("expired", "deadline_passed")
    assert len(server.calls) == 2


async def test_a_grant_that_comes_after_the_deadline_is_not_sent(stage: Stage, server: Provider) -> None:
    """The ledger was away, and answers the question from before the deadline."""
    late = event(request_id="b", deadline_s=-1)
    stage.scripted = [Granted(1, ())]
    assert await stage(late) == Retry("slot", LATE_S)
    assert ([(s.state, s.outcome) for s in stage.settled], len(server.calls)) == ([("abandoned", "not_sent")], 0)


async def test_whose_patience_is_nearly_over_asks_only_with_a_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    """A grant is not asked for that would be given up at once."""
    monkeypatch.setattr(workers.call.slots, "WAIT_S", FLOW_S / 2)
    slots = Slots(1, Clock())
    async with slots.asking():
        pass  # a slot comes free: others may ask ahead
    async with slots.asking() as place:
        await place.take()
        with pytest.raises(NoSlot):
            async with slots.asking():
                pytest.fail("it would ask")


async def test_both_waits_together_are_as_long_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a stop, which lets running calls finish, would find a call begun too late to finish."""
    monkeypatch.setattr(workers.call.slots, "WAIT_S", 1.0)
    monkeypatch.setattr(workers.call.slots, "FLOW_S", 0.01)
    slots = Slots(1, Clock())
    async with slots.asking():
        pass  # a slot comes free: others may ask ahead
    enough = asyncio.Event()

    async def hold(*, slot: bool) -> None:
        async with slots.asking() as place:
            if slot:
                await place.take()
                await enough.wait()
            else:
                await asyncio.sleep(0.8)

    holding = [asyncio.create_task(hold(slot=True)), asyncio.create_task(hold(slot=False))]
    await asyncio.sleep(0)
    began = asyncio.get_running_loop().time()
    with pytest.raises(NoSlot):
        async with slots.asking() as place:
            await place.take()
    assert asyncio.get_running_loop().time() - began < 1.6, "0.8 for leave to ask, and the rest for the slot"
    enough.set()
    await asyncio.gather(*holding)


@pytest.mark.parametrize("broken", ["open", "complete"])
async def test_a_slot_is_given_back_whatever_happens(stage: Stage, server: Provider, broken: str) -> None:
    stage.slots["interactive"] = Slots(1)

    async def breaks(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError

    whole = getattr(stage, broken)
    setattr(stage, broken, breaks)
    with pytest.raises(ZeroDivisionError):
        await stage(event(request_id="first"))
    setattr(stage, broken, whole)
    assert finished(await stage(event(request_id="second"))).status == "answered"
