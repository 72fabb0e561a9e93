"""How Qdrant is reached: a server, which is waited for no longer than a budget, or its engine in this process, one thread at a time.

The one place where an error of Qdrant becomes a `Failure` with a reason fit for a metric. What no retry can mend raises `StoreMisfit`.
"""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
import threading
import time
import warnings
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from json import JSONDecodeError
from pathlib import Path
from typing import Any, TypeVar

from qdrant_client import AsyncQdrantClient
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ApiException, UnexpectedResponse

T = TypeVar("T")

ROOM = 1 << 18
"""Bytes that a directory must have room for at the start. One that fills later costs hits and nothing else."""


class StoreMisfit(RuntimeError):
    """The store cannot be used as it is set up. The text says which setting and what would be right."""


class Failure(Exception):
    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Budget:
    """How long one lookup may still wait for Qdrant, over all its calls. None: as long as it takes."""

    def __init__(self, seconds: float | None) -> None:
        self._left = seconds

    @asynccontextmanager
    async def spend(self) -> AsyncIterator[None]:
        """Raises `TimeoutError` when it is used up."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(self._left):
                yield
        finally:
            if self._left is not None:
                self._left = max(self._left - (time.monotonic() - began), 0.0)


def embedded(path: Path | None) -> AsyncQdrantClient:
    """The engine in this process. `StoreMisfit`: another process holds the directory, or it cannot be used."""
    if path is None:
        return AsyncQdrantClient(location=":memory:")
    with warnings.catch_warnings():
        # qdrant-client leaves its lock file open when the lock is taken.
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            _room(path)
            # One thread at a time uses it, but not always the same one.
            return AsyncQdrantClient(path=str(path), force_disable_check_same_thread=True)
        except RuntimeError as e:
            held = "already accessed" in str(e)
            why = "another process holds it, and only one may" if held else "it cannot be opened"
        except OSError as e:
            raise StoreMisfit(f"SCRIMP_QDRANT__PATH={path}: cannot be used: {e.strerror}") from e
    raise StoreMisfit(f"SCRIMP_QDRANT__PATH={path}: {why}: use one process (`scrimp run all`) or a server (SCRIMP_QDRANT__URL)")


def _room(path: Path) -> None:
    """Raises `OSError` where entries could not be kept; the engine would open what is there and lose what comes."""
    path.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=path) as file:
        file.write(bytes(ROOM))


class Qdrant:
    def __init__(self, client: AsyncQdrantClient, *, embedded: bool) -> None:
        self.client = client
        self.embedded = embedded
        self._one_at_a_time = threading.Lock()

    def budget(self, seconds: float) -> Budget:
        """An embedded engine has none, since a thread cannot be cut short."""
        return Budget(None if self.embedded else seconds)

    async def within(self, budget: Budget, work: Coroutine[Any, Any, T]) -> T:
        """What the work returns, or a `Failure`."""
        try:
            async with budget.spend():
                return await work
        except TimeoutError as e:
            raise Failure("timeout") from e
        except UnexpectedResponse as e:
            raise Failure(f"http_{e.status_code}") from e
        except ResourceExhaustedResponse as e:
            raise Failure("http_429") from e
        except (ApiException, OSError) as e:
            raise Failure("connection") from e
        except (JSONDecodeError, AssertionError) as e:
            # Not Qdrant's protocol (a proxy's page, say): the client asserts that an answer has a result.
            raise Failure("protocol") from e
        except sqlite3.Error as e:
            raise Failure("storage") from e

    async def run(self, call: Coroutine[Any, Any, T], *, brief: bool = False) -> T:
        """`brief`: a thread would cost an embedded store more than the call. While it is busy, the call waits in one all the same."""
        if not self.embedded:
            return await call
        if brief and self._one_at_a_time.acquire(blocking=False):
            try:
                return self._finish(call)
            finally:
                self._one_at_a_time.release()
        return await asyncio.to_thread(self._in_turn, call)

    def _in_turn(self, call: Coroutine[Any, Any, T]) -> T:
        with self._one_at_a_time:
            return self._finish(call)

    def _finish(self, call: Coroutine[Any, Any, T]) -> T:
        # The embedded client computes inside its coroutines and never waits in them: one step ends each.
        try:
            call.send(None)
        except StopIteration as done:
            result: T = done.value
            return result
        raise RuntimeError("the embedded Qdrant client waited for something")
