"""`scrimp topics apply|check`: the topics of the fleet on the broker."""

from __future__ import annotations

import asyncio

import typer

from workers import policy
from workers.settings import load

app = typer.Typer(
    help="The fleet's topics: create what is missing, or check what is there.\n\nExample: scrimp topics check", no_args_is_help=True
)


@app.command()
def apply() -> None:
    """Create the topics that are missing, those that the policy gives to tenants included. What exists is left as it is.

    Example: scrimp topics apply
    """
    from workers.runtime import provision

    settings = load()
    made = asyncio.run(provision.apply(settings.kafka, policy.load(settings.policy_file)))
    print("\n".join(f"created {name}" for name in made) or "every topic is there")


@app.command()
def check() -> None:
    """Say what differs from what the fleet needs; exit 1 if anything does.

    Example: scrimp topics check
    """
    from workers.runtime import provision

    settings = load()
    differences = asyncio.run(provision.check(settings.kafka, policy.load(settings.policy_file)))
    print("\n".join(differences) or "every topic is as it should be")
    if differences:
        raise typer.Exit(1)
