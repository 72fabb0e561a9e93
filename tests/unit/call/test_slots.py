"""Slots: as many calls with a model as the window says; what is being settled holds none; who waits too long comes again, at no cost."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import workers.call.call
from tests.provider import Provider
from tests.unit.call.build import event
from tests.unit.call.stage import Stage, finished
from workers.outcomes import Retry


async def test_no_more_calls_at_once_than_slots(stage: Stage, server: Provider) -> None:
    stage.slots["interactive"] = asyncio.Semaphore(2)
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
    stage.slots["interactive"] = asyncio.Semaphore(1)
    stage.gate.clear()
    first = asyncio.create_task(stage(event(request_id="first")))
    await stage.settles.wait()
    second = asyncio.create_task(stage(event(request_id="second")))
    stage.settles.clear()
    await stage.settles.wait()
    assert (len(server.calls), first.done()) == (2, False)
    stage.gate.set()
    assert [finished(e).status for e in await asyncio.gather(first, second)] == ["answered"] * 2


async def test_who_waits_too_long_for_a_slot_comes_again(stage: Stage, server: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers.call.call, "SLOT_WAIT_S", 0.01)
    stage.slots["interactive"] = asyncio.Semaphore(0)
    assert await stage(event()) == Retry("slot", 0)
    assert (stage.asked, len(server.calls)) == ([], 0)


@pytest.mark.parametrize("broken", ["open", "complete"])
async def test_a_slot_is_given_back_whatever_happens(stage: Stage, server: Provider, broken: str) -> None:
    stage.slots["interactive"] = asyncio.Semaphore(1)

    async def breaks(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError

    whole = getattr(stage, broken)
    setattr(stage, broken, breaks)
    with pytest.raises(ZeroDivisionError):
        await stage(event(request_id="first"))
    setattr(stage, broken, whole)
    assert finished(await stage(event(request_id="second"))).status == "answered"
