"""A volume that is read-only or full: a process says so in one line, and ends or stays unready. Nothing is half-started.

The volumes are real: each process has a mount namespace of its own, with a tmpfs or a read-only bind in it, so that nothing is left behind.
Whoever may not mount skips this module.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from tests.kafka.conftest import fleet_of
from tests.kafka.fleet import SCRIMP, Fleet, health
from tests.kafka.topics import eventually
from tests.servers.kafka import Broker
from tests.servers.required import long
from workers.cache.store import open_store
from workers.ledger.migrate import upgrade

pytestmark = long("a minute of processes")

OWN = ("unshare", "--map-root-user", "--mount", "sh", "-c")
READ_ONLY = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'
SMALL = 'cp -a "$0" "$0.before" && mount -t tmpfs -o size=4m tmpfs "$0" && cp -a "$0.before/." "$0/" && exec "$@"'
"""What stood there stands there."""
FULL = SMALL.replace("exec", '{ dd if=/dev/zero of="$0/fill" bs=4k 2>/dev/null; exec').replace('"$@"', '"$@"; }')
PATIENCE_S = 120


def why_not(folder: Path) -> str | None:
    """What keeps us from mounting; None when nothing."""
    try:
        done = subprocess.run([*OWN, SMALL + " true", str(folder), "true"], capture_output=True, text=True, check=False)
    except OSError as e:
        return str(e)
    return done.stderr.strip() if done.returncode else None


@pytest.fixture(scope="module")
def fleet(kafka: Broker, pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    (folder := tmp_path_factory.mktemp("volumes") / "probe").mkdir()
    if why := why_not(folder):
        pytest.skip(f"nothing can be mounted here: {why}")
    with fleet_of(kafka, pytestconfig, folder.parent, ()) as fleet:
        yield fleet


def on(script: str, folder: Path) -> tuple[str, ...]:
    """`scrimp`, for which the folder is such a volume."""
    return (*OWN, script, str(folder), *SCRIMP)


def log(fleet: Fleet, name: str) -> list[str]:
    return (fleet.folder / f"{name}.log").read_text().splitlines()


def waits_for(fleet: Fleet, name: str, *wrong: str) -> Callable[[], Awaitable[bool]]:
    """Whether this is all that the process says is wrong. Nothing: it is ready."""

    async def is_so() -> bool:
        status, page = await asyncio.to_thread(health, fleet.ports[name])
        return (status == 200) == (not wrong) and page.get("wrong") == list(wrong)

    return is_so


@pytest.mark.parametrize(
    ("script", "why"), [(READ_ONLY, "Read-only file system"), (FULL, "No space left on device")], ids=["read-only", "full"]
)
async def test_a_cache_that_cannot_be_kept_ends_the_process(fleet: Fleet, tmp_path: Path, script: str, why: str) -> None:
    # One that was kept: the engine alone would open it, and lose what comes.
    store = await open_store(url="", api_key="", path=tmp_path, collection="scrimp-cache", dim=384, timeout_s=1, observe=lambda *_: None)
    await store.close()
    name = f"cache-{why[0]}"
    fleet.launch(name, by=on(script, tmp_path), qdrant__path=tmp_path)
    assert await asyncio.to_thread(fleet.processes[name].ended, PATIENCE_S) == 2
    health_page, told = log(fleet, name)
    assert "health at" in health_page
    assert told == f"scrimp: SCRIMP_QDRANT__PATH={tmp_path}: cannot be used: {why}"


async def test_an_encoder_needs_no_more_than_to_be_read(fleet: Fleet, tmp_path: Path) -> None:
    await asyncio.to_thread(shutil.copytree, fleet.encoder, tmp_path, dirs_exist_ok=True)
    fleet.start("cache-read", by=on(READ_ONLY, tmp_path), encoder__path=tmp_path)
    assert fleet.stop("cache-read") == 0


NO_FILE, NO_ROOM = "unable to open database file: can its folder be written?", "disk I/O error: is the disk full?"


@pytest.mark.parametrize(
    ("stage", "script", "why"), [("attribute", READ_ONLY, NO_FILE), ("attribute", FULL, NO_ROOM), ("all", FULL, NO_ROOM)]
)
async def test_a_ledger_that_cannot_be_written_is_waited_for(fleet: Fleet, tmp_path: Path, stage: str, script: str, why: str) -> None:
    name = f"{stage}-{why[0]}"
    url = f"sqlite+aiosqlite:///{tmp_path}/scrimp.db"
    await upgrade(url)
    fleet.launch(name, by=on(script, tmp_path), ledger__url=url)
    told = f"waits for ledger: {why}"
    await eventually(waits_for(fleet, name, told), lambda: str(log(fleet, name)), PATIENCE_S)
    await asyncio.sleep(2)  # it is tried again, and told once
    status, page = health(fleet.ports[name])
    assert (status, page["wrong"], page["consumers"]) == (503, [told], {})
    assert [line.partition("scrimp: ")[2] for line in log(fleet, name)[1:]] == [told]
    assert fleet.stop(name) == 0


async def test_a_ledger_that_fills_up_is_waited_for_and_found_again(fleet: Fleet, tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/scrimp.db"
    await upgrade(url)
    fleet.start("attribute-filled", by=on(SMALL, tmp_path), ledger__url=url)
    within = f"/proc/{fleet.processes['attribute-filled'].pid}/ns"
    inside = ["nsenter", f"--user={within}/user", "--preserve-credentials", f"--mount={within}/mnt", "sh", "-c"]
    late = "ledger: the last heartbeat is too old to send a call"

    assert await asyncio.to_thread(subprocess.call, [*inside, f"! dd if=/dev/zero of={tmp_path}/fill bs=4k 2>/dev/null"]) == 0
    await eventually(waits_for(fleet, "attribute-filled", late), lambda: str(log(fleet, "attribute-filled")), PATIENCE_S)
    assert any("heartbeat failed: ledger: disk" in line for line in log(fleet, "attribute-filled"))

    assert await asyncio.to_thread(subprocess.call, [*inside, f"rm {tmp_path}/fill"]) == 0
    await eventually(waits_for(fleet, "attribute-filled"), lambda: str(log(fleet, "attribute-filled")), PATIENCE_S)
    assert fleet.stop("attribute-filled") == 0
