"""`/livez`, `/readyz` and `/metrics` over HTTP.

`/livez` is progress: 503 only when work is under way and nothing has finished for longer than it may take. Idle or parked is alive: a
restart would not bring Kafka back. `/readyz` is connections and assignment, with what is wrong in its body.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from schemas.types import Lane
from workers.outcomes import Unavailable
from workers.runtime.intake import Intake, describe
from workers.runtime.parking import Probe

log = logging.getLogger("scrimp.health")


def application(intakes: Mapping[tuple[str, Lane], Intake], probes: Mapping[str, Probe], stall_s: float) -> web.Application:
    """`stall_s`: how long running work may go without any of it finishing."""

    async def livez(_request: web.Request) -> web.Response:
        stuck = [
            f"{stage}.{lane}"
            for (stage, lane), intake in intakes.items()
            if intake.running and not intake.parked and time.monotonic() - intake.progressed_at > stall_s
        ]
        return web.json_response({"alive": not stuck, "stuck": stuck}, status=503 if stuck else 200)

    async def readyz(_request: web.Request) -> web.Response:
        wrong = [f"{stage}.{lane}: no assignment" for (stage, lane), intake in intakes.items() if not intake.assigned.is_set()]
        wrong += [f"{stage}.{lane}: parked on {name}" for (stage, lane), intake in intakes.items() for name in intake.parked]
        for name, probe in probes.items():
            try:
                await probe()
            except Unavailable as e:
                wrong.append(f"{name}: {e}")
        consumers = {f"{stage}.{lane}": describe(intake) for (stage, lane), intake in intakes.items()}
        return web.json_response({"ready": not wrong, "wrong": wrong, "consumers": consumers}, status=503 if wrong else 200)

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
