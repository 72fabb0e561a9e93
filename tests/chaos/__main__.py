"""`python -m tests.chaos [--seed N …]`: storms in full length, each judged by the checker. Exits 1 when a promise was broken.

Every seed gets a fleet of its own. What was sent, done and seen, and every process's log, stays in `--folder`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from tests.chaos.checker.evidence import gather
from tests.chaos.checker.rules import figures, judge
from tests.chaos.database import postgres
from tests.chaos.run import FULL, SHORT, storm, world
from tests.servers import kafka


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="Storms over a whole fleet, and a judge.")
    parser.add_argument("--seed", type=int, action="append", help="which storm; again for more; left out: 1 to 10")
    parser.add_argument("--short", action="store_true", help="as in continuous integration")
    parser.add_argument("--records", type=int, help="how many are sent")
    parser.add_argument("--seconds", type=float, help="how long it storms")
    parser.add_argument("--folder", type=Path, help="where the evidence goes")
    args = parser.parse_args()
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # our own clients, while the broker is down
    size = SHORT if args.short else FULL
    size = replace(size, records=args.records or size.records, seconds=args.seconds or size.seconds)
    folder = args.folder or Path(tempfile.mkdtemp(prefix="scrimp-chaos-"))
    failed = []
    with tempfile.TemporaryDirectory() as data, kafka.session(Path(data)) as broker, postgres() as database:
        print(f"{broker.title}; evidence in {folder}", flush=True)
        for seed in args.seed or range(1, 11):
            began = time.monotonic()

            def say(what: str, seed: int = seed, began: float = began) -> None:
                print(f"seed {seed} {time.monotonic() - began:6.1f} s: {what}", flush=True)

            here = folder / f"seed-{seed}"
            with world([seed], size, broker, database, here, say) as fleet:
                asyncio.run(storm(fleet, seed))
                evidence = asyncio.run(gather(here))
            problems = {rule: found for rule, found in judge(evidence).items() if found}
            (here / "verdict.json").write_text(json.dumps({"figures": figures(evidence), "problems": problems}, indent=1))
            say(json.dumps(figures(evidence)))
            for rule, found in problems.items():
                say(f"BROKEN {rule.replace('_', ' ')}: {len(found)}, such as {'; '.join(found[:5])}")
            if problems:
                failed.append(seed)
                say(f"replay: make chaos ARGS='--seed {seed}'")
    print(f"failed: {failed}" if failed else "every promise was kept", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
