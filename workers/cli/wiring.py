"""From settings to running stages: the only place where clients, settings and stages meet.

`serve` runs some stages in this process until it is told to stop, drains, and closes everything it opened. What cannot be reached at start
is waited for, alive and not ready, as it is later; what is set wrong raises `SettingsError`, and an old ledger `LedgerNotReady`. A stage
that must not go on (`Fatal`) ends `serve` with its exception, after the others have drained.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

from aiohttp import web

from schemas.types import Lane
from workers.call.slots import under_way
from workers.cli.stages import Parts, build
from workers.encoder.files import check as check_encoder
from workers.outcomes import Unavailable
from workers.pipeline import STAGES, Stage, StageName
from workers.policy import Policy, PolicyError, PolicyFile
from workers.runtime import health, metrics, provision
from workers.runtime.fleet import Fleet
from workers.runtime.intake import Deliver, Intake
from workers.runtime.parking import Parking
from workers.runtime.probes import silent
from workers.runtime.producer import KafkaProducer
from workers.settings import Http, Kafka, Settings, SettingsError

log = logging.getLogger("scrimp")

FIRST_RETRY_S = 0.5
MOST_RETRY_S = 5.0
"""Pauses between tries to reach what is down at start; they double from the first."""
SUSPECT_S = 5.0
"""Work that has not progressed for this long may be waiting for something that is down; far below `SCRIMP_HTTP__STALL_S`."""
CLOSE_S = 4.0
"""For consumers and producer each to close. With the last commit it stays under the 15 s that a deployment adds to the drain."""
WATCH_S = 5.0
"""Between two looks at what the process depends on, for the metric."""
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
    upgrades: bool = False,
) -> None:
    """Run these stages until `stop` is set.

    Args:
        started: set once every consumer has its assignment.
        encoder_path: a directory that stands in for the encoder settings (the bundled encoder of `up`).
        upgrades: migrate the ledger.
    """
    async with AsyncExitStack() as stack:
        producer, fleet, starting = KafkaProducer(settings.kafka), Fleet(settings.kafka), Starting(stop)
        parts = Parts(settings, policy, producer, encoder_path, upgrades=upgrades, reach=starting.reach)
        # First the port, which may be taken, then the groups: a process that joins and goes makes all others wait.
        pages = health.application(
            fleet.intakes, parts.probes, settings.http.stall_s, optional=parts.optional, starting=lambda: starting.waits_for
        )
        runner = await _listen(pages, settings.http)
        stack.push_async_callback(runner.cleanup)
        encoder = encoder_path or settings.encoder.path
        if encoder is not None and {"cache", "remember"} & {name for name, _ in work}:
            check_encoder(encoder)
        try:
            await starting.reach("kafka", partial(_start_producer, producer, settings.kafka))
            stack.push_async_callback(_close, "producer", producer.stop)
            parts.probes["kafka"] = producer.check
            await starting.reach("kafka", partial(_check_policy, policy(), settings, producer))
            delivers = await build(parts, _once(work), stack)
            # What is imported and built by now stays: a full collection would look at all of LiteLLM, a quarter of a second long.
            gc.freeze()
            stack.callback(gc.unfreeze)
            for (name, lane), deliver in delivers.items():
                subscribe(fleet, parts, STAGES[name], lane, deliver)
            await starting.reach("kafka", partial(producer.must_see, fleet.reads))
            await starting.reach("kafka", fleet.start)
            stack.push_async_callback(_close, "consumers", fleet.stop)
        except Stopped:
            return
        starting.waits_for = None
        parts.background += [partial(_follow_policy, parts, producer), partial(_watch, parts)]
        background = [asyncio.ensure_future(task()) for task in parts.background]
        try:
            await _until(stop, fleet, background, started)
        finally:
            log.info("draining")
            await asyncio.gather(*(intake.close() for intake in fleet.intakes.values()))
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)


async def _close(what: str, stop: Callable[[], Coroutine[None, None, None]]) -> None:
    """Without a broker aiokafka would wait for one, a producer to be rid of its last batch; who sent that has gone by now."""
    closing = asyncio.create_task(stop())
    await asyncio.wait({closing}, timeout=CLOSE_S)
    if not closing.done():
        log.warning("the %s did not close in %.0f s", what, CLOSE_S)
        closing.cancel()
    else:
        closing.result()


class Stopped(Exception):
    """Told to stop before the start was done."""


class Starting:
    """A start waits for what is down, and says what that is."""

    def __init__(self, stop: asyncio.Event) -> None:
        self._stop = stop
        self.waits_for: str | None = "starting"

    async def reach(self, name: str, start: Callable[[], Awaitable[object]]) -> None:
        """Start it, again and again while it is unavailable.

        Raises:
            Stopped: told to stop meanwhile.
        """
        stopping = asyncio.ensure_future(self._stop.wait())
        delay = FIRST_RETRY_S
        self.waits_for = f"waits for {name}"
        try:
            while True:
                trying = asyncio.ensure_future(start())
                await asyncio.wait([stopping, trying], return_when=asyncio.FIRST_COMPLETED)
                if stopping.done():
                    trying.cancel()
                    await asyncio.gather(trying, return_exceptions=True)
                    raise Stopped
                try:
                    await trying
                except Unavailable as e:
                    if self.waits_for != (told := f"waits for {e}"):
                        log.warning("%s", told)
                    self.waits_for = told
                    metrics.UP.labels(e.dependency).set(0)
                else:
                    self.waits_for = "starting"
                    metrics.UP.labels(name).set(1)
                    return
                await asyncio.wait([stopping], timeout=delay)
                delay = min(delay * 2, MOST_RETRY_S)
        finally:
            stopping.cancel()


async def _start_producer(producer: KafkaProducer, kafka: Kafka) -> None:
    """The embedded broker refuses an idempotent producer, and has no word for it but "unknown error"."""
    try:
        await producer.start()
    except Unavailable as e:
        if kafka.idempotence and "UnknownError" in str(e):
            told = "the embedded broker of `scrimp up` has no idempotent producer, and needs SCRIMP_KAFKA__IDEMPOTENCE=false"
            raise SettingsError(f"{e}; {told}") from e
        raise


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
        limit=1 if not single else under_way(window) if stage.name == "call" else window,
        backlog=window * BACKLOG,
        single=single,
        drain_s=drain_s,
        suspect_s=min(SUSPECT_S, parts.settings.http.stall_s / 4),
        step_at=lambda: parts.called_at if stage.name == "call" else 0.0,
        on_commit_failure=metrics.COMMIT_FAILURES.labels(*labels).inc,
        on_revoked=metrics.REBALANCES.labels(*labels).inc,
        on_spare=partial(log.warning, "%s.%s: %s", *labels, health.SPARE),
    )
    metrics.RUNNING.labels(*labels).set_function(lambda: intake.running)
    metrics.UNCOMMITTED.labels(*labels).set_function(lambda: intake.uncommitted)
    fleet.add(stage, consumer, lane, intake, max_records=window, drain_s=drain_s)


async def _watch(parts: Parts) -> None:
    """`scrimp_up` of every dependency, also while no record comes that would need it."""
    while True:
        probes = parts.probes | parts.optional
        down = await silent(probes)
        for name in probes:
            metrics.UP.labels(name).set(name not in down)
        await asyncio.sleep(WATCH_S)


async def _check_policy(policy: Policy, settings: Settings, producer: KafkaProducer) -> None:
    """What only the broker knows of a policy: the topics that it names."""
    try:
        provision.check_tenants(policy, settings.kafka, await producer.topics())
    except PolicyError as e:
        raise PolicyError(f"{settings.policy_file or 'the policy that ships'}: {e}") from e


async def _follow_policy(parts: Parts, producer: KafkaProducer) -> None:
    """Take what the file has become; what is refused is looked at again, since its topics may come."""
    while True:
        await asyncio.sleep(parts.settings.policy_poll_s)
        fresh = await asyncio.to_thread(parts.policy.fresh)
        if fresh is None:
            continue
        try:
            await _check_policy(fresh, parts.settings, producer)
        except PolicyError as e:
            parts.policy.refuse(e)
        except Unavailable as e:
            log.info("the policy has changed, and waits: %s", e)
        else:
            parts.policy.take(fresh)
