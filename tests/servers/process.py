"""A server that a test session starts as a process: its log goes to a file, and it never outlives the session.

`start` is `launch` and then `until_ready`, which raises `NotReady` with the end of the log when the process ends early or does not answer
in time; apart, several processes start side by side. The `leash` is a second, tiny child that waits for its standard input to close: that
happens however the session ends, `kill -9` included, and then it kills the server. What the nursery forked, it kills itself.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.servers import nursery

_PORTS = itertools.cycle(random.SystemRandom().sample(range(12_000, 32_000), 20_000))
LEASH = "import os, signal, sys; sys.stdin.read(); os.kill(int(sys.argv[1]), signal.SIGKILL)"


class NotReady(RuntimeError):
    """The server ended or did not answer in time; the text ends with its log."""


class Process:
    """One command, run at most once at a time. `ready` says whether it serves; it is asked until it does."""

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        ready: Callable[[], bool],
        timeout_s: float = 180,
        *,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
        forked: bool = False,
    ) -> None:
        """`environment` and working `folder` are the session's own unless given. `forked`: by the nursery, where it can."""
        self._command = list(command)
        self._log = log
        self._ready = ready
        self._timeout_s = timeout_s
        self._environment = environment
        self._folder = folder
        self._forked = forked and nursery.why_not(self._command) is None
        self._child: subprocess.Popen[bytes] | nursery.Child | None = None
        self._leash: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.poll() is None

    @property
    def pid(self) -> int:
        if self._child is None:
            raise NotReady(f"{self._command[0]} is not running")
        return self._child.pid

    def start(self) -> None:
        self.launch()
        self.until_ready()

    def launch(self) -> None:
        with self._log.open("ab") as log:
            if self._forked:
                self._child = nursery.fork(self._command, log, self._environment or os.environ, self._folder or Path.cwd())
                return
            self._child = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=self._environment, cwd=self._folder
            )
        self._leash = subprocess.Popen([sys.executable, "-I", "-c", LEASH, str(self._child.pid)], stdin=subprocess.PIPE)

    def until_ready(self) -> None:
        if self._child is None:
            raise NotReady(f"{self._command[0]} is not running")
        deadline = time.monotonic() + self._timeout_s
        while not self._ready():
            ended = self._child.poll()
            if ended is None and time.monotonic() < deadline:
                time.sleep(0.05)
                continue
            self.kill()
            why = f"no answer in {self._timeout_s:.0f} s" if ended is None else f"ended with {ended}"
            raise NotReady(f"{self._command[0]}: {why}\n{self._log.read_text(errors='replace')[-3000:]}")

    def stop(self, patience_s: float = 15) -> int | None:
        """SIGTERM; SIGKILL for one that does not end. Returns what it ended with (-9 after SIGKILL); None when nothing ran."""
        if self._child is None:
            return None
        self._child.terminate()
        return self.ended(patience_s)

    def ended(self, patience_s: float) -> int:
        """What it ended with by itself, or -9 when it had to be killed after `patience_s`."""
        if self._child is None:
            raise NotReady(f"{self._command[0]} is not running")
        child = self._child
        try:
            child.wait(patience_s)
        except subprocess.TimeoutExpired:
            child.kill()
        self._end()
        return int(child.returncode)

    def kill(self) -> None:
        """SIGKILL: what a lost machine looks like."""
        if self._child is not None:
            self._child.kill()
            self._end()

    def freeze(self) -> None:
        """SIGSTOP: connections stay open and nothing answers, until `thaw`."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    @property
    def frozen(self) -> bool:
        """Stopped by a signal, its own or ours."""
        try:
            return self._child is not None and Path(f"/proc/{self._child.pid}/stat").read_text().rpartition(") ")[2].startswith("T")
        except FileNotFoundError:
            return False

    def _signal(self, number: int) -> None:
        if self._child is None:
            raise NotReady(f"{self._command[0]} is not running")
        os.kill(self._child.pid, number)

    def _end(self) -> None:
        # The leash first: once the child has been waited for, its number may belong to somebody else.
        if self._leash is not None and self._leash.stdin is not None:
            self._leash.kill()
            self._leash.stdin.close()
            self._leash.wait()
        if self._child is not None:
            self._child.wait()
        self._child = self._leash = None


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody uses at this moment."""
    # Not the system's choice: it gives the same ports to whoever connects, and one may be gone before its server has started.
    for _ in range(1_000):
        with socket.socket() as listener:
            try:
                port = next(_PORTS)
                listener.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
    raise NotReady("no port is free")


def listens(address: str) -> bool:
    """Somebody accepts connections at `host:port`."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=2).close()
    except OSError:
        return False
    return True
