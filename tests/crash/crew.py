"""Processes that are to die: started through `cut.py`, and again after they have died, as whoever runs a fleet would."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

from tests.kafka.fleet import Fleet
from tests.kafka.topics import eventually

CUT = Path(__file__).with_name("cut.py")
QUICK = {"kafka__session_timeout_ms": 1_500, "kafka__heartbeat_interval_ms": 300, "ledger__heartbeat_s": 0.4, "ledger__stale_s": 4}
"""Settings under which the death of a process is soon noticed."""
ALL = ("classify", "cache", "compress", "call", "attribute")
"""Every stage of the interactive lane; `cache` runs `remember` too."""
LIGHT = ("classify", "cache", "compress", "attribute")

Wire = Literal["plain", "litellm"]


def mortal(fleet: Fleet, wire: Wire = "plain") -> tuple[str, ...]:
    """The command line that stands in for `scrimp`."""
    return (sys.executable, "-P", str(CUT), str(fleet.folder), wire)


async def start(fleet: Fleet, *names: str, wire: Wire = "plain", afresh: bool = False, **settings: Any) -> None:
    """Have just these processes of their stages. Those that run go on, unless they are wanted `afresh`."""
    stages = {name.partition("-")[0] for name in names}
    for name in fleet.processes:
        of = name.partition("-")[0]
        rival = of in stages or "all" in (of, *stages)
        if fleet.running(name) and rival and (afresh or name not in names):
            await asyncio.to_thread(fleet.stop, name)
    idle = [name for name in names if not fleet.running(name)]
    await asyncio.to_thread(fleet.start, *idle, by=mortal(fleet, wire), **settings)


async def killed(fleet: Fleet, name: str) -> None:
    """Wait until this process has sent itself SIGKILL."""
    assert await asyncio.to_thread(fleet.processes[name].ended, 60) == -signal.SIGKILL, f"{name} did not come to the point where it dies"


async def cut(fleet: Fleet, mark: str) -> None:
    """Wait until some process has come to this mark."""
    file = fleet.folder / f"{mark}.cut"

    async def there() -> bool:
        return file.exists()

    await eventually(there, f"nobody came to {mark}")


async def frozen(fleet: Fleet, *names: str) -> str:
    """Wait until one of these has sent itself SIGSTOP; which one. It leaves its `.cut` a moment before."""

    async def one() -> bool:
        return any(fleet.processes[name].frozen for name in names)

    await eventually(one, f"none of {names} came to the point where it stops")
    return next(name for name in names if fleet.processes[name].frozen)


@asynccontextmanager
async def revived(fleet: Fleet, *names: str, **settings: Any) -> AsyncIterator[None]:
    """Meanwhile, each of these that dies by SIGKILL is started again. Any other end fails the test."""

    async def watch() -> None:
        while True:
            for name in names:
                if not fleet.running(name):
                    await killed(fleet, name)
                    fleet.launch(name, by=mortal(fleet), **settings)
            await asyncio.sleep(0.05)

    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        if watching.done():
            watching.result()
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
