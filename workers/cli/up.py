"""`scrimp up`: the whole fleet on this machine, until Ctrl-C or SIGTERM, which drains it and stops all it started."""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated

import typer

from workers.settings import Settings, load


def up(
    provider: Annotated[str | None, typer.Option(help="Use this paid provider instead of the local model: openai, anthropic.")] = None,
) -> None:
    """Run the whole fleet on this machine: broker, model and all stages, until Ctrl-C.

    Without --provider and without SCRIMP_POLICY_FILE a small local model answers and nothing is spent, whatever keys are set. With
    SCRIMP_KAFKA__BOOTSTRAP_SERVERS set, that broker is used instead of the embedded one.

    Example: scrimp up --provider anthropic
    """
    from workers.cli.run import log_to_stderr

    settings = load()
    log_to_stderr(settings.log_level)
    asyncio.run(_up(settings, provider))


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


async def _up(settings: Settings, provider: str | None) -> None:
    from workers.cli.laptop import laptop, scratch
    from workers.cli.run import stop_on_signals
    from workers.laptop.process import first

    async def serve() -> None:
        async with scratch(_say) as folder, laptop(settings, folder, _say, provider=provider, demo=False) as running:
            http = running.settings.http
            health = f"http://{http.host}:{http.port}" if http.port else "at the address in the log"
            _say(f"ledger: {running.settings.ledger.url.rpartition('@')[2]}; health and metrics: {health}")
            _say("ready: try `scrimp ask 'What is a message broker?'`; Ctrl-C drains and stops everything")
            await running.watch()

    stop = asyncio.Event()
    stop_on_signals(stop)
    await first(stop.wait(), serve())
