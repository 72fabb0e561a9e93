"""A PostgreSQL of our own, to be crashed and started again with its rows: the programs are the wheel's (`tests/servers/postgres.py`).

`crash` is PostgreSQL's immediate shutdown: every client is cut off, nothing is flushed but the log, and the next start recovers from it.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg

from tests.servers.postgres import programs, unprivileged
from tests.servers.process import NotReady, Process, free_port

SETTINGS = {
    "max_connections": "200",
    "fsync": "off",
    "deadlock_timeout": "200ms",
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
}
STEP_DOWN = """\
import os, sys
os.setgroups([])
os.setgid(int(sys.argv[1]))
os.setuid(int(sys.argv[2]))
os.execv(sys.argv[3], sys.argv[3:])
"""


class Postgres(Process):
    """The server; `fresh` makes a database in it."""

    def __init__(self, home: Path) -> None:
        """`home` is an empty folder, in one that everybody may look into: where we are root, the server is not.

        Raises:
            NotReady: the data directory cannot be made.
        """
        port = free_port()
        self._address = f"scrimp@127.0.0.1:{port}"
        install, before = programs(home), []
        if os.geteuid() == 0:
            other = unprivileged()
            os.chown(home, other.pw_uid, other.pw_gid)
            before = [sys.executable, "-I", "-c", STEP_DOWN, str(other.pw_gid), str(other.pw_uid)]
        environment = {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"}
        data = str(home / "data")
        made = subprocess.run(
            [*before, str(install / "initdb"), "-D", data, "-U", "scrimp", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
            cwd=home,
        )
        if made.returncode:
            raise NotReady(f"initdb: {made.stderr[-2000:]}")
        flags = [part for name, value in {"port": str(port), **SETTINGS}.items() for part in ("-c", f"{name}={value}")]
        command = [*before, str(install / "postgres"), "-D", data, *flags]
        super().__init__(command, home / "postgres.log", self._answers, environment=environment, folder=home)

    def fresh(self) -> str:
        """The URL of a new, empty database, as SQLAlchemy writes it."""
        name = f"chaos_{uuid.uuid4().hex[:12]}"
        asyncio.run(self._execute(f"CREATE DATABASE {name}"))
        return f"postgresql+asyncpg://{self._address}/{name}"

    def crash(self) -> None:
        self._signal(signal.SIGQUIT)
        self.ended(30)

    def _answers(self) -> bool:
        try:
            asyncio.run(self._execute("SELECT 1"))
        except (OSError, TimeoutError, asyncpg.PostgresError):
            return False
        return True

    async def _execute(self, statement: str) -> None:
        connection = await asyncpg.connect(f"postgresql://{self._address}/postgres", timeout=5)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()


@contextmanager
def postgres() -> Iterator[Postgres]:
    home = Path(tempfile.mkdtemp(prefix="scrimp-chaos-postgres-"))
    try:
        server = Postgres(home)
        server.start()
        try:
            yield server
        finally:
            server.crash()
    finally:
        shutil.rmtree(home)
