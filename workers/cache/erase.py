"""The cache forgets a tenant, or what came from one of its users.

`Unavailable("qdrant", …)` and `StoreMisfit` say that entries may be left; a cache in another process's memory cannot be reached at all.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from qdrant_client import AsyncQdrantClient, models

from schemas.types import user_digest
from workers.cache.qdrant import embedded
from workers.cache.store import ERASE_S, Store


async def erase(*, url: str, api_key: str, path: Path | None, collection: str, tenant: str, user: str | None) -> int:
    """Delete the entries of a tenant; with `user` those that are shared with this user alone and those that their requests made. How many
    they were.

    Raises:
        Unavailable: the server at `url` did not do it.
        StoreMisfit: the directory `path` cannot be opened: only one process may hold it.
        ValueError: neither `url` nor `path`.
    """
    if url:
        client = AsyncQdrantClient(url=url, api_key=api_key or None, check_compatibility=False, timeout=int(ERASE_S))
        store = Store(client, collection, 0, _uncounted, ERASE_S)
    elif path is None:
        raise ValueError("a cache without url and path is in another process's memory")
    elif not await asyncio.to_thread(path.is_dir):
        return 0
    else:
        store = Store(await asyncio.to_thread(embedded, path), collection, 0, _uncounted, None)
    try:
        return await store.erase(_of(tenant, user))
    finally:
        await store.close()


def _of(tenant: str, user: str | None) -> models.Filter:
    def field(key: str, value: str) -> models.FieldCondition:
        return models.FieldCondition(key=key, match=models.MatchValue(value=value))

    of_user = None if user is None else [field("user", user), field("asker", user_digest(tenant, user))]
    return models.Filter(must=[field("tenant", tenant)], should=of_user)


def _uncounted(event: str, reason: str) -> None:
    """A command has no metrics; what goes wrong is raised."""
