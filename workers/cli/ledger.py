"""`scrimp ledger upgrade`: make the ledger's tables, or bring them up to date."""

from __future__ import annotations

import asyncio

import typer

app = typer.Typer(help="The ledger: the database that holds the books.\n\nExample: scrimp ledger upgrade", no_args_is_help=True)


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
