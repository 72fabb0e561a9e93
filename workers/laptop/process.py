"""Child processes of laptop mode that cannot outlive the process that started them.

Every child holds a pipe to its parent as standard input; the end of that pipe is what stops it, whether the parent closed it in good
order or died. Its own session keeps a Ctrl-C at the terminal from reaching it before the stages have drained. A child that ends by
itself is seen by `Child.check`, which raises `LaptopError` with the last line of its log.

`python -m workers.laptop.process COMMAND...` holds the pipe for a program that knows nothing of it.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

STOP_S = 5
"""Seconds that a child gets to go after its pipe has been closed."""


class LaptopError(Exception):
    """Something that laptop mode needs is missing or did not start. The text is one line."""


@dataclass(frozen=True, slots=True)
class Child:
    name: str
    log: Path
    process: asyncio.subprocess.Process

    def check(self) -> None:
        if self.process.returncode is not None:
            raise LaptopError(f"{self.name} ended with code {self.process.returncode}: {last_line(self.log)} (all of it: {self.log})")

    async def ended(self) -> NoReturn:
        """Wait until it ends by itself, and raise."""
        await self.process.wait()
        self.check()
        raise AssertionError("a process that has ended has a code")

    async def first_line(self) -> str:
        """What the child prints first, once it is ready."""
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        if not line:
            await self.ended()
        return line.decode()


def last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")


@asynccontextmanager
async def child(name: str, command: Sequence[str], log: Path) -> AsyncIterator[Child]:
    """Run `command` until the block ends; what it writes to standard error is in `log`."""
    with log.open("ab") as errors:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=errors, start_new_session=True
        )
    try:
        yield Child(name, log, process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), STOP_S)
        except TimeoutError:
            process.kill()
            await process.wait()


async def first(*work: Coroutine[Any, Any, Any]) -> Any:
    """The result of what finishes first. The others are cancelled and awaited; an error of any of them is raised."""
    tasks = [asyncio.ensure_future(w) for w in work]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    for result in ended:
        if isinstance(result, Exception):
            raise result
    return done.pop().result()


def when_orphaned(stop: Callable[[], object]) -> None:
    """Call `stop`, from a thread, when the parent closes its end of our standard input or dies."""

    def wait() -> None:
        sys.stdin.buffer.read()
        stop()

    threading.Thread(target=wait, daemon=True).start()


def main() -> int:
    with subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=sys.stderr) as program:
        when_orphaned(program.kill)
        return program.wait()


if __name__ == "__main__":
    sys.exit(main())
