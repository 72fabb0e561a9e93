"""Where the answers lie: one Qdrant collection, in this process (memory or a directory) or on a server.

The cache only saves money, so it fails open: when Qdrant is slow, down or answers nonsense, a lookup finds nothing and a write stores
nothing, and `observe("error", reason)` counts it. Only what no retry can mend stops the start, as `StoreMisfit`: a directory that
another process holds, that cannot be written or has no room, or a collection made for another encoder. A server that is down at start is
no such case: the collection is made when it is back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from pydantic import ValidationError
from qdrant_client import AsyncQdrantClient, models
from qdrant_client.http.exceptions import UnexpectedResponse

from workers.cache.entry import Entry, Vector
from workers.cache.qdrant import Budget, Failure, Qdrant, StoreMisfit, embedded
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
FEW = 8
"""So many entries are read by their ids on the event loop: 0.3 ms."""


@dataclass(frozen=True, slots=True)
class Search:
    scope: str
    form: str
    """`scope.form_id`."""
    vector: Vector
    threshold: float


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
        self._qdrant = Qdrant(client, embedded=timeout_s is None)
        self._run = self._qdrant.run
        self._ready = False
        self._of_form: dict[str, dict[str, int]] = {}
        """Of an embedded store, which has no indexes: ids of a form's entries, and when each expires. Changed on the event loop alone."""

    async def start(self) -> None:
        """Make the collection where it is missing. A server that is down is counted; a collection that does not fit: `StoreMisfit`."""
        try:
            await self._within(self._to_write(), self._ensure())
        except Failure as e:
            self._observe("error", e.reason)

    async def check(self) -> None:
        """Raises `Unavailable("qdrant", …)` or `StoreMisfit`."""
        try:
            await self._within(self._to_write(), self._ensure())
            await self._within(self._to_write(), self._run(self._client.get_collection(self._collection)))
        except Failure as e:
            raise Unavailable("qdrant", e.reason) from e

    async def close(self) -> None:
        await self._client.close()

    def budget(self) -> Budget:
        """Of one lookup."""
        return Budget(self._timeout_s)

    def _to_write(self) -> Budget:
        return self._qdrant.budget(WRITE_S)

    async def get(self, ids: Sequence[str], now: datetime, budget: Budget | None = None) -> dict[str, Entry]:
        """The entries with these ids that have not expired. Without a `budget`, it has one of its own."""
        if not ids:
            return {}
        try:
            records = await self._ask(
                budget or self.budget(), lambda c: c.retrieve(self._collection, ids=list(ids), with_payload=True), brief=len(ids) <= FEW
            )
        except Failure as e:
            self._observe("error", e.reason)
            return {}
        entries = (self._entry(record.id, record.payload) for record in records)
        return {entry.point_id: entry for entry in entries if entry is not None and entry.expires_at > now.timestamp()}

    async def standing(self, forms: Sequence[str], now: datetime, budget: Budget | None = None) -> set[str]:
        """Those of the forms that entries stand under which have not expired."""
        if self._qdrant.embedded:
            return {form for form in forms if any(until > now.timestamp() for until in self._of_form.get(form, {}).values())}
        budget = budget or self.budget()
        calls = [forms[i : i + SEARCHES_A_CALL] for i in range(0, len(forms), SEARCHES_A_CALL)]
        return set[str]().union(*await asyncio.gather(*(self._standing(call, now, budget) for call in calls)))

    async def _standing(self, forms: Sequence[str], now: datetime, budget: Budget) -> set[str]:
        # A request without a query finds any that the filter lets through: one is enough.
        requests = [models.QueryRequest(filter=_filter(form, now), limit=1, with_payload=False) for form in forms]
        try:
            answered = await self._ask(budget, lambda c: c.query_batch_points(self._collection, requests=requests))
        except Failure as e:
            self._observe("error", e.reason)
            return set()
        return {form for form, response in zip(forms, answered, strict=True) if response.points}

    async def search(self, searches: Sequence[Search], now: datetime, budget: Budget | None = None) -> list[list[Hit]]:
        """For each search its nearest entries of that very scope and form that have not expired, the nearest first, at most five."""
        calls = [searches[i : i + SEARCHES_A_CALL] for i in range(0, len(searches), SEARCHES_A_CALL)]
        budget = budget or self.budget()
        return [hits for answered in await asyncio.gather(*(self._search(call, now, budget) for call in calls)) for hits in answered]

    async def _search(self, searches: Sequence[Search], now: datetime, budget: Budget) -> list[list[Hit]]:
        nearest = self._of_embedded if self._qdrant.embedded else self._of_server
        few = sum(len(self._of_form.get(search.form, ())) for search in searches) <= FEW
        try:
            found = await self._ask(budget, lambda c: nearest(c, searches, now), brief=few)
        except Failure as e:
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
                if self._qdrant.embedded:
                    if await self._points() + len(part) > EMBEDDED_MAX:
                        self._observe("error", "full")
                        continue
                    self._file((entry.form, entry.point_id, entry.expires_at) for entry, _ in part)
                await self._ask(self._to_write(), lambda c, points=points: c.upsert(self._collection, points=points, wait=True))  # type: ignore[misc]
            except Failure as e:
                self._observe("error", e.reason)
                continue
            stored += len(part)
        return stored

    def _file(self, entries: Iterable[tuple[str | None, str, int]]) -> None:
        """Before they are stored: one that then is not costs an embedding, one that stands and is not filed costs its hits."""
        for form, point_id, expires_at in entries:
            if form is not None:
                self._of_form.setdefault(form, {})[point_id] = expires_at

    async def sweep(self, now: datetime) -> None:
        """Delete what has expired."""
        expired = models.Filter(must=[models.FieldCondition(key="expires_at", range=models.Range(lte=int(now.timestamp())))])
        selector = models.FilterSelector(filter=expired)
        try:
            await self._ask(self._to_write(), lambda c: c.delete(self._collection, points_selector=selector, wait=True))
        except Failure as e:
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
            return await self._within(self._qdrant.budget(ERASE_S), gone())
        except Failure as e:
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
                raise Failure("misfit") from e
            return await self._run(call(self._client), brief=brief)

        return await self._within(budget, ready_then_call())

    async def _within(self, budget: Budget, work: Coroutine[Any, Any, T]) -> T:
        try:
            return await self._qdrant.within(budget, work)
        except Failure as e:
            # A collection that was dropped is made again.
            self._ready = self._ready and e.reason != "http_404"
            raise

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
        if self._qdrant.embedded:
            self._file(await self._run(self._stored()))
        else:
            await self._index()
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
            if not self._qdrant.embedded or "already exists" not in str(e):
                raise

    async def _stored(self) -> list[tuple[str | None, str, int]]:
        """What an earlier process has left in the directory."""
        records, _ = await self._client.scroll(self._collection, limit=EMBEDDED_MAX, with_payload=["form", "expires_at"])
        places = ((record.payload or {}, str(record.id)) for record in records)
        return [(place.get("form"), i, until) for place, i in places if isinstance(until := place.get("expires_at"), int)]

    async def _index(self) -> None:
        by_form = models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD)
        by_expiry = models.IntegerIndexParams(type=models.IntegerIndexType.INTEGER, lookup=False, range=True)
        await self._run(self._client.create_payload_index(self._collection, "form", field_schema=by_form, wait=True))
        await self._run(self._client.create_payload_index(self._collection, "expires_at", field_schema=by_expiry, wait=True))
