"""Where the answers lie: one Qdrant collection, in this process (memory or a directory) or on a server.

The cache only saves money, so it fails open: when Qdrant is slow, down or answers nonsense, a lookup finds nothing and a write stores
nothing, and `observe("error", reason)` counts it. Only what no retry can mend stops the start, as `StoreMisfit`: a directory that
another process holds, that cannot be written or has no room, or a collection made for another encoder. A server that is down at start is
no such case: the collection is made when it is back.
"""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
import threading
import time
import warnings
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from json import JSONDecodeError
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from pydantic import ValidationError
from qdrant_client import AsyncQdrantClient, models
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ApiException, UnexpectedResponse

from workers.cache.entry import Entry, Vector
from workers.outcomes import Unavailable

T = TypeVar("T")
Observe = Callable[[str, str], None]
"""Counts what happened: (event, reason), both from small closed sets."""

VECTOR = "turn"
"""The vector has a name, so that an entry may have none: stored without an encoder, it is found exactly."""
NEIGHBOURS = 5
SEARCHES_A_CALL = 16
POINTS_A_CALL = 64
WRITE_S = 5.0
ERASE_S = 120.0
"""It may look at every entry there is."""
EMBEDDED_MAX = 10_000
"""Entries of an embedded store, which looks at every one when it sweeps. A larger cache wants a server."""
ROOM = 1 << 18
"""Bytes that a directory must have room for at the start. One that fills later costs hits and nothing else."""
FEW = 8
"""So many entries are read by their ids on the event loop: 0.3 ms."""


class StoreMisfit(RuntimeError):
    """The store cannot be used as it is set up. The text says which setting and what would be right."""


