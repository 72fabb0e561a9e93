"""`scrimp ledger upgrade|verify`: make the ledger's tables or bring them up to date, and check that the books in them are right."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from workers.ledger.verify import Findings
    from workers.settings import Settings

app = typer.Typer(help="The ledger: the database that holds the books.\n\nExample: scrimp ledger upgrade", no_args_is_help=True)

SWEEPS = 4
"""So many rounds of the sweep may pass before a reservation that nobody owns is a problem."""


@app.callback()
def _group() -> None: ...


@app.command()
def upgrade() -> None:
    """Create the ledger at SCRIMP_LEDGER__URL, or bring it up to date. Safe to repeat.

    Example: scrimp ledger upgrade
    """
    from workers.ledger import migrate
    from workers.settings import load

    settings = load()
    revision = asyncio.run(migrate.upgrade(settings.ledger.url))
    print(f"the ledger is at revision {revision}")


@app.command()
def verify(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Compute every cost, counter and sum of the books again from their rows, and name what differs. Exit 1 if anything does.

    Reads one snapshot and changes nothing, so the fleet may run meanwhile. What a lost worker has reserved is a problem once the sweep
    should have written it off.

    Example: scrimp ledger verify --json
    """
    from workers.settings import load

    found = asyncio.run(_verify(load()))
    document = found.document()
    if as_json:
        print(json.dumps(document, indent=2))
    else:
        states = ", ".join(f"{n} {state}" for state, n in document["by_state"].items())
        print(f"{document['requests']} requests, {document['attempts']} attempts: {states}")
        print(f"spent ${document['spent_usd']}, unconfirmed ${document['unconfirmed_usd']}")
        for problem in document["problems"]:
            print(f"PROBLEM {problem}")
        print("the books are wrong" if document["problems"] else "the books are right")
    if document["problems"]:
        raise typer.Exit(1)


async def _verify(settings: Settings) -> Findings:
    from workers.ledger import migrate
    from workers.ledger.database import Reaching
    from workers.ledger.verify import verify

    ledger = settings.ledger
    await migrate.check(ledger.url)
    with Reaching():
        return await verify(ledger.url, stale_s=ledger.stale_s, grace_s=SWEEPS * settings.attribute.sweep_s, keep_days=ledger.keep_days)
