"""The stage `remember`: stores an accepted answer under the key that `cache` made for it.

Finished -> nothing to say, always: an answer that may not be stored is counted and let go, and so is one that Qdrant will not take (the
store counts that). Storing twice is storing once. Never retries, parks or ends a request.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime

from schemas import Finished
from schemas.types import Flag, user_digest
from workers.cache.entry import Entry, Vector, unpack
from workers.cache.store import Observe, Store
from workers.outcomes import Emit, Outcome

SECOND_BEST: frozenset[Flag] = frozenset({"check_failed", "escalation_refused", "degraded"})
"""Flags of answers that were good enough for one request at the price of the moment, not for everyone after it."""


def make_remember(
    *, store: Store, now: Callable[[], datetime], observe: Observe
) -> Callable[[Sequence[Finished]], Awaitable[list[Outcome]]]:
    """`observe` gets (stored, model), and (not_stored, why) of answers of a model."""

    async def remember(events: Sequence[Finished]) -> list[Outcome]:
        entries: dict[str, tuple[Entry, Vector | None]] = {}
        for event in events:
            if event.source != "model":
                continue
            entry = _entry(event, int(now().timestamp()))
            if isinstance(entry, str):
                observe("not_stored", entry)
            else:
                entries[entry.point_id] = entry, _vector(event)
        for _ in range(await store.put(list(entries.values()))):
            observe("stored", "model")
        return [Emit() for _ in events]

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
        content=event.content,
        finish_reason=event.finish_reason,
        tier=event.tier,
        model=event.model,
        usage=event.usage,
        tokens=event.tokens,
        created_at=at,
        expires_at=at + plan.ttl_s,
    )


def _vector(event: Finished) -> Vector | None:
    packed = event.cache_key.vector if event.cache_key else None
    return None if packed is None else unpack(packed)
