"""`python -m tests.chaos.checker FOLDER`: judge the run whose evidence is in FOLDER, while its servers are up. Exits 1 on any problem."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from tests.chaos.checker.evidence import gather
from tests.chaos.checker.rules import figures, judge


def main(folder: Path) -> int:
    evidence = asyncio.run(gather(folder))
    problems = {rule: found for rule, found in judge(evidence).items() if found}
    print(json.dumps({"figures": figures(evidence), "problems": problems}, indent=1))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
