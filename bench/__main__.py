"""`python -m bench [NAME ...]`: runs the benchmarks one after the other and prints their figures; starts the servers they need (the tests'
choice). `--growth` adds the ledger with three million attempts in it; `--short` shows that they run, and its figures mean little."""

from __future__ import annotations

import argparse
import importlib
import tempfile
from contextlib import ExitStack
from pathlib import Path

import uvloop

from tests.servers import kafka, postgres

ON_KAFKA = ("classify", "call", "chain")
NAMES = (*ON_KAFKA, "ledger")
SHORT = {"classify": {"RECORDS": 2_000}, "call": {"CALLS": 1_000}, "chain": {"SECONDS": 2}}


def main() -> None:
    arguments = argparse.ArgumentParser(prog="python -m bench", description="Runs the benchmarks and prints their figures.")
    arguments.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(NAMES)}; none: all of them")
    arguments.add_argument("--growth", action="store_true", help="ledger: also with three million attempts in it (a few minutes)")
    arguments.add_argument("--short", action="store_true", help="one small round of each instead of five")
    given = arguments.parse_args()
    if wrong := [n for n in given.names if n not in NAMES]:
        arguments.error(f"no such benchmark: {', '.join(wrong)}; one of {', '.join(NAMES)}")
    names = given.names or NAMES
    with ExitStack() as on_exit:
        if {"call", "chain", "ledger"} & set(names):
            postgres.SETTINGS["fsync"] = "on"  # as where money is kept
            postgres.server()  # from this thread: it ends with the thread that started it, and those of a benchmark end with its loop
        if set(ON_KAFKA) & set(names):
            folder = on_exit.enter_context(tempfile.TemporaryDirectory())
            broker = on_exit.enter_context(kafka.session(Path(folder)))
            print(f"broker: {broker.title}", flush=True)
        for name in names:
            benchmark = importlib.import_module(f"bench.{name}")
            if given.short:
                vars(benchmark).update({"ROUNDS": 1} | SHORT.get(name, {}))
            uvloop.run(benchmark.main(broker.bootstrap) if name in ON_KAFKA else benchmark.main(growth=given.growth))


if __name__ == "__main__":
    main()
