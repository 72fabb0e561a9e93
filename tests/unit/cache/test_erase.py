"""Erasure in the cache: on a server and in a directory; and every way in which entries may be left."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.servers.qdrant import qdrant_over_rest
from tests.unit.cache.events import NOON, Counted, answer, ask
from workers.cache.cache import make_cache
from workers.cache.erase import erase
from workers.cache.qdrant import StoreMisfit
from workers.cache.remember import make_remember
from workers.cache.store import Store, open_store
from workers.outcomes import Emit, Unavailable

ASKED = {
    ("acme", "ann", "tenant"): "ann asks for all",
    ("acme", "ann", "user"): "ann asks for herself",
    ("acme", "bob", "tenant"): "bob asks for all",
    ("acme", "bob", "user"): "bob asks for himself",
    ("acme", None, "tenant"): "nobody asks",
    ("umbrella", "ann", "user"): "another ann asks",
}


@asynccontextmanager
async def opened(**where: Any) -> AsyncIterator[Store]:
    settings = {"url": "", "path": None, "api_key": "", "collection": "answers", "dim": 4, "timeout_s": 10}
    store = await open_store(**settings | where, observe=Counted())
    try:
        yield store
    finally:
        await store.close()


async def through(store: Store, remembers: bool) -> set[str]:
    """Ask every question; those that were answered from the cache. What was not is remembered, if so wanted."""
    counted = Counted()
    cache = make_cache(encode=lambda texts: [], encoder_name="none", store=store, now=lambda: NOON, observe=counted)
    remember = make_remember(encode=lambda texts: [], encoder_name="none", store=store, now=lambda: NOON, observe=counted)
    served = set()
    for (tenant, user, share), text in ASKED.items():
        (outcome,) = await cache([ask(text, tenant=tenant, user=user, cache={"share": share, "semantic": False})])
        if not isinstance(outcome, Emit):
            served.add(text)
        elif remembers:
            (message,) = outcome.messages
            await remember([answer(message.value)])  # type: ignore[arg-type]
    return served


@pytest.fixture(params=["server", "path"])
async def where(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[dict[str, Any]]:
    if request.param == "path":
        yield {"url": "", "path": tmp_path / "cache"}
    else:
        async with qdrant_over_rest() as rest:
            yield {"url": rest.url, "path": None}


@pytest.mark.parametrize(
    ("tenant", "user", "gone"),
    [
        ("acme", "ann", {"ann asks for all", "ann asks for herself"}),
        ("acme", None, {text for (tenant, _, _), text in ASKED.items() if tenant == "acme"}),
        ("umbrella", "ann", {"another ann asks"}),
        ("acme", "nobody", set()),
    ],
)
async def test_what_they_asked_goes_and_nothing_else(where: dict[str, Any], tenant: str, user: str | None, gone: set[str]) -> None:
    async with opened(**where) as store:
        await through(store, remembers=True)
        assert await through(store, remembers=False) == set(ASKED.values())
    who = {"api_key": "", "collection": "answers", "tenant": tenant, "user": user}
    assert await erase(**where, **who) == len(gone)
    assert await erase(**where, **who) == 0
    async with opened(**where) as store:
        assert await through(store, remembers=False) == set(ASKED.values()) - gone


async def test_no_collection_is_made(tmp_path: Path) -> None:
    who = {"api_key": "", "collection": "answers", "tenant": "acme", "user": None}
    async with qdrant_over_rest() as rest:
        assert await erase(url=rest.url, path=None, **who) == 0
        assert not await rest.engine.collection_exists("answers")
    assert await erase(url="", path=tmp_path / "none", **who) == 0
    assert list(tmp_path.iterdir()) == []  # noqa: ASYNC240


async def test_entries_may_be_left(tmp_path: Path) -> None:
    who = {"api_key": "", "collection": "answers", "tenant": "acme", "user": None}
    with pytest.raises(Unavailable, match="qdrant"):
        await erase(url="http://127.0.0.1:1", path=None, **who)
    async with opened(path=tmp_path / "held"):
        with pytest.raises(StoreMisfit, match="another process holds it"):
            await erase(url="", path=tmp_path / "held", **who)
    with pytest.raises(ValueError, match="another process's memory"):
        await erase(url="", path=None, **who)
