"""`/livez`, `/readyz` and `/metrics` over HTTP.

`/livez` is progress: 503 only when work is under way and nothing has finished for longer than it may take. Idle or parked is alive: a
restart would not bring Kafka back. `/readyz` is connections, assignment, and that what is there is taken: its body says what is wrong, and
beside it what is degraded: down, and not needed, or a consumer that is one too many.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from schemas.types import Lane
from workers.runtime.intake import Intake, describe
from workers.runtime.probes import Probe, silent

log = logging.getLogger("scrimp.health")

SPARE = "no partitions, since others have them all; it takes over when one of them goes"


def application(
    intakes: Mapping[tuple[str, Lane], Intake],
    probes: Mapping[str, Probe],
    stall_s: float,
    *,
    optional: Mapping[str, Probe] = {},
    starting: Callable[[], str | None] = lambda: None,
) -> web.Application:
    """All of it is looked at anew with every request.

    Args:
        stall_s: how long running work may go without any of it finishing.
        optional: what the stages do without.
        starting: what the process waits for before it takes its first record; None once it runs.
    """

    async def livez(_request: web.Request) -> web.Response:
        stuck = [f"{stage}.{lane}" for (stage, lane), intake in intakes.items() if intake.stalled_s > stall_s]
        return web.json_response({"alive": not stuck, "stuck": stuck}, status=503 if stuck else 200)

    async def readyz(_request: web.Request) -> web.Response:
        wrong = [told] if (told := starting()) else []
        wrong += [f"{stage}.{lane}: no assignment" for (stage, lane), intake in intakes.items() if not intake.assigned.is_set()]
        wrong += [f"{stage}.{lane}: parked on {name}" for (stage, lane), intake in intakes.items() for name in intake.parked]
        wrong += [f"{stage}.{lane}: {intake.standstill}" for (stage, lane), intake in intakes.items() if intake.standstill]
        wrong += [f"{stage}.{lane}: {intake.refused}" for (stage, lane), intake in intakes.items() if intake.refused]
        down, without = await asyncio.gather(silent(probes), silent(optional))
        wrong += down.values()
        degraded = [*without.values(), *(f"{stage}.{lane}: {SPARE}" for (stage, lane), intake in intakes.items() if intake.spare)]
        consumers = {f"{stage}.{lane}": describe(intake) for (stage, lane), intake in intakes.items()}
        body = {"ready": not wrong, "wrong": wrong, "degraded": degraded, "consumers": consumers}
        return web.json_response(body, status=503 if wrong else 200)

    async def metrics(_request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.add_routes([web.get("/livez", livez), web.get("/readyz", readyz), web.get("/metrics", metrics)])
    return app


async def serve(app: web.Application, host: str, port: int) -> web.AppRunner:
    """Listen; port 0 takes a free one, which is logged. Call `cleanup()` on what comes back. `OSError`: it cannot listen there."""
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, host, port)
    try:
        await site.start()
    except OSError:
        await runner.cleanup()
        raise
    bound = runner.addresses[0]
    log.info("health at http://%s:%s", bound[0], bound[1])
    return runner
