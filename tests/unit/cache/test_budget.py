"""A lookup waits for Qdrant no longer than its budget, over all its calls: told by what was asked for, and by who was still waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from types import SimpleNamespace

import numpy as np
import pytest

from workers.cache import qdrant
from workers.cache import store as module
from workers.cache.qdrant import Budget
from workers.cache.store import Search


async def test_what_one_call_takes_is_gone_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float | None] = []

    def noted(seconds: float | None) -> AbstractAsyncContextManager[object]:
        asked.append(seconds)
        return asyncio.timeout(None)

    ticks: Iterator[float] = iter([10.0, 10.02, 11.0, 11.03, 12.0, 12.0])
    monkeypatch.setattr(qdrant, "time", SimpleNamespace(monotonic=lambda: next(ticks)))
    monkeypatch.setattr(qdrant, "asyncio", SimpleNamespace(timeout=noted))
    budget = Budget(0.03)
    for _ in range(3):
        async with budget.spend():
            pass
    assert asked == pytest.approx([0.03, 0.01, 0.0])


async def test_a_used_up_budget_waits_for_nothing() -> None:
    budget = Budget(0.0)
    with pytest.raises(TimeoutError):
        async with budget.spend():
            await asyncio.Event().wait()


async def test_without_a_budget_it_takes_as_long_as_it_takes() -> None:
    async with Budget(None).spend():
        await asyncio.sleep(0)


async def test_a_lookup_is_over_while_qdrant_still_thinks() -> None:
    gone, errors = asyncio.Event(), list[tuple[str, str]]()

    async def thinking(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await gone.wait()
        writer.transport.abort()

    server = await asyncio.start_server(thinking, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    # Made by hand: to open it would wait for the collection, and this one never answers.
    client = module.AsyncQdrantClient(url=f"http://127.0.0.1:{port}", check_compatibility=False)
    store = module.Store(client, "c", 2, lambda event, why: errors.append((event, why)), 0.03)
    budget, now = store.budget(), datetime.now(UTC)
    assert await store.get(["00000000-0000-0000-0000-000000000001"], now, budget) == {}
    assert await store.standing(["f"] * 40, now, budget) == set()
    search = Search("s", "f", np.array([1.0, 0.0], np.float32), 0.9)
    assert await store.search([search] * 40, now, budget) == [[]] * 40
    assert set(errors) == {("error", "timeout")}
    assert not gone.is_set(), "nobody has answered, and the lookup is over"
    gone.set()
    await store.close()
    server.close()
