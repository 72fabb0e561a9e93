"""The checker stands on its own: it would be no witness if it shared the workers' code."""

from __future__ import annotations

import subprocess
import sys

from tests.kafka.provider import ROOT

LOADED = """\
import sys
import tests.chaos.checker.__main__
named = {name.partition(".")[0] for name in sys.modules}
ours = sorted(name for name in sys.modules if name.startswith("tests.") and not name.startswith("tests.chaos"))
print(sorted(named & {"workers", "schemas", "sqlalchemy", "pydantic", "faststream"}), ours)
"""


def test_the_checker_loads_nothing_of_the_product_nor_of_the_harness() -> None:
    told = subprocess.run([sys.executable, "-c", LOADED], cwd=ROOT, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[] []"
