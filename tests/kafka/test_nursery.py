"""The nursery under the other tests: what it forks is a process as any other, with its own words, settings, folder, log and end."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.servers import nursery
from tests.servers.process import NotReady, Process

PROGRAM = """\
import os, sys, time
print(os.getcwd(), os.environ.get("WHOSE"), "PATH" in os.environ, sys.argv[1:], __name__, flush=True)
if sys.argv[1] == "end":
    sys.exit(int(sys.argv[2]))
if sys.argv[1] == "fail":
    raise ArithmeticError("on purpose")
time.sleep(600)
"""


def process(folder: Path, *words: str) -> Process:
    (folder / "program.py").write_text(PROGRAM)
    command: Sequence[str] = (sys.executable, "-P", str(folder / "program.py"), *words)
    if why := nursery.why_not(command):
        pytest.skip(why)
    log = folder / "log"
    return Process(command, log, lambda: log.read_text().endswith("\n"), environment={"WHOSE": "mine"}, folder=folder, forked=True)


def test_it_has_its_own_words_settings_folder_and_log(tmp_path: Path) -> None:
    one = process(tmp_path, "end", "7")
    one.launch()
    assert one.ended(60) == 7
    assert (tmp_path / "log").read_text() == f"{tmp_path} mine False ['end', '7'] __main__\n"


def test_an_error_is_in_its_log_and_its_exit_code(tmp_path: Path) -> None:
    one = process(tmp_path, "fail")
    one.launch()
    assert one.ended(60) == 1
    assert (tmp_path / "log").read_text().endswith("ArithmeticError: on purpose\n")


def test_it_freezes_thaws_and_dies_by_signals(tmp_path: Path) -> None:
    one = process(tmp_path, "sleep")
    one.start()
    assert one.running
    assert not one.frozen
    one.freeze()
    while not one.frozen:
        pass
    one.thaw()
    assert one.stop() == -signal.SIGTERM
    one.start()
    pid = one.pid
    one.kill()
    assert not one.running
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_one_that_ends_before_it_is_ready_is_told_with_its_log(tmp_path: Path) -> None:
    one = process(tmp_path, "fail")
    with pytest.raises(NotReady, match="on purpose"):
        Process(one._command, tmp_path / "log", lambda: False, environment={}, folder=tmp_path, forked=True).start()
