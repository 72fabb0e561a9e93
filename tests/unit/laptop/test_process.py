from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from workers.laptop.process import LaptopError, child, first

SLEEP = [sys.executable, "-m", "workers.laptop.process", sys.executable, "-c", "import time; time.sleep(600)"]
ORPHANS = f"""
import asyncio, os, sys
from pathlib import Path
from workers.laptop.process import child

async def main():
    async with child("sleeper", {SLEEP!r}, Path(sys.argv[1])) as running:
        print(running.process.pid, flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""


def alive(pid: int) -> bool:
    """Also false of a zombie, which nobody may have reaped yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def family(pid: int) -> list[int]:
    """The process and its children."""
    return [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]


def wait_for(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def grown(pid: int) -> list[int]:
    wait_for(lambda: len(family(pid)) == 2)
    return family(pid)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks at /proc")
async def test_a_child_and_its_program_end_with_the_block(tmp_path: Path) -> None:
    async with child("sleeper", SLEEP, tmp_path / "log") as running:
        pids = await asyncio.to_thread(grown, running.process.pid)
        assert all(map(alive, pids))
    assert not any(map(alive, pids))


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks at /proc")
def test_a_child_and_its_program_end_when_the_parent_is_killed(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ORPHANS, str(tmp_path / "log")], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pids = grown(int(parent.stdout.readline()))
        parent.kill()
    wait_for(lambda: not any(map(alive, pids)))


async def test_a_ctrl_c_at_the_terminal_does_not_reach_a_child(tmp_path: Path) -> None:
    async with child("sleeper", SLEEP, tmp_path / "log") as running:
        assert os.getpgid(running.process.pid) != os.getpgid(0)
        assert signal.getsignal(signal.SIGINT) is not signal.SIG_IGN


async def test_a_child_that_ends_by_itself_is_told_with_its_last_words(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; print('some chatter', file=sys.stderr); sys.exit('no such port')"]
    with pytest.raises(LaptopError, match=r"^the thing ended with code 1: no such port \(all of it: .*log\)$"):
        async with child("the thing", command, tmp_path / "log") as running:
            await running.ended()


async def test_the_first_line_of_a_child_that_says_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(LaptopError, match="it said nothing"):
        async with child("the thing", [sys.executable, "-c", ""], tmp_path / "log") as running:
            await running.first_line()


async def test_what_finishes_first_wins_and_the_rest_is_over_by_then() -> None:
    over = []

    async def slow() -> None:
        try:
            await asyncio.sleep(600)
        finally:
            await asyncio.sleep(0)
            over.append("slow")

    async def quick() -> str:
        await asyncio.sleep(0)
        return "quick"

    assert await first(slow(), quick()) == "quick"
    assert over == ["slow"]


async def test_an_error_while_the_rest_stops_is_not_lost() -> None:
    async def fails_to_stop() -> None:
        try:
            await asyncio.sleep(600)
        finally:
            raise LaptopError("the drain broke")

    async def quick() -> None:
        await asyncio.sleep(0)

    with pytest.raises(LaptopError, match="the drain broke"):
        await first(fails_to_stop(), quick())
