"""`python -m tests.mutations [NAME …]`: break a promise on purpose, and show that the suite notices.

Each mutation (`mutations.py`) is made in a copy of the checkout, where the smallest piece of the suite that must catch it runs; unbroken,
those pieces must pass. With `--storm` the judge is a short storm of `tests/chaos` instead. Exits 1 when a mutation survives, when it no
longer applies because the code has moved on, or when the suite is red without it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.mutations.mutations import MUTATIONS, Mutation

ROOT = Path(__file__).parents[2]
NOT_COPIED = shutil.ignore_patterns(".git", ".venv", "__pycache__", "build", "*.egg-info", ".*_cache", ".hypothesis")
PYTEST = ("-m", "pytest", "-q", "-x", "--no-header", "-p", "no:cacheprovider", "-m", "not kafka and not postgres")
STORM = ("-m", "tests.chaos", "--short", "--seed")
RED = 1
"""What both end with when a test failed, or a promise was broken: anything else is an accident, and proves nothing."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutations", description="Break it on purpose; somebody must notice.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="which; left out: all. There are: " + ", ".join(MUTATIONS))
    parser.add_argument("--storm", type=int, metavar="SEED", help="let this storm judge them, not the suite")
    args = parser.parse_args()
    if unknown := set(args.names) - MUTATIONS.keys():
        parser.error(f"no such mutation: {', '.join(sorted(unknown))}")
    chosen = {name: MUTATIONS[name] for name in args.names or MUTATIONS}
    with tempfile.TemporaryDirectory(prefix="scrimp-mutations-") as folder:
        copy = Path(folder) / "checkout"
        shutil.copytree(ROOT, copy, ignore=NOT_COPIED)
        judges = {name: (*STORM, str(args.storm)) if args.storm else (*PYTEST, *m.caught_by) for name, m in chosen.items()}
        if not args.storm and (told := _fails(copy, (*PYTEST, *dict.fromkeys(test for m in chosen.values() for test in m.caught_by)))):
            print(f"the suite is red without any mutation:\n{told}")
            return 1
        verdicts = {name: _verdict(copy, mutation, judges[name]) for name, mutation in chosen.items()}
    for name, verdict in verdicts.items():
        print(f"{verdict:8} {name}: {chosen[name].breaks}")
    bad = [name for name, verdict in verdicts.items() if verdict != "caught"]
    print(f"{len(verdicts) - len(bad)} of {len(verdicts)} mutations caught" + (f"; not: {', '.join(bad)}" if bad else ""))
    return 1 if bad else 0


def _verdict(copy: Path, mutation: Mutation, judge: Sequence[str]) -> str:
    files = {edit.file: (copy / edit.file).read_text() for edit in mutation.edits}
    mutated = mutation.apply(files)
    if mutated is None:
        return "outdated"
    try:
        for file, text in mutated.items():
            (copy / file).write_text(text)
        return "caught" if _fails(copy, judge) else "SURVIVED"
    finally:
        for file, text in files.items():
            (copy / file).write_text(text)


def _fails(copy: Path, judge: Sequence[str]) -> str | None:
    """The end of what the judge prints when it is red; None when it is green."""
    # The copy's own packages come before the installed ones, in the processes that tests start too.
    environment = os.environ | {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1", "CI": "1"}
    done = subprocess.run([sys.executable, *judge], cwd=copy, env=environment, capture_output=True, text=True, check=False)
    if done.returncode not in (0, RED):
        raise RuntimeError(f"{' '.join(judge)} ended with {done.returncode}:\n{(done.stdout + done.stderr)[-3000:]}")
    return (done.stdout + done.stderr)[-3000:] if done.returncode else None


if __name__ == "__main__":
    sys.exit(main())
