"""Joins concurrent calls into batches: `await coalescer(item)` is one place in one call of `batch`.

`Unavailable` goes to every caller of the batch. After any other error the items are tried one by one, so that it reaches only the caller
whose item it is (the verbs may be repeated). A caller that is cancelled leaves; its batch goes on for the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from workers.outcomes import Unavailable

T = TypeVar("T")
R = TypeVar("R")


class Coalescer(Generic[T, R]):
    """At most `size` items make a batch, and at most `parallel` batches run at once. While there is room for another, what comes in one
    turn of the event loop goes at its end, and nothing waits for company; what comes while all run makes the next batch larger. So the
    batches grow with the load and with it alone."""

    def __init__(self, batch: Callable[[list[T]], Awaitable[list[R]]], *, size: int = 64, parallel: int = 1) -> None:
        self._batch = batch
        self._size = size
        self._parallel = parallel
        self._waiting: list[tuple[T, asyncio.Future[R]]] = []
        self._starting: asyncio.Handle | None = None
        self._running: set[asyncio.Task[None]] = set()

    async def __call__(self, item: T) -> R:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()
        self._waiting.append((item, future))
        if self._starting is None and len(self._running) < self._parallel:
            self._starting = loop.call_soon(self._start)
        return await future

    async def drain(self) -> None:
        """Returns when nothing waits and nothing runs."""
        while self._waiting or self._running:
            self._start()
            await asyncio.wait(set(self._running))

    def _start(self) -> None:
        if self._starting is not None:
            self._starting.cancel()
            self._starting = None
        while self._waiting and len(self._running) < self._parallel:
            now, self._waiting = self._waiting[: self._size], self._waiting[self._size :]
            task = asyncio.create_task(self._run(now))
            self._running.add(task)
            task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if self._waiting:
            self._start()

    async def _run(self, waiting: list[tuple[T, asyncio.Future[R]]]) -> None:
        try:
            results = await self._batch([item for item, _ in waiting])
            if len(results) != len(waiting):
                raise RuntimeError(f"a batch of {len(waiting)} gave {len(results)} results")
        except asyncio.CancelledError:
            for _, future in waiting:
                future.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - it is handed on to the callers, whatever it is
            if len(waiting) > 1 and not isinstance(error, Unavailable):
                for one in waiting:
                    await self._run([one])
                return
            for _, future in waiting:
                if not future.done():
                    future.set_exception(error)
        else:
            for (_, future), result in zip(waiting, results, strict=True):
                if not future.done():
                    future.set_result(result)
