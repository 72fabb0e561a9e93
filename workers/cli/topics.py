"""`scrimp topics apply|check|acls`: the topics of the fleet on the broker, and who may do what with them."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from typing import Annotated

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


@app.command()
def acls(
    role: Annotated[
        str | None, typer.Argument(help="A stage, with -bulk in the bulk lane (call, call-bulk), or topics, dead, ask; left out: all.")
    ] = None,
    principal: Annotated[
        str, typer.Option(help="Who gets the rights; {role} stands for the role. Without it, one user gets the rights of all.")
    ] = "User:scrimp-{role}",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Print the commands that give each stage the rights it needs on the broker, and no others. Nothing is asked or changed.

    Example: scrimp topics acls call --principal User:CN=call
    """
    from workers.runtime import rights

    settings = load()
    roles = rights.roles(settings.kafka, policy.load(settings.policy_file), cache_remembers=not settings.qdrant.url)
    if role is not None and role not in roles:
        raise typer.BadParameter(f"{role!r} is not a role; one of {', '.join(roles)}")
    wanted = rights.by_principal({role: roles[role]} if role else roles, principal)
    if as_json:
        print(json.dumps([{"principal": who, **asdict(right)} for who, its in wanted.items() for right in its], indent=2))
        return
    print("\n".join(rights.commands(wanted, settings.kafka.bootstrap_servers)))
