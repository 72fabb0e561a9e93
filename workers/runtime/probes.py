"""Which dependencies of this process answer. A probe that hangs is one that fails: it is given up after `PROBE_S`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from workers.outcomes import Unavailable

Probe = Callable[[], Awaitable[None]]
"""Raises Unavailable while the dependency is down."""

PROBE_S = 5.0


async def silent(probes: Mapping[str, Probe]) -> dict[str, str]:
    """Those that do not answer, and why; asked all at once."""
    probes = dict(probes)  # a start adds to them meanwhile
    whys = await asyncio.gather(*(why_not(name, probe) for name, probe in probes.items()))
    return {name: why for name, why in zip(probes, whys, strict=True) if why is not None}


async def why_not(name: str, probe: Probe) -> str | None:
    """None when the dependency answers."""
    try:
        async with asyncio.timeout(PROBE_S):
            await probe()
    except Unavailable as e:
        return str(e)
    except TimeoutError:
        return f"{name}: no answer in {PROBE_S:.0f} s"
    return None
