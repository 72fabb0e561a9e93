"""Processes of the fleet, forked from one that has imported everything: the same programs, without the seconds that their imports take.

`fork` gives a child with what `subprocess.Popen` would give it: arguments, environment, folder and log of its own; it may be killed and
frozen as any other. It differs in what it inherits: modules, and the seed of `hash`. So some fleets are started by their command line all
the same (`tests/kafka/conftest.py`). Linux only; `why_not` says for which commands it is not to be had. The nursery ends with the session
that started it, however that ends, and its children end with it; then `fork` raises `EOFError`.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

ROOT = Path(__file__).parents[2]
MOST = 1 << 18
"""Bytes of a request: its arguments and its environment."""


class Child:
    """What tests use of `subprocess.Popen`, of a process whose parent is the nursery. That one tells on a pipe how the process ended."""

    def __init__(self, told: BinaryIO) -> None:
        self._told = told
        self.returncode: int | None = None
        self.pid = self._number()

    def poll(self) -> int | None:
        return self.returncode if self._ended(0) else None

    def wait(self, timeout: float | None = None) -> int:
        if not self._ended(timeout):
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
        assert self.returncode is not None
        return self.returncode

    def terminate(self) -> None:
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def _ended(self, timeout: float | None) -> bool:
        if self.returncode is None and select.select([self._told], [], [], timeout)[0]:
            self.returncode = self._number()
            self._told.close()
        return self.returncode is not None

    def _number(self) -> int:
        line = self._told.readline()
        if not line:
            raise EOFError("the nursery is gone")
        return int(line)


def why_not(command: Sequence[str]) -> str | None:
    """What keeps this command from being forked; None when nothing."""
    if sys.platform != "linux":
        return "not Linux"
    return None if command[0] == sys.executable and command[1] in ("-m", "-P") else "not `python -m MODULE` or `python -P FILE`"


def prepare() -> None:
    """Begin with the imports, which take some seconds, while the caller does something else."""
    if sys.platform == "linux":
        _nursery()


def fork(command: Sequence[str], log: BinaryIO, environment: Mapping[str, str], folder: Path) -> Child:
    """Run `python -m MODULE …` or `python -P FILE …` with both outputs to `log`."""
    told, tells = os.pipe()
    job = {"command": list(command[1:]), "environment": dict(environment), "folder": str(folder)}
    socket.send_fds(_nursery(), [json.dumps(job).encode()], [log.fileno(), tells])
    os.close(tells)
    return Child(os.fdopen(told, "rb", buffering=0))


@functools.cache
def _nursery() -> socket.socket:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SCRIMP_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.servers.nursery", str(theirs.fileno())],
        stdin=subprocess.DEVNULL,
        pass_fds=[theirs.fileno()],
        # A fork takes one thread along: the libraries for numbers are to start none.
        env=kept | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        cwd=ROOT,
    )
    theirs.close()

    def close() -> None:
        ours.close()
        process.wait(30)

    atexit.register(close)
    return ours


# ---- on the other side


def main() -> None:
    _import_the_fleet()
    job = _forked(socket.socket(fileno=int(sys.argv[1])))
    if job is not None:
        _be(*job)


def _import_the_fleet() -> None:
    import numpy  # noqa: F401  of the encoder; onnxruntime itself starts threads
    import typer.main  # noqa: F401
    import uvloop  # noqa: F401

    import workers.cache.store
    import workers.call.call
    import workers.cli.wiring  # noqa: F401
    from workers.call.provider import open_client

    open_client()
    gc.collect()
    gc.freeze()


def _forked(requests: socket.socket) -> tuple[dict[str, Any], int] | None:
    """The job, in each child; None in the nursery itself, once the session is over."""
    woken, wakes = os.pipe()
    os.set_blocking(wakes, False)
    signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the session's business
    children: dict[int, int] = {}
    while True:
        ready, _, _ = select.select([requests, woken], [], [])
        if woken in ready:
            os.read(woken, 4096)
            _bury(children)
        if requests in ready:
            asked, passed, _, _ = socket.recv_fds(requests, MOST, 2)
            if not asked:
                break
            log, tells = passed
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                signal.signal(signal.SIGINT, signal.default_int_handler)
                ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
                for one in (requests.detach(), woken, wakes, tells, *children.values()):
                    os.close(one)
                return json.loads(asked), log
            os.close(log)
            children[pid] = tells
            os.write(tells, b"%d\n" % pid)
    for pid in children:
        os.kill(pid, signal.SIGKILL)
    return None


def _bury(children: dict[int, int]) -> None:
    for pid in list(children):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            tells = children.pop(pid)
            with suppress(BrokenPipeError):  # nobody asks any more
                os.write(tells, b"%d\n" % os.waitstatus_to_exitcode(status))
            os.close(tells)


def _be(job: dict[str, Any], log: int) -> None:
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    os.environ.clear()
    os.environ.update(job["environment"])
    os.chdir(job["folder"])
    how, what, *arguments = job["command"]
    sys.argv = [what, *arguments]
    try:
        if how == "-m":
            runpy.run_module(what, run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(what, run_name="__main__")
        code: Any = 0
    except SystemExit as end:
        code = end.code or 0
        if not isinstance(code, int):
            print(code, file=sys.stderr)  # noqa: T201  as the interpreter does
            code = 1
    except BaseException:  # noqa: BLE001  as the interpreter does
        traceback.print_exc()
        code = 1
    # The interpreter's own end, but for clearing all modules away, which takes a second of CPU and is nobody's business here.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
