"""The command line against a fleet's broker, as an operator uses it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from typer.testing import CliRunner

from tests.kafka.fleet import Fleet
from workers.cli.main import app


async def scrimp(fleet: Fleet, *words: str, ends_with: int = 0) -> str:
    """What the command prints on standard output; it must end with this exit code."""
    environment = {name: value for name, value in fleet._environment({}).items() if name.startswith("SCRIMP_")}
    done = await asyncio.to_thread(CliRunner().invoke, app, list(words), env=environment, catch_exceptions=False)
    assert done.exit_code == ends_with, done.output
    return done.stdout


async def figures(fleet: Fleet, *words: str) -> dict[str, Any]:
    """The document that `--json` prints."""
    told: dict[str, Any] = json.loads(await scrimp(fleet, *words, "--json"))
    return told
