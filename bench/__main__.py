"""`python -m bench [NAME ...]`: starts a broker (the tests' choice), runs the benchmarks one after the other, prints their figures."""

from __future__ import annotations

import importlib
import sys
import tempfile
from pathlib import Path

import uvloop

from tests.servers import kafka, postgres

NAMES = ("classify", "call", "chain")


def main() -> None:
    names = sys.argv[1:] or NAMES
    if wrong := [n for n in names if n not in NAMES]:
        sys.exit(f"no such benchmark: {', '.join(wrong)}; one of {', '.join(NAMES)}")
    with tempfile.TemporaryDirectory() as folder, kafka.session(Path(folder)) as broker:
        print(f"broker: {broker.title}", flush=True)
        if {"call", "chain"} & set(names):
            postgres.server()  # from this thread: it ends with the thread that started it, and those of a benchmark end with its loop
        for name in names:
            uvloop.run(importlib.import_module(f"bench.{name}").main(broker.bootstrap))


main()
