"""The store on embedded Qdrant, in memory and on disk, and against servers that are down, slow or wrong."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from qdrant_client import models

from schemas import TokensAround, Usage
from tests.servers.qdrant import qdrant_over_rest
from tests.unit.cache.events import NOON, Counted
from workers.cache import store as module
from workers.cache.entry import Entry, Vector, pack, unpack
from workers.cache.qdrant import StoreMisfit
from workers.cache.scope import form_id, point_id
from workers.cache.store import Search, Store, open_store
from workers.outcomes import Unavailable

DIM = 8


def vector(*head: float) -> Vector:
    full = np.array([*head, *[0.0] * (DIM - len(head))], dtype=np.float32)
    return full / np.float32(np.linalg.norm(full))


def entry(text: str, scope: str = "s", form: str | None = "f", ttl_s: int = 60, content: str = "An answer.") -> Entry:
    at = int(NOON.timestamp())
    return Entry(
        point_id=point_id(scope, text), scope=scope, tenant="acme", user=None, text=text, content=content, finish_reason="stop",
        form=None if form is None else form_id(scope, form), tier="light", model="mini", usage=Usage(output_tokens=3),
        tokens=TokensAround(before=1, after=1), created_at=at, expires_at=at + ttl_s,
    )  # fmt: skip


def search(head: Vector, scope: str = "s", form: str = "f", threshold: float = 0.9) -> Search:
    return Search(scope, form_id(scope, form), head, threshold)


@asynccontextmanager
async def opened(
    observe: Counted, path: Path | None = None, dim: int = DIM, url: str = "", timeout_s: float = 0.03
) -> AsyncIterator[Store]:
    store = await open_store(url=url, api_key="", path=path, collection="answers", dim=dim, timeout_s=timeout_s, observe=observe)
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture
def counted() -> Counted:
    return Counted()


@pytest.fixture(params=["memory", "path", "server"])
async def store(request: pytest.FixtureRequest, tmp_path: Path, counted: Counted) -> AsyncIterator[Store]:
    if request.param == "server":
        async with qdrant_over_rest() as rest, opened(counted, url=rest.url, timeout_s=10) as store:
            yield store
    else:
        async with opened(counted, tmp_path / "qdrant" if request.param == "path" else None) as store:
            yield store
    assert counted == []


async def test_what_is_put_is_got(store: Store) -> None:
    a, b = entry("a"), entry("b")
    assert await store.put([(a, vector(1)), (b, None)]) == 2
    assert await store.get([a.point_id, b.point_id, point_id("s", "c")], NOON) == {a.point_id: a, b.point_id: b}
    assert await store.get([], NOON) == {}


async def test_neighbours_come_nearest_first_and_only_above_the_threshold(store: Store) -> None:
    await store.put([(entry("far"), vector(0, 1)), (entry("near"), vector(1, 0.3)), (entry("same"), vector(1)), (entry("blind"), None)])
    (hits,) = await store.search([search(vector(1))], NOON)
    assert [hit.entry.text for hit in hits] == ["same", "near"]
    assert hits[0].similarity == pytest.approx(1)
    assert hits[0].similarity <= 1
    assert hits[1].similarity == pytest.approx(1 / np.hypot(1, 0.3), abs=1e-5)


async def test_a_similarity_is_never_above_one(store: Store) -> None:
    dice = np.random.default_rng(1)
    vectors = [vector(*dice.normal(size=DIM)) for _ in range(48)]
    await store.put([(entry("a", scope=str(i)), v) for i, v in enumerate(vectors)])
    found = await store.search([search(v, scope=str(i)) for i, v in enumerate(vectors)], NOON)
    similarities = [hits[0].similarity for hits in found]
    assert max(similarities) <= 1
    assert min(similarities) == pytest.approx(1)


async def test_at_most_five_neighbours(store: Store) -> None:
    await store.put([(entry(str(n)), vector(1, n / 100)) for n in range(9)])
    (hits,) = await store.search([search(vector(1))], NOON)
    assert [hit.entry.text for hit in hits] == ["0", "1", "2", "3", "4"]


async def test_another_scope_is_never_found(store: Store) -> None:
    await store.put([(entry("a", scope="theirs"), vector(1))])
    assert await store.search([search(vector(1), scope="ours")], NOON) == [[]]


async def test_another_form_is_never_found(store: Store) -> None:
    await store.put([(entry("a", form="theirs"), vector(1)), (entry("b", form=None), vector(1))])
    assert await store.search([search(vector(1), form="ours")], NOON) == [[]]


async def test_it_is_known_which_forms_have_entries(store: Store) -> None:
    await store.put([(entry("a"), None), (entry("b"), None), (entry("short", form="g", ttl_s=1), None), (entry("c", form=None), None)])
    f, g, unknown, theirs = form_id("s", "f"), form_id("s", "g"), form_id("s", "unknown"), form_id("theirs", "f")
    for at, standing in ((0, {f, g}), (1, {f}), (60, set())):
        assert await store.standing([f, g, unknown, theirs], NOON + timedelta(seconds=at)) == standing
    assert await store.standing([unknown] * 3 * module.SEARCHES_A_CALL + [g], NOON) == {g}
    assert await store.standing([], NOON) == set()


@pytest.mark.parametrize("crowd", [4, module.NEIGHBOURS, module.FEW + 1])
async def test_others_do_not_stand_in_the_way(store: Store, crowd: int) -> None:
    theirs = [(entry(str(n), scope="theirs"), vector(1)) for n in range(crowd)]
    of_another_form = [(entry(f"other {n}", form="g"), vector(1)) for n in range(crowd)]
    expired = [(entry(str(n), ttl_s=1), vector(1)) for n in range(crowd)]
    await store.put([*theirs, *of_another_form, *expired, (entry("mine"), vector(1, 0.1))])
    (hits,) = await store.search([search(vector(1))], NOON + timedelta(seconds=1))
    assert [hit.entry.text for hit in hits] == ["mine"]


async def test_a_server_that_ignores_the_filter_gives_nothing_away(counted: Counted) -> None:
    async with qdrant_over_rest() as rest, opened(counted, url=rest.url, timeout_s=10) as store:
        await store.put([(entry("theirs", scope="theirs"), vector(1)), (entry("old", ttl_s=1), vector(1)), (entry("mine"), vector(1))])
        rest.deaf = True
        (hits,) = await store.search([search(vector(1))], NOON + timedelta(seconds=1))
    assert [hit.entry.text for hit in hits] == ["mine"]


async def test_many_searches_are_answered_in_order(store: Store) -> None:
    n = 3 * module.SEARCHES_A_CALL + 1
    await store.put([(entry(f"text {i}", scope=f"scope {i}"), vector(1, i)) for i in range(n)])
    found = await store.search([search(vector(1, i), scope=f"scope {i}") for i in range(n)], NOON)
    assert [hits[0].entry.text for hits in found] == [f"text {i}" for i in range(n)]


async def test_expired_entries_are_not_found_and_swept(store: Store) -> None:
    short, long = entry("short", ttl_s=60), entry("long", ttl_s=61)
    await store.put([(short, vector(1)), (long, vector(1))])
    for at, texts in ((59.9, {"short", "long"}), (60, {"long"}), (61, set())):
        now = NOON + timedelta(seconds=at)
        assert {e.text for e in (await store.get([short.point_id, long.point_id], now)).values()} == texts
        (hits,) = await store.search([search(vector(1))], now)
        assert {hit.entry.text for hit in hits} == texts
    await store.sweep(NOON + timedelta(seconds=60))
    assert set(await store.get([short.point_id, long.point_id], NOON)) == {long.point_id}
    (hits,) = await store.search([search(vector(1))], NOON)
    assert [hit.entry.text for hit in hits] == ["long"]
    await store.sweep(NOON + timedelta(seconds=61))
    assert await store.standing([form_id("s", "f")], NOON) == set()


async def test_what_is_written_after_its_writer_has_gone_is_found(counted: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()
    async with opened(counted) as store:
        upsert = store._client.upsert

        async def slow(*args: Any, **named: Any) -> Any:  # in a thread
            loop.call_soon_threadsafe(begun.set)
            assert go.wait(10)
            return await upsert(*args, **named)

        monkeypatch.setattr(store._client, "upsert", slow)
        putting = asyncio.create_task(store.put([(entry("a"), vector(1))]))
        await begun.wait()
        putting.cancel()
        await asyncio.gather(putting, return_exceptions=True)
        go.set()
        await store.check()  # has to wait for its turn
        assert await store.standing([form_id("s", "f")], NOON) == {form_id("s", "f")}
        (hits,) = await store.search([search(vector(1))], NOON)
    assert [hit.entry for hit in hits] == [entry("a")]


async def test_a_second_put_replaces_the_first(store: Store) -> None:
    await store.put([(entry("a", content="old"), vector(1))])
    await store.put([(entry("a", content="new", ttl_s=99), vector(1))])
    (hits,) = await store.search([search(vector(1))], NOON)
    assert [hit.entry.content for hit in hits] == ["new"]


async def test_entries_outlive_the_process_that_wrote_them(tmp_path: Path, counted: Counted) -> None:
    async with opened(counted, tmp_path) as store:
        await store.put([(entry("a"), vector(1))])
    async with opened(counted, tmp_path) as store:
        assert await store.standing([form_id("s", "f")], NOON) == {form_id("s", "f")}
        (hits,) = await store.search([search(vector(1))], NOON)
        assert [hit.entry for hit in hits] == [entry("a")]


async def test_a_directory_has_one_process(tmp_path: Path, counted: Counted) -> None:
    async with opened(counted, tmp_path):
        code = (
            "import asyncio, sys; from pathlib import Path; from workers.cache.store import open_store\n"
            "asyncio.run(open_store(url='', api_key='', path=Path(sys.argv[1]), collection='answers', dim=8, timeout_s=1, observe=print))"
        )
        other = await asyncio.to_thread(
            subprocess.run, [sys.executable, "-W", "error", "-c", code, str(tmp_path)], capture_output=True, text=True, check=False
        )
    assert other.returncode == 1
    assert "StoreMisfit: SCRIMP_QDRANT__PATH=" in other.stderr
    assert "another process holds it" in other.stderr
    assert "ResourceWarning" not in other.stderr


@pytest.mark.parametrize(("path", "why"), [("/proc/cache", "No such file or directory"), ("/dev/null/cache", "Not a directory")])
async def test_a_directory_that_cannot_be_is_told(path: str, why: str, counted: Counted) -> None:
    with pytest.raises(StoreMisfit, match=f"^SCRIMP_QDRANT__PATH={path}: cannot be used: {why}$"):
        await open_store(url="", api_key="", path=Path(path), collection="answers", dim=8, timeout_s=1, observe=counted)


async def test_a_collection_of_another_encoder_is_refused(tmp_path: Path, counted: Counted) -> None:
    async with opened(counted, tmp_path):
        pass
    with pytest.raises(StoreMisfit, match=r"answers has vectors of 8, the encoder gives 9: set another SCRIMP_QDRANT__COLLECTION"):
        async with opened(counted, tmp_path, dim=9):
            pass


async def test_an_embedded_store_does_not_outgrow_its_search(monkeypatch: pytest.MonkeyPatch, counted: Counted) -> None:
    monkeypatch.setattr(module, "EMBEDDED_MAX", 2)
    async with opened(counted) as store:
        assert await store.put([(entry("a"), None), (entry("b"), None)]) == 2
        assert await store.put([(entry("c"), None)]) == 0
        assert counted == [("error", "full")]
        await store.sweep(NOON + timedelta(seconds=60))
        assert await store.put([(entry("c"), None)]) == 1


async def test_an_entry_of_another_shape_is_counted_and_left_alone(counted: Counted) -> None:
    async with opened(counted) as store:
        await store.put([(entry("a"), vector(1))])
        await store._client.set_payload("answers", payload={"tier": "platinum"}, points=[entry("a").point_id])
        assert await store.get([entry("a").point_id], NOON) == {}
    assert counted == [("error", "unreadable_entry")]


def test_an_entry_does_not_show_what_was_said() -> None:
    shown = repr(entry("a private question", content="a private answer"))
    assert "private" not in shown


@given(st.lists(st.floats(-1, 1, width=32), max_size=20))
def test_vectors_travel_unchanged(values: list[float]) -> None:
    sent = np.array(values, dtype=np.float32)
    assert np.array_equal(unpack(pack(sent)), sent)


@pytest.mark.parametrize("packed", ["?", "AAA=", "AAAA"])
def test_a_broken_vector_is_an_error(packed: str) -> None:
    with pytest.raises(ValueError):
        unpack(packed)


Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], object]


@asynccontextmanager
async def server(answer: bytes | None) -> AsyncIterator[str]:
    """A server that says the same to everything, or nothing at all."""
    silent = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if answer is None:
            await silent.wait()
        else:
            writer.write(answer)
            await writer.drain()
        writer.close()

    listening = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    finally:
        silent.set()
        listening.close()
        await listening.wait_closed()


async def finds_and_stores_nothing(store: Store) -> None:
    assert await store.get([entry("a").point_id], NOON) == {}
    assert await store.standing([form_id("s", "f")], NOON) == set()
    assert await store.search([search(vector(1))] * 2, NOON) == [[], []]
    assert await store.put([(entry("a"), vector(1))]) == 0
    await store.sweep(NOON)
    with pytest.raises(Unavailable, match="qdrant"):
        await store.check()


async def test_a_server_that_is_down_is_an_empty_cache(counted: Counted) -> None:
    async with server(b"") as url:
        pass
    async with opened(counted, url=url) as store:
        await finds_and_stores_nothing(store)
    assert set(counted) == {("error", "connection")}


async def test_a_server_that_hangs_is_an_empty_cache(counted: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WRITE_S", 0.05)
    async with server(None) as url, opened(counted, url=url) as store:
        await finds_and_stores_nothing(store)
    assert set(counted) == {("error", "timeout")}


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", "http_503"),
        (b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n", "http_401"),
        (b"HTTP/1.1 429 Slow\r\nRetry-After: 1\r\nContent-Length: 2\r\n\r\n{}", "http_429"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "protocol"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "protocol"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\ncut", "connection"),
        (b"not http", "connection"),
    ],
)
async def test_a_server_that_answers_nonsense_is_an_empty_cache(counted: Counted, answer: bytes, reason: str) -> None:
    async with server(answer) as url, opened(counted, url=url, timeout_s=5) as store:
        await finds_and_stores_nothing(store)
    assert set(counted) == {("error", reason)}


async def test_check_is_content_with_a_store_that_works(store: Store) -> None:
    await store.check()


async def test_a_server_gets_its_indexes_and_the_key(counted: Counted) -> None:
    async with qdrant_over_rest() as rest:
        for _ in range(2):
            with pytest.warns(UserWarning, match="insecure connection"):
                store = await open_store(
                    url=rest.url, api_key="secret", path=None, collection="answers", dim=DIM, timeout_s=10, observe=counted
                )
            assert "secret" not in repr(store)
            await store.close()
        assert rest.indexes["form"].type == models.KeywordIndexType.KEYWORD
        assert rest.indexes["expires_at"].range
        assert rest.api_keys == {"secret"}
    assert counted == []


async def test_two_workers_may_make_the_collection_at_once(counted: Counted) -> None:
    async with (
        qdrant_over_rest() as rest,
        opened(counted, url=rest.url, timeout_s=10) as a,
        opened(counted, url=rest.url, timeout_s=10) as b,
    ):
        for store in (a, b):
            store._ready = False
        await rest.engine.delete_collection("answers")
        await asyncio.gather(a.check(), b.check())
        await a.put([(entry("a"), vector(1))])
        assert await b.get([entry("a").point_id], NOON) != {}
    assert counted == []


async def test_a_collection_that_was_dropped_is_made_again(counted: Counted) -> None:
    async with qdrant_over_rest() as rest, opened(counted, url=rest.url, timeout_s=10) as store:
        await rest.engine.delete_collection("answers")
        assert await store.get([entry("a").point_id], NOON) == {}
        assert counted == [("error", "http_404")]
        assert await store.put([(entry("a"), vector(1))]) == 1
        assert await store.get([entry("a").point_id], NOON) != {}


async def test_a_collection_replaced_by_another_kind_is_an_empty_cache(counted: Counted) -> None:
    async with qdrant_over_rest() as rest, opened(counted, url=rest.url, timeout_s=10) as store:
        await rest.engine.delete_collection("answers")
        await store.get([entry("a").point_id], NOON)
        await rest.engine.create_collection("answers", vectors_config=models.VectorParams(size=4, distance=models.Distance.DOT))
        counted.clear()
        assert await store.get([entry("a").point_id], NOON) == {}
        assert counted == [("error", "misfit")]
        with pytest.raises(StoreMisfit, match="no vectors of ours"):
            await store.check()


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="counts threads as Linux tells them")
def test_a_search_starts_no_threads_that_spin() -> None:
    code = (
        "import workers.cache.store, numpy, os\n"
        "numpy.ones((4000, 384), dtype=numpy.float32) @ numpy.ones(384, dtype=numpy.float32)\n"
        "print(len(os.listdir('/proc/self/task')))"
    )
    kept = {name: value for name, value in os.environ.items() if name not in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")}
    done = subprocess.run([sys.executable, "-c", code], env=kept, capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"
