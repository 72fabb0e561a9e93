"""The stage `cache`: is there an answer already, of this very prompt or of another wording of it?

Classified -> `End` with the stored answer, or `Emit` of Missed with the key under which `remember` will store the new one. Never retries
and never parks: what the cache cannot say is a miss, counted. What the plan calls anything but cacheable is neither looked up nor given
a key.

A question is embedded only where an entry of the same scope and the same form stands, for no other could pass the guard.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from schemas import CachedFrom, CacheKey, Classified, Finished, Missed, Plan
from schemas.types import Source
from workers import topics
from workers.cache.entry import Entry, Vector, pack
from workers.cache.guard import form, veto
from workers.cache.scope import form_id, point_id, same, scope
from workers.cache.store import Hit, Observe, Search, Store
from workers.encoder.errors import EncodeFailed
from workers.offload import offload
from workers.outcomes import End, Outcome, emit


@dataclass(frozen=True, slots=True)
class _Key:
    scope: str
    point_id: str
    text: str
    form: str | None
    """None: not worth a vector. The plan does not want it, no person asked, or it is of a kind that the guard can never pass."""


def make_cache(
    *,
    encode: Callable[[Sequence[str]], list[Vector]],
    encoder_name: str,
    store: Store,
    now: Callable[[], datetime],
    observe: Observe,
) -> Callable[[Sequence[Classified]], Awaitable[list[Outcome]]]:
    """`encode` is called in a thread. `observe` gets (hit, exact|semantic), (miss, why), (skip, why), (veto, reason), (error, what)."""

    async def cache(events: Sequence[Classified]) -> list[Outcome]:
        keys = await offload(lambda: _keys(events, encoder_name, observe), (event.prompt for event in events))
        readers = [i for i in keys if events[i].plan.cache.read]
        at, budget = now(), store.budget()

        stored = await store.get(list(dict.fromkeys(keys[i].point_id for i in readers)), at, budget)
        served: dict[int, Outcome] = {}
        for i in readers:
            entry = stored.get(keys[i].point_id)
            if entry is not None and _is(entry, keys[i]) and _fits(entry, events[i].plan):
                served[i] = _hit(events[i], "cache_exact", Hit(entry, 1.0))
                observe("hit", "exact")

        forms = {i: f for i in readers if i not in served and (f := keys[i].form) is not None}
        standing = await store.standing(list(dict.fromkeys(forms.values())), at, budget)
        alike = {i: f for i, f in forms.items() if f in standing}
        vectors = await _encoded({keys[i].text for i in alike})
        asking = [i for i in alike if keys[i].text in vectors]
        searches = [Search(keys[i].scope, alike[i], vectors[keys[i].text], events[i].plan.cache.candidate_threshold) for i in asking]
        for i, hits in zip(asking, await store.search(searches, at, budget), strict=True):
            hit = _first_good(events[i].plan, keys[i].text, hits)
            if hit is not None:
                served[i] = _hit(events[i], "cache_semantic", hit)
                observe("hit", "semantic")

        for i in readers:
            if i not in served and i not in asking:
                observe("miss", "exact_only" if keys[i].form is None or i in alike else "no_neighbour")
        return [served.get(i) or _miss(event, _cache_key(keys.get(i), vectors)) for i, event in enumerate(events)]

    def _cache_key(key: _Key | None, vectors: dict[str, Vector]) -> CacheKey | None:
        if key is None:
            return None
        vector = None if key.form is None else vectors.get(key.text)
        packed = None if vector is None else pack(vector)
        return CacheKey(point_id=key.point_id, scope=key.scope, text=key.text, form=key.form, encoder=encoder_name, vector=packed)

    async def _encoded(texts: set[str]) -> dict[str, Vector]:
        if not texts:
            return {}
        ordered = sorted(texts)
        try:
            return dict(zip(ordered, await asyncio.to_thread(encode, ordered), strict=True))
        except EncodeFailed:
            observe("error", "encoder")
            return {}

    def _first_good(plan: Plan, text: str, hits: Iterable[Hit]) -> Hit | None:
        why = "no_neighbour"
        for hit in hits:
            # Between candidate_threshold and serve_threshold a second check would have to agree, and there is none.
            if hit.similarity < plan.cache.serve_threshold:
                why = "below_serve_threshold" if why == "no_neighbour" else why
            elif reason := veto(text, hit.entry.text):
                observe("veto", reason)
                why = "vetoed"
            elif not _fits(hit.entry, plan):
                why = "too_long"
            else:
                return hit
        observe("miss", why)
        return None

    return cache


def _keys(events: Sequence[Classified], encoder_name: str, observe: Observe) -> dict[int, _Key]:
    """The key of each event that has to do with the cache, by its place."""
    keys = {}
    for i, event in enumerate(events):
        if why := _outside(event):
            observe("skip", why)
            continue
        last = event.prompt.messages[-1]
        within = scope(event.facts, event.prompt, event.plan, encoder_name)
        of_all = form(last.text) if event.plan.cache.semantic and last.role == "user" else None
        keys[i] = _Key(within, point_id(within, last.text), last.text, None if of_all is None else form_id(within, of_all))
    return keys


def _outside(event: Classified) -> str | None:
    """Why the event has nothing to do with the cache. The verdict is asked again here: a must, whatever the flags beside it say."""
    plan = event.plan.cache
    if plan.verdict != "cacheable":
        return plan.verdict
    if not (plan.read or plan.write):
        return "off"
    if event.facts.tenant is None:
        return "no_tenant"
    if plan.share == "user" and event.facts.user is None:
        return "no_user"
    return None


def _is(entry: Entry, key: _Key) -> bool:
    # An id is a digest that others can compute: what it stands for is compared, so that none can be made to collide.
    return entry.scope == key.scope and same(entry.text) == same(key.text)


def _fits(entry: Entry, plan: Plan) -> bool:
    """Would the model of the entry's tier have been allowed an answer this long?"""
    return entry.usage.output_tokens <= plan.max_tokens.get(entry.tier, 0)


def _hit(event: Classified, source: Source, hit: Hit) -> End:
    entry = hit.entry
    return End(
        Finished(
            facts=event.facts,
            status="answered",
            content=entry.content,
            finish_reason=entry.finish_reason,
            source=source,
            tier=entry.tier,
            model=entry.model,
            flags=event.plan.flags,
            tokens=entry.tokens,
            cached_from=CachedFrom(usage=entry.usage, tokens=entry.tokens, similarity=hit.similarity),
        )
    )


def _miss(event: Classified, cache_key: CacheKey | None) -> Outcome:
    missed = Missed(facts=event.facts, prompt=event.prompt, plan=event.plan, cache_key=cache_key, **(event.model_extra or {}))
    return emit(topics.MISSED, missed, event.facts.key)
