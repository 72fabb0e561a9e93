"""`scrimp run STAGE|all`: one stage (or all of them) in this process, until SIGTERM or Ctrl-C, which drains it.

Only `run all` migrates the ledger: a single stage of a fleet refuses to start on a ledger that is not ready.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from typing import Annotated, get_args

import typer

from schemas.types import LANES, Lane
from workers.pipeline import STAGES, StageName
from workers.settings import Settings, SettingsError, load


def log_to_stderr(level: str) -> None:
    logging.basicConfig(level=level, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for chatty in ("httpx", "httpcore", "LiteLLM", "aiosqlite"):  # they log requests, some of them with prompts
        logging.getLogger(chatty).setLevel(logging.ERROR)
    for talkative in ("alembic", "aiokafka", "scrimp.faststream"):  # their warnings matter: why a broker refuses stands only there
        logging.getLogger(talkative).setLevel(max(logging.WARNING, logging.getLevelNamesMapping()[level]))


def stop_on_signals(stop: asyncio.Event) -> None:
    """The first SIGTERM or Ctrl-C drains; a second one ends the process as usual."""
    loop = asyncio.get_running_loop()

    def once(which: signal.Signals) -> None:
        stop.set()
        loop.remove_signal_handler(which)

    for which in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(which, once, which)


def run(
    stage: Annotated[str, typer.Argument(help=f"One of {', '.join(STAGES)}, or all.")],
    lane: Annotated[str | None, typer.Option(help="interactive or bulk; left out: interactive (all: both).")] = None,
) -> None:
    """Run one stage of the fleet, or all of them, in this process.

    Example: scrimp run call --lane bulk
    """
    if stage != "all" and stage not in STAGES:
        raise typer.BadParameter(f"{stage!r} is not a stage; one of {', '.join(STAGES)}, all")
    if lane is not None and lane not in get_args(Lane):
        raise typer.BadParameter(f"{lane!r} is not a lane; one of {', '.join(LANES)}")
    settings = load()
    if stage == "remember" and not settings.qdrant.url:
        raise SettingsError("SCRIMP_QDRANT__URL: `remember` shares the cache's Qdrant; set it, or run `cache` alone, which remembers too")
    names: tuple[StageName, ...] = tuple(STAGES) if stage == "all" else (stage,)  # type: ignore[assignment]
    lanes: tuple[Lane, ...] = (lane,) if lane else LANES if stage == "all" else ("interactive",)  # type: ignore[assignment]
    log_to_stderr(settings.log_level)
    import uvloop

    uvloop.run(_run(settings, [(name, ln) for name in names for ln in lanes], migrate=stage == "all"))


async def _run(settings: Settings, work: list[tuple[StageName, Lane]], *, migrate: bool) -> None:
    from workers.cli.wiring import policy_file, serve

    policy = policy_file(settings.policy_file)
    stop = asyncio.Event()
    stop_on_signals(stop)
    await serve(settings, work, policy=policy, stop=stop, upgrades=migrate)
