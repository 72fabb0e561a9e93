"""A consumer that takes nothing although there is something to take: recognised, told, and made anew.

An aiokafka consumer can keep its partitions and do no more, without a word, once one of its tasks has ended: nobody asks them. One did so
when its broker had crashed (`connect.py`). So it is asked from outside where it stands and where its partitions end. A look counts when
nothing is under way, nothing was taken since the look before, and records are left, or the consumer does not answer while its broker does.
So many in a row, and it is a standstill. Looks are counted, not seconds: a process that was frozen has lost its seconds through no fault of
the consumer.

Once recognised, a consumer is made anew: it leaves its group and joins again, and reads from what is committed. When that fails, or the
new one stands still, too, without having taken a record, the process ends, for whoever runs it to start it again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from typing import Any, Protocol

from aiokafka.errors import KafkaError

from workers.runtime.intake import Intake

log = logging.getLogger("scrimp.standstill")

LOOK_S = 5.0
"""Between two looks, and for one."""
LOOKS = 6
"""In a row, before a consumer is taken to stand still."""
RENEW_S = 90.0
"""For making one anew: its drain, its leave, its join."""


class Standstill(Exception):
    """A consumer takes nothing, and making it anew has not helped."""


class Consumer(Protocol):
    """What we ask of aiokafka's."""

    def assignment(self) -> Collection[Any]: ...
    async def end_offsets(self, partitions: Collection[Any]) -> dict[Any, int]: ...
    async def position(self, partition: Any) -> int: ...


async def watch(
    intake: Intake,
    consumer: Callable[[], Consumer | None],
    renew: Callable[[], Awaitable[None]],
    *,
    look_s: float,
    looks: int,
    renew_s: float,
) -> None:
    """Look after one consumer until cancelled.

    Args:
        consumer: the present one; None while there is none to ask.
        renew: makes it anew; returns when the new one has joined.

    Raises:
        Standstill: it cannot be made to go on.
    """
    counted, polled, renewed_at = 0, intake.polled, -1
    while True:
        await asyncio.sleep(look_s)
        why = None
        if intake.idle and intake.polled == polled and (asked := consumer()) is not None:
            why = await _why(intake, asked, look_s)
            if why is None:
                renewed_at = -1  # whatever was, it is well now
        if why is None or not intake.idle or intake.polled != polled:
            counted, polled, intake.standstill = 0, intake.polled, None
            continue
        counted += 1
        if counted < looks:
            continue
        intake.standstill = why
        if renewed_at == polled:
            raise Standstill(f"{why}, and did so before it was made anew")
        log.error("a consumer %s; it is made anew", why)
        try:
            async with asyncio.timeout(renew_s):
                await renew()
        except (KafkaError, TimeoutError) as e:
            raise Standstill(f"{why}, and cannot be made anew: {type(e).__name__}") from e
        counted, renewed_at = 0, polled


async def _why(intake: Intake, consumer: Consumer, within_s: float) -> str | None:
    """What speaks for a standstill; None when nothing does."""
    try:
        async with asyncio.timeout(within_s):
            partitions = consumer.assignment()
            ends = await consumer.end_offsets(partitions)
            left = sum([max(0, end - await consumer.position(p)) for p, end in ends.items()])
    except Exception as e:  # noqa: BLE001  what a broken client raises is no answer, whatever it is
        return f"does not answer ({type(e).__name__}), while its broker does" if await intake.answers("kafka") else None
    return f"takes nothing, {left} records behind" if left else None
