"""README.md from top to bottom, then docs/quickstart.md, as a reader would type them: every block of a shell or of Python, in order.

In a fresh clone of what is committed. What is not as in a reader's life: the clone borrows this checkout's .venv, since to install another
takes minutes, and its own code goes before what is installed there; one benchmark stands for all; and the lines in NOT_RUN are not run.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.servers.required import long
from workers.settings import NOT_OURS, PREFIX

ROOT = Path(__file__).parents[2]

MADE = {"make demo": "make demo", "make bench": "make bench ARGS='--short classify'"}
"""Line -> what is run for it: one round of one benchmark, since all of them take ten minutes and mean nothing on a busy machine."""
NOT_RUN = {
    "make test": "CI runs it before this",
    "make deploy-test": "this is part of it",
    "make image-test": "minutes of a build, where there is an engine at all: CI runs it by itself",
    "make lint": "CI runs it after this",
}
"""Of these, `make --dry-run` says that they can be made, and why they are not."""

STAYS = ".venv/bin/scrimp up"
"""Runs in a terminal of its own until Ctrl-C."""

PATIENCE_S = 120


@dataclass
class Terminal:
    """A reader's second terminal, in the clone. What it ran is kept, with what was printed."""

    clone: Path
    environment: dict[str, str]
    broker: str = "localhost:9092"
    said: dict[str, str] = field(default_factory=dict)

    def types(self, command: str, *, program: str = "", patience_s: float = PATIENCE_S) -> None:
        """One command of a shell, or one program in Python."""
        shell = (self.clone / ".venv/bin/python", "-c", program) if program else ("sh", "-ec", command)
        done = subprocess.run(
            shell,
            cwd=self.clone,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=patience_s,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}"
        self.said[command] = self.said.get(command, "") + done.stdout

    def makes(self, line: str) -> None:
        borrowed = "make --old-file .venv/installed --old-file .venv/deploy-installed"
        if line in MADE:
            self.types(MADE[line].replace("make", borrowed, 1), patience_s=5 * PATIENCE_S)
        else:
            assert line in NOT_RUN, f"{line}: run it, or say in NOT_RUN why not"
            self.types(line.replace("make", f"{borrowed} --dry-run", 1))


def blocks(page: Path) -> list[tuple[str, str]]:
    """Language and text of each block that a reader may run."""
    return [(language, text) for language, text in re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.S | re.M) if language]


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    clone = tmp_path / "scrimp"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True, capture_output=True)
    (clone / ".venv").symlink_to(sys.prefix)
    ours = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX) or name in NOT_OURS}
    return Terminal(clone, ours | {"PYTHONPATH": str(clone)})


class Up:
    """`scrimp up` in a terminal of its own."""

    def __init__(self, terminal: Terminal, log: Path) -> None:
        self._log = log
        with log.open("w") as out:
            self._process = subprocess.Popen(
                ["sh", "-ec", f"exec {STAYS}"],
                cwd=terminal.clone,
                env=terminal.environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._wait()
            # Where 9092 is taken it chooses another port, and tells its reader what to set elsewhere.
            if other := re.search(r"SCRIMP_KAFKA__BOOTSTRAP_SERVERS=(\S+)", log.read_text()):
                terminal.broker = other[1]
                terminal.environment |= {"SCRIMP_KAFKA__BOOTSTRAP_SERVERS": other[1], "BOOTSTRAP": other[1]}
        except BaseException:
            self.kill()
            raise

    def _wait(self) -> None:
        end = time.monotonic() + PATIENCE_S
        while "\nready: " not in self._log.read_text():
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < end, self._log.read_text()
            time.sleep(0.2)

    def ctrl_c(self) -> int:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGINT)
        return self._process.wait(PATIENCE_S)

    def kill(self) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


@pytest.fixture
def ups() -> Iterator[list[Up]]:
    """Those that a page started; none outlives the test."""
    running: list[Up] = []
    yield running
    for up in running:
        up.kill()


@pytest.mark.timeout(1000)
@long("minutes, and a fleet of its own")
def test_the_readme_and_the_quickstart_from_top_to_bottom(terminal: Terminal, ups: list[Up], tmp_path: Path) -> None:
    made = []
    for page in ("README.md", "docs/quickstart.md"):
        for language, text in blocks(terminal.clone / page):
            if language == "python":
                terminal.types(f"{page}, in Python", program=text.replace("localhost:9092", terminal.broker))
                continue
            assert language == "sh", f"{page}: a reader would not know how to run a block of {language}"
            for line in text.splitlines():
                if line == STAYS:
                    ups.append(Up(terminal, tmp_path / "up.log"))
                elif line.startswith("make "):
                    made.append(line)
                    terminal.makes(line)
                else:
                    terminal.types(line)

    (up,) = ups
    assert up.ctrl_c() == 0, (tmp_path / "up.log").read_text()
    assert sorted(made) == sorted({*MADE, *NOT_RUN})
    # As the quickstart says of its two questions: asked of the model, then from the cache.
    twice = terminal.said['.venv/bin/scrimp ask "What is a lighthouse?"']
    assert re.findall(r"· (model|cache_\w+) ·", twice) == ["model", "cache_exact"], twice
    assert (terminal.clone / "scrimp.db").exists()
