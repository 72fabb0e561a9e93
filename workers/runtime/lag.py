"""How far behind a consumer is: the records of its partitions that are not committed yet. A figure for people and alerts.

Nothing here is decided by it, so whatever goes wrong leaves the last figure standing, and the next look makes it right. All processes of a
stage together have the lag of its group.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from workers.runtime.standstill import Consumer

LOOK_S = 10.0
"""Between two looks, and for one."""


class Started(Protocol):
    """What we ask of an `Intake`."""

    @property
    def uncommitted(self) -> int: ...


async def watch(consumer: Callable[[], Consumer | None], intake: Started, tell: Callable[[float], object], *, look_s: float) -> None:
    """Tell the lag again and again until cancelled. `consumer`: the present one; None while there is none to ask."""
    while True:
        await asyncio.sleep(look_s)
        if (asked := consumer()) is None:
            continue
        try:
            async with asyncio.timeout(look_s):
                tell(await left(asked) + intake.uncommitted)
        except Exception:  # noqa: BLE001  a client that is broken is not this figure's business
            continue


async def left(consumer: Consumer) -> int:
    """Records of its partitions that it has not taken yet."""
    ends = await consumer.end_offsets(consumer.assignment())
    return sum([max(0, end - await consumer.position(partition)) for partition, end in ends.items()])
