"""From settings to running stages: the only place where clients, settings and stages meet.

`serve` runs some stages in this process until it is told to stop, drains, and closes everything it opened. What cannot be reached at start
raises `Unavailable`, what is set wrong raises `SettingsError`: nothing is half-started. A stage that must not go on (`Fatal`) ends `serve`
with its exception, after the others have drained.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

from aiohttp import web

from schemas.types import Lane
from workers.cli.stages import Parts, build
from workers.outcomes import Unavailable
from workers.pipeline import STAGES, Stage, StageName
from workers.policy import PolicyError, PolicyFile
from workers.runtime import health, metrics
from workers.runtime.fleet import Fleet
from workers.runtime.intake import Deliver, Intake
from workers.runtime.parking import Parking
from workers.runtime.producer import KafkaProducer
from workers.settings import Http, Kafka, Settings, SettingsError

log = logging.getLogger("scrimp")

STALL_S = 180.0
"""Running work of which nothing finishes for this long is stuck: the longest call is 60 s, the longest drain 70 s."""
BACKLOG = 10
"""Uncommitted records allowed behind a slow head, as a multiple of the window."""


def policy_file(path: Path | None) -> PolicyFile:
    """The policy, and what happens when it goes bad while the fleet runs: refused, counted, the old one kept."""

    def refused(error: PolicyError) -> None:
        metrics.POLICY_REFUSED.inc()
        log.error("policy refused, the old one stays: %s", error)

    return PolicyFile(path, refused)


async def serve(
    settings: Settings,
    work: Sequence[tuple[StageName, Lane]],
    *,
    policy: PolicyFile,
    stop: asyncio.Event,
    started: asyncio.Event | None = None,
    encoder_path: Path | None = None,
) -> None:
    """Run these stages until `stop` is set.

    Args:
        started: set once every consumer has its assignment.
        encoder_path: a directory that stands in for the encoder settings (the bundled encoder of `up`).
    """
    async with AsyncExitStack() as stack:
        producer = KafkaProducer(settings.kafka)
        try:
            await producer.start()
        except Unavailable as e:
            raise _with_advice(e, settings.kafka) from e
        stack.push_async_callback(producer.stop)
        parts = Parts(settings, policy, producer, encoder_path, probes={"kafka": producer.check})
        fleet = Fleet(settings.kafka)
        delivers = await build(parts, _once(work), stack)
        for (name, lane), deliver in delivers.items():
            subscribe(fleet, parts, STAGES[name], lane, deliver)
        # First the port, which may be taken, then the groups: a process that joins and goes makes all others wait.
        runner = await _listen(health.application(fleet.intakes, parts.probes, STALL_S), settings.http)
        stack.push_async_callback(runner.cleanup)
        await fleet.start()
        stack.push_async_callback(fleet.stop)
        parts.background.append(partial(_follow_policy, parts))
        background = [asyncio.ensure_future(task()) for task in parts.background]
        try:
            await _until(stop, fleet, background, started)
        finally:
            log.info("draining")
            await asyncio.gather(*(intake.close() for intake in fleet.intakes.values()))
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)


def _with_advice(error: Unavailable, kafka: Kafka) -> Unavailable:
    """The embedded broker refuses an idempotent producer, and has no word for it but "unknown error"."""
    if kafka.idempotence and "UnknownError" in str(error):
        hint = "the embedded broker of `scrimp up` has no idempotent producer, and needs SCRIMP_KAFKA__IDEMPOTENCE=false"
        return Unavailable(error.dependency, f"{str(error).removeprefix('kafka: ')}; {hint}")
    return error


async def _listen(app: web.Application, http: Http) -> web.AppRunner:
    try:
        return await health.serve(app, http.host, http.port)
    except OSError as e:
        where = f"{http.host}:{http.port}"
        match e.errno:
            case errno.EADDRINUSE:
                told = f"SCRIMP_HTTP__PORT: {where} is taken: each process on a host needs its own; 0 takes a free one"
            case errno.EACCES:
                told = f"SCRIMP_HTTP__PORT: this user may not listen at {where}"
            case _:
                told = f"SCRIMP_HTTP__HOST: {http.host} is no address of this host"
        raise SettingsError(told) from e


async def _until(stop: asyncio.Event, fleet: Fleet, background: Sequence[asyncio.Future[None]], started: asyncio.Event | None) -> None:
    """Wait for the stop, or for what ends the process."""
    stopping = asyncio.ensure_future(stop.wait())
    assigning = asyncio.ensure_future(_assigned(fleet, started))
    waiting: set[asyncio.Future[Any]] = {stopping, assigning, *background, *(intake.fatal for intake in fleet.intakes.values())}
    try:
        while not stopping.done():
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for finished in done:
                finished.result()
    finally:
        stopping.cancel()
        assigning.cancel()


async def _assigned(fleet: Fleet, started: asyncio.Event | None) -> None:
    await asyncio.gather(*(intake.assigned.wait() for intake in fleet.intakes.values()))
    log.info("ready: %s", ", ".join(f"{name}.{lane}" for name, lane in fleet.intakes))
    if started is not None:
        started.set()


def _once(work: Sequence[tuple[StageName, Lane]]) -> list[tuple[StageName, Lane]]:
    """Each stage once a lane; a stage that serves both lanes once."""
    return list(dict.fromkeys((name, lane if STAGES[name].lanes else "interactive") for name, lane in work))


def subscribe(fleet: Fleet, parts: Parts, stage: Stage, lane: Lane, deliver: Deliver) -> None:
    """Give each consumer of a stage its window."""
    for consumer in stage.consumers:
        _subscribe(fleet, parts, stage, consumer, lane, deliver)


def _subscribe(fleet: Fleet, parts: Parts, stage: Stage, consumer: str, lane: Lane, deliver: Deliver) -> None:
    window, drain_s = parts.settings.stage(stage.name).window, parts.settings.stage(stage.name).drain_s
    single = stage.form == "window"
    labels = (consumer, lane)
    parking = Parking(parts.probes, lambda dependency, down: metrics.PARKED.labels(*labels, dependency).set(down))
    intake = Intake(
        deliver,
        parking,
        limit=window if single else 1,
        backlog=window * BACKLOG,
        single=single,
        drain_s=drain_s,
        on_commit_failure=metrics.COMMIT_FAILURES.labels(*labels).inc,
        on_revoked=metrics.REBALANCES.labels(*labels).inc,
    )
    metrics.RUNNING.labels(*labels).set_function(lambda: intake.running)
    metrics.UNCOMMITTED.labels(*labels).set_function(lambda: intake.uncommitted)
    fleet.add(stage, consumer, lane, intake, max_records=window, drain_s=drain_s)


async def _follow_policy(parts: Parts) -> None:
    while True:
        await asyncio.sleep(parts.settings.policy_poll_s)
        await asyncio.to_thread(parts.policy.poll)
