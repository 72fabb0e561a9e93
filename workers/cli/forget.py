"""`scrimp forget`: erase what was said to a tenant, or to one of its users; the books stay. Exits 0 only if nothing of it is left that this
command can reach, and 1 otherwise, with one line on each thing that is."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from schemas.types import check_id, check_tenant

if TYPE_CHECKING:
    from workers.ledger.forget import Left, Person
    from workers.settings import Settings


def forget(
    tenant: Annotated[str, typer.Option(help="Whose answers to erase.")],
    user: Annotated[str | None, typer.Option(help="Of this user of the tenant alone.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Erase the answers, stored responses and cache entries of a tenant or a user; in the books the user's id becomes a digest.

    Example: scrimp forget --tenant acme --user u-42
    """
    from workers.ledger import migrate
    from workers.ledger.database import Database
    from workers.ledger.forget import Person, count
    from workers.ledger.forget import forget as erase
    from workers.settings import load

    try:
        person = Person(check_tenant(tenant), None if user is None else check_id(user))
    except ValueError as e:
        raise typer.BadParameter(f"an id {e}") from e
    who = f"user {user} of tenant {tenant}" if user is not None else f"tenant {tenant}"
    settings = load()

    async def known() -> int:
        await migrate.check(settings.ledger.url)
        database = Database(settings.ledger.url, 1)
        try:
            return await count(database, person)
        finally:
            await database.close()

    async def run() -> list[str]:
        database = Database(settings.ledger.url, 1)
        try:
            erased = await erase(database, person)
        finally:
            await database.close()
        print(f"ledger: {erased.requests} requests erased; {erased.counters} counters and alerts no longer name {who}")
        return [*_left(erased.left), *await _cache(settings, person)]

    found = asyncio.run(known())
    if not yes:
        typer.confirm(f"Erase what was said in {found} requests of {who}? This cannot be undone", abort=True)
    left = asyncio.run(run())
    for line in left:
        print(f"scrimp: left: {line}", file=sys.stderr)
    if left:
        raise typer.Exit(1)


def _left(left: Left) -> Iterator[str]:
    if left.under_way:
        yield f"{left.under_way} requests have not ended, and their answers are still owed; forget again when they have"
    if left.running:
        when = f"{left.until:%Y-%m-%d %H:%M} UTC"
        yield f"{left.running} counters and alerts of windows that are not over name the user; forget again after {when}"


async def _cache(settings: Settings, person: Person) -> list[str]:
    """Why entries may be left."""
    from workers.cache.erase import erase
    from workers.cache.qdrant import StoreMisfit
    from workers.outcomes import Unavailable

    s = settings.qdrant
    if not s.url and s.path is None:
        return ["cache entries, if `cache` runs, are in its own memory: restart it, or wait until they expire (the policy's cache.ttl_s)"]
    try:
        erased = await erase(
            url=s.url, api_key=s.api_key.get_secret_value(), path=s.path, collection=s.collection, tenant=person.tenant, user=person.user
        )
    except (Unavailable, StoreMisfit) as e:
        return [f"cache entries: {e}"]
    print(f"cache: {erased} entries erased")
    return []