class _Failure(Exception):
    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Budget:
    """How long one lookup may still wait for Qdrant, over all its calls. None: as long as it takes."""

    def __init__(self, seconds: float | None) -> None:
        self._left = seconds

    @asynccontextmanager
    async def spend(self) -> AsyncIterator[None]:
        """Raises `TimeoutError` when it is used up."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(self._left):
                yield
        finally:
            if self._left is not None:
                self._left = max(self._left - (time.monotonic() - began), 0.0)


@dataclass(frozen=True, slots=True)
class Search:
    scope: str
    form: str
    """`scope.form_id`."""
    vector: Vector
    threshold: float


@dataclass(frozen=True, slots=True)
class Found:
    entries: dict[str, Entry]
    """By their ids."""
    forms: set[str]
    """Those that entries stand under."""


@dataclass(frozen=True, slots=True)
class Hit:
    entry: Entry
    similarity: float
    """Cosine."""


async def open_store(*, url: str, api_key: str, path: Path | None, collection: str, dim: int, timeout_s: float, observe: Observe) -> Store:
    """The store at `url`; without one, embedded at `path`; without that, in memory. `timeout_s`: budget of one call to a server; an
    embedded store has none, since a thread cannot be cut short."""
    if url:
        client = AsyncQdrantClient(url=url, api_key=api_key or None, check_compatibility=False)
        store = Store(client, collection, dim, observe, timeout_s)
    else:
        store = Store(await asyncio.to_thread(embedded, path), collection, dim, observe, None)
    try:
        await store.start()
    except StoreMisfit:
        await store.close()
        raise
    return store


def embedded(path: Path | None) -> AsyncQdrantClient:
    """The engine in this process. `StoreMisfit`: another process holds the directory, or it cannot be used."""
    if path is None:
        return AsyncQdrantClient(location=":memory:")
    with warnings.catch_warnings():
        # qdrant-client leaves its lock file open when the lock is taken.
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            _room(path)
            # One thread at a time uses it, but not always the same one.
            return AsyncQdrantClient(path=str(path), force_disable_check_same_thread=True)
        except RuntimeError as e:
            held = "already accessed" in str(e)
            why = "another process holds it, and only one may" if held else "it cannot be opened"
        except OSError as e:
            raise StoreMisfit(f"SCRIMP_QDRANT__PATH={path}: cannot be used: {e.strerror}") from e
    raise StoreMisfit(f"SCRIMP_QDRANT__PATH={path}: {why}: use one process (`scrimp run all`) or a server (SCRIMP_QDRANT__URL)")


def _room(path: Path) -> None:
    """Raises `OSError` where entries could not be kept; the engine would open what is there and lose what comes."""
    path.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=path) as file:
        file.write(bytes(ROOM))


def _filter(form: str, now: datetime) -> models.Filter:
    return models.Filter(
        must=[
            models.FieldCondition(key="form", match=models.MatchValue(value=form)),
            models.FieldCondition(key="expires_at", range=models.Range(gt=int(now.timestamp()))),
        ]
    )


class Store:
    def __init__(self, client: AsyncQdrantClient, collection: str, dim: int, observe: Observe, timeout_s: float | None) -> None:
        """`timeout_s` None: the client is embedded."""
        self._client = client
        self._collection = collection
        self._dim = dim
        self._observe = observe
        self._timeout_s = timeout_s
        self._ready = False
        self._one_at_a_time = threading.Lock()
        self._of_form: dict[str, dict[str, int]] = {}
        """Of an embedded store, which has no indexes: ids of a form's entries, and when each expires."""

    async def start(self) -> None:
        """Make the collection where it is missing. A server that is down is counted; a collection that does not fit: `StoreMisfit`."""
        try:
            await self._within(self._to_write(), self._ensure())
        except _Failure as e:
            self._observe("error", e.reason)

    async def check(self) -> None:
        """Raises `Unavailable("qdrant", …)` or `StoreMisfit`."""
        try:
            await self._within(self._to_write(), self._ensure())
            await self._within(self._to_write(), self._run(self._client.get_collection(self._collection)))
        except _Failure as e:
            raise Unavailable("qdrant", e.reason) from e

    async def close(self) -> None:
        await self._client.close()

    def budget(self) -> Budget:
        """Of one lookup. An embedded store has none, since a thread cannot be cut short."""
        return Budget(self._timeout_s)

    def _to_write(self) -> Budget:
        return Budget(None if self._timeout_s is None else WRITE_S)

    async def find(self, ids: Sequence[str], forms: Collection[str], now: datetime, budget: Budget | None = None) -> Found:
        """The entries with these ids, and which of the forms have entries, none of them expired. Without a `budget`, it has one of its
        own."""
        if not ids and not forms:
            return Found({}, set())
        both = self._found_on_server if self._timeout_s is not None else self._found_embedded
        try:
            records, standing = await self._ask(budget or self.budget(), lambda c: both(c, ids, forms, now), brief=len(ids) <= FEW)
        except _Failure as e:
            self._observe("error", e.reason)
            return Found({}, set())
        entries = (self._entry(record.id, record.payload) for record in records)
        return Found({entry.point_id: entry for entry in entries if entry is not None and entry.expires_at > now.timestamp()}, standing)

    async def _found_on_server(
        self, client: AsyncQdrantClient, ids: Sequence[str], forms: Collection[str], now: datetime
    ) -> tuple[list[models.Record], set[str]]:
        async def standing() -> set[str]:
            # A request without a query finds any: one is enough.
            asked = [models.QueryRequest(filter=_filter(form, now), limit=1, with_payload=False) for form in forms]
            answered = await client.query_batch_points(self._collection, requests=asked) if asked else ()
            return {form for form, response in zip(forms, answered, strict=True) if response.points}

        return await asyncio.gather(client.retrieve(self._collection, ids=list(ids), with_payload=True), standing())

    async def _found_embedded(
        self, client: AsyncQdrantClient, ids: Sequence[str], forms: Collection[str], now: datetime
    ) -> tuple[list[models.Record], set[str]]:
        standing = {form for form in forms if any(until > now.timestamp() for until in [*self._of_form.get(form, {}).values()])}
        return await client.retrieve(self._collection, ids=list(ids), with_payload=True), standing

    async def search(self, searches: Sequence[Search], now: datetime, budget: Budget | None = None) -> list[list[Hit]]:
        """For each search its nearest entries of that very scope and form that have not expired, the nearest first, at most five."""
        calls = [searches[i : i + SEARCHES_A_CALL] for i in range(0, len(searches), SEARCHES_A_CALL)]
        budget = budget or self.budget()
        return [hits for answered in await asyncio.gather(*(self._search(call, now, budget) for call in calls)) for hits in answered]

    async def _search(self, searches: Sequence[Search], now: datetime, budget: Budget) -> list[list[Hit]]:
        nearest = self._of_server if self._timeout_s is not None else self._of_embedded
        few = sum(len(self._of_form.get(search.form, ())) for search in searches) <= FEW
        try:
            found = await self._ask(budget, lambda c: nearest(c, searches, now), brief=few)
        except _Failure as e:
            self._observe("error", e.reason)
            return [[] for _ in searches]
        return [list(islice(self._hits(search.scope, points, now), NEIGHBOURS)) for search, points in zip(searches, found, strict=True)]

    async def _of_server(self, client: AsyncQdrantClient, searches: Sequence[Search], now: datetime) -> list[list[models.ScoredPoint]]:
        requests = [
            models.QueryRequest(
                query=search.vector.tolist(),
                using=VECTOR,
                filter=_filter(search.form, now),
                score_threshold=search.threshold,
                limit=NEIGHBOURS,
                with_payload=True,
            )
            for search in searches
        ]
        return [response.points for response in await client.query_batch_points(self._collection, requests=requests)]

    async def _of_embedded(self, client: AsyncQdrantClient, searches: Sequence[Search], now: datetime) -> list[list[models.ScoredPoint]]:
        """The engine would compare with every vector, and evaluate a filter in Python, point by point; those of one form are few."""
        found = []
        for search in searches:
            ids = [i for i, until in [*self._of_form.get(search.form, {}).items()] if until > now.timestamp()]
            scored = []
            for record in await client.retrieve(self._collection, ids=ids, with_payload=True, with_vectors=[VECTOR]):
                vector = record.vector.get(VECTOR) if isinstance(record.vector, dict) else None
                similarity = -1.0 if vector is None else float(np.dot(search.vector, np.asarray(vector, dtype=np.float32)))
                if similarity >= search.threshold:
                    scored.append(models.ScoredPoint(id=record.id, version=0, score=similarity, payload=record.payload))
            found.append(sorted(scored, key=lambda point: -point.score))
        return found

    def _hits(self, scope: str, points: Iterable[models.ScoredPoint], now: datetime) -> Iterator[Hit]:
        """Those of this scope that have not expired. A filter is a promise of another program; whose answer this is gets checked here."""
        for point in points:
            if not point.payload or point.payload.get("scope") != scope:
                continue
            entry = self._entry(point.id, point.payload)
            if entry is not None and entry.expires_at > now.timestamp():
                yield Hit(entry, min(point.score, 1.0))

    async def put(self, entries: Sequence[tuple[Entry, Vector | None]]) -> int:
        """Store or replace them by their ids. How many are stored for sure."""
        stored = 0
        for i in range(0, len(entries), POINTS_A_CALL):
            part = entries[i : i + POINTS_A_CALL]
            points = [
                models.PointStruct(
                    id=entry.point_id,
                    vector={} if vector is None else {VECTOR: vector.tolist()},
                    payload=entry.model_dump(mode="json", exclude={"point_id"}),
                )
                for entry, vector in part
            ]
            try:
                if self._timeout_s is None and await self._points() + len(part) > EMBEDDED_MAX:
                    self._observe("error", "full")
                    continue
                await self._ask(self._to_write(), lambda c, points=points: c.upsert(self._collection, points=points, wait=True))  # type: ignore[misc]
            except _Failure as e:
                self._observe("error", e.reason)
                continue
            stored += len(part)
            if self._timeout_s is None:
                self._file(entry for entry, _ in part)
        return stored

    def _file(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            if entry.form is not None:
                self._of_form.setdefault(entry.form, {})[entry.point_id] = entry.expires_at

    async def sweep(self, now: datetime) -> None:
        """Delete what has expired."""
        expired = models.Filter(must=[models.FieldCondition(key="expires_at", range=models.Range(lte=int(now.timestamp())))])
        selector = models.FilterSelector(filter=expired)
        try:
            await self._ask(self._to_write(), lambda c: c.delete(self._collection, points_selector=selector, wait=True))
        except _Failure as e:
            self._observe("error", e.reason)
            return
        left = ((form, {i: until for i, until in ids.items() if until > now.timestamp()}) for form, ids in self._of_form.items())
        self._of_form = {form: ids for form, ids in left if ids}

    async def erase(self, which: models.Filter) -> int:
        """Delete these entries; how many they were. Makes no collection, and needs no encoder.

        Raises:
            Unavailable: entries may be left.
        """

        async def gone() -> int:
            if not await self._run(self._client.collection_exists(self._collection)):
                return 0
            found = await self._run(self._client.count(self._collection, count_filter=which, exact=True))
            selector = models.FilterSelector(filter=which)
            await self._run(self._client.delete(self._collection, points_selector=selector, wait=True))
            return found.count

        try:
            return await self._within(Budget(None if self._timeout_s is None else ERASE_S), gone())
        except _Failure as e:
            raise Unavailable("qdrant", e.reason) from e

    def _entry(self, point_id: Any, payload: dict[str, Any] | None) -> Entry | None:
        try:
            return Entry.model_validate({**(payload or {}), "point_id": str(point_id)})
        except ValidationError:
            self._observe("error", "unreadable_entry")
            return None

    async def _points(self) -> int:
        return (await self._ask(self._to_write(), lambda c: c.get_collection(self._collection), brief=True)).points_count or 0

    async def _ask(self, budget: Budget, call: Callable[[AsyncQdrantClient], Coroutine[Any, Any, T]], *, brief: bool = False) -> T:
        async def ready_then_call() -> T:
            try:
                await self._ensure()
            except StoreMisfit as e:
                # Somebody replaced the collection while we ran: no reason to stop answering.
                raise _Failure("misfit") from e
            return await self._run(call(self._client), brief=brief)

        return await self._within(budget, ready_then_call())

    async def _within(self, budget: Budget, work: Coroutine[Any, Any, T]) -> T:
        """The one place where an error of Qdrant becomes a `_Failure` with a reason fit for a metric."""
        try:
            async with budget.spend():
                return await work
        except TimeoutError as e:
            raise _Failure("timeout") from e
        except UnexpectedResponse as e:
            # A collection that was dropped is made again.
            self._ready = self._ready and e.status_code != 404
            raise _Failure(f"http_{e.status_code}") from e
        except ResourceExhaustedResponse as e:
            raise _Failure("http_429") from e
        except (ApiException, OSError) as e:
            raise _Failure("connection") from e
        except (JSONDecodeError, AssertionError) as e:
            # Not Qdrant's protocol (a proxy's page, say): the client asserts that an answer has a result.
            raise _Failure("protocol") from e
        except sqlite3.Error as e:
            raise _Failure("storage") from e

    async def _run(self, call: Coroutine[Any, Any, T], *, brief: bool = False) -> T:
        """`brief`: a thread would cost an embedded store more than the call. While it is busy, the call waits in one all the same."""
        if self._timeout_s is not None:
            return await call
        if brief and self._one_at_a_time.acquire(blocking=False):
            try:
                return self._finish(call)
            finally:
                self._one_at_a_time.release()
        return await asyncio.to_thread(self._in_turn, call)

    def _in_turn(self, call: Coroutine[Any, Any, T]) -> T:
        with self._one_at_a_time:
            return self._finish(call)

    def _finish(self, call: Coroutine[Any, Any, T]) -> T:
        # The embedded client computes inside its coroutines and never waits in them: one step ends each.
        try:
            call.send(None)
        except StopIteration as done:
            result: T = done.value
            return result
        raise RuntimeError("the embedded Qdrant client waited for something")

    async def _ensure(self) -> None:
        if self._ready:
            return
        if not await self._run(self._client.collection_exists(self._collection)):
            await self._create()
        info = await self._run(self._client.get_collection(self._collection))
        vectors = info.config.params.vectors
        params = vectors.get(VECTOR) if isinstance(vectors, dict) else None
        if params is None or params.size != self._dim or params.distance != models.Distance.COSINE:
            has = f"vectors of {params.size}" if params is not None else "no vectors of ours"
            raise StoreMisfit(
                f"the Qdrant collection {self._collection} has {has}, the encoder gives {self._dim}: set another "
                "SCRIMP_QDRANT__COLLECTION, or delete it"
            )
        if self._timeout_s is not None:
            await self._index()
        else:
            await self._run(self._read_forms())
        self._ready = True

    async def _create(self) -> None:
        params = models.VectorParams(size=self._dim, distance=models.Distance.COSINE, datatype=models.Datatype.FLOAT32)
        try:
            await self._run(self._client.create_collection(self._collection, vectors_config={VECTOR: params}))
        except UnexpectedResponse as e:
            # Another worker was first.
            if e.status_code != 409:
                raise
        except ValueError as e:
            if self._timeout_s is not None or "already exists" not in str(e):
                raise

    async def _read_forms(self) -> None:
        """What another process has stored in the directory."""
        records, _ = await self._client.scroll(self._collection, limit=EMBEDDED_MAX, with_payload=["form", "expires_at"])
        for record in records:
            match record.payload:
                case {"form": str(form), "expires_at": int(until)}:
                    self._of_form.setdefault(form, {})[str(record.id)] = until

    async def _index(self) -> None:
        by_form = models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD)
        by_expiry = models.IntegerIndexParams(type=models.IntegerIndexType.INTEGER, lookup=False, range=True)
        await self._run(self._client.create_payload_index(self._collection, "form", field_schema=by_form, wait=True))
        await self._run(self._client.create_payload_index(self._collection, "expires_at", field_schema=by_expiry, wait=True))
