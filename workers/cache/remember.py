"""The stage `remember`: stores an accepted answer under the key that `cache` made for it.

Finished -> nothing to say, always: an answer that may not be stored is counted and let go, and so is one that Qdrant will not take (the
store counts that). Storing twice is storing once. Never retries, parks or ends a request.

What the answer was asked with gets its vector here, where nobody waits for it; without one it is found by the exact wording alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime

from schemas import CacheKey, Finished
from schemas.types import Flag, user_digest
from workers.cache.entry import Entry, Vector, unpack
from workers.cache.store import Observe, Store
from workers.encoder.errors import EncodeFailed
from workers.outcomes import Emit, Outcome

SECOND_BEST: frozenset[Flag] = frozenset({"check_failed", "escalation_refused", "degraded"})
"""Flags of answers that were good enough for one request at the price of the moment, not for everyone after it."""


def make_remember(
    *,
    encode: Callable[[Sequence[str]], list[Vector]],
    encoder_name: str,
    store: Store,
    now: Callable[[], datetime],
    observe: Observe,
) -> Callable[[Sequence[Finished]], Awaitable[list[Outcome]]]:
    """`encode` is called in a thread. `observe` gets (stored, model), and (not_stored, why) of answers of a model; (error, what)."""

    async def remember(events: Sequence[Finished]) -> list[Outcome]:
        entries: dict[str, Entry] = {}
        keys: dict[str, CacheKey] = {}
        for event in events:
            if event.source != "model":
                continue
            entry = _entry(event, int(now().timestamp()))
            if isinstance(entry, str):
                observe("not_stored", entry)
            elif event.cache_key is not None:
                entries[entry.point_id], keys[entry.point_id] = entry, event.cache_key
        vectors = await _vectors(keys)
        for _ in range(await store.put([(entry, vectors.get(i)) for i, entry in entries.items()])):
            observe("stored", "model")
        return [Emit() for _ in events]

    async def _vectors(keys: dict[str, CacheKey]) -> dict[str, Vector]:
        """By the entries' ids."""
        vectors = {i: unpack(key.vector) for i, key in keys.items() if key.vector is not None}
        missing = {i: key.text for i, key in keys.items() if i not in vectors and key.form is not None}
        ours = {i: text for i, text in missing.items() if keys[i].encoder == encoder_name}
        for _ in missing.keys() - ours.keys():
            observe("error", "another_encoder")
        if ours:
            try:
                vectors |= zip(ours, await asyncio.to_thread(encode, list(ours.values())), strict=True)
            except EncodeFailed:
                observe("error", "encoder")
        return vectors

    return remember


def _entry(event: Finished, at: int) -> Entry | str:
    """What is stored; or why this answer must not be given to anybody else, in a word."""
    plan, key, facts = event.cache_plan, event.cache_key, event.facts
    if plan is None or key is None:
        return "no_key"
    if plan.verdict != "cacheable":
        return plan.verdict
    if not plan.write or plan.ttl_s <= 0:
        return "off"
    if event.status != "answered" or not event.accepted:
        return "not_accepted"
    if event.finish_reason != "stop":
        return "incomplete"
    if event.tool_calls:
        return "tool_calls"
    if event.content is None or not event.content.strip():
        return "empty"
    if not SECOND_BEST.isdisjoint(event.flags):
        return "second_best"
    if facts.tenant is None or (plan.share == "user" and facts.user is None):
        return "no_owner"
    if event.tier is None or event.model is None or event.usage is None or event.tokens is None:
        return "no_figures"
    return Entry(
        point_id=key.point_id,
        scope=key.scope,
        tenant=facts.tenant,
        user=facts.user if plan.share == "user" else None,
        asker=None if facts.user is None else user_digest(facts.tenant, facts.user),
        text=key.text,
        form=key.form,
        content=event.content,
        finish_reason=event.finish_reason,
        tier=event.tier,
        model=event.model,
        usage=event.usage,
        tokens=event.tokens,
        created_at=at,
        expires_at=at + plan.ttl_s,
    )
