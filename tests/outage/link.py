"""A wire that can fail: a TCP proxy in a thread of its own, between a fleet's processes and one server.

`refuse` closes what is open and refuses what comes, `hang` keeps everything open and passes nothing on, `slow` holds every piece back, and
`mend` ends all of it. What hung is cut when the wire is mended: a network that comes back has forgotten its connections.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Literal, TypeVar

from tests.servers.process import free_port

T = TypeVar("T")
Failure = Literal["refuse", "hang", "slow"]
SLOW_S = 0.2


class Background:
    """An event loop in a thread, for servers that must go on while the tests' own loop stands still."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    def close(self) -> None:
        self.run(self._cancel_all())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(30)
        self.loop.close()

    async def _cancel_all(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Link:
    def __init__(self, background: Background, host: str, port: int) -> None:
        self.port = free_port()
        self._background = background
        self._target = host, port
        self._failure: Failure | None = None
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._mended = asyncio.Event()
        background.run(self._listen())

    def fail(self, how: Failure) -> None:
        self._background.run(self._fail(how))

    def mend(self) -> None:
        self._background.run(self._mend())

    def close(self) -> None:
        self._background.run(self._refuse())

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def _refuse(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        self._cut()

    def _cut(self) -> None:
        for writer in self._open:
            writer.transport.abort()
        self._open.clear()

    async def _fail(self, how: Failure) -> None:
        self._mended.clear()
        self._failure = how
        if how == "refuse":
            await self._refuse()

    async def _mend(self) -> None:
        if self._failure == "hang":
            self._cut()
        self._failure = None
        self._mended.set()
        if self._server is None:
            await self._listen()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            if self._failure == "hang":
                await self._mended.wait()
                return
            there_reader, there = await asyncio.open_connection(*self._target)
            self._open.add(there)
            with suppress(OSError):
                await asyncio.gather(self._pass_on(reader, there), self._pass_on(there_reader, writer))
            there.transport.abort()
            self._open.discard(there)
        finally:
            writer.transport.abort()
            self._open.discard(writer)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(1 << 16):
            if self._failure == "hang":
                await self._mended.wait()
                return
            if self._failure == "slow":
                await asyncio.sleep(SLOW_S)
            writer.write(piece)
            await writer.drain()
        writer.write_eof()
