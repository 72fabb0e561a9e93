"""Writes what the chart can be told by the workers and by its own values: `files/fleet.yaml` and the table in README.md.

python helm/generate.py            write them
python helm/generate.py --check    write nothing; exit 1 and name the files that are not current
"""

from __future__ import annotations

import json
import operator
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from schemas.types import LANES
from workers.pipeline import STAGES, Stage
from workers.settings import PREFIX, Settings, variables
from workers.topics import DELAYS

HERE = Path(__file__).parent
BEGIN, END = "<!-- Written by helm/generate.py from values.yaml; do not edit. -->", "<!-- The end of what is written. -->"

NEEDS: dict[str, list[str]] = {
    "classify": ["signing"],
    "cache": ["qdrant", "encoder"],
    "remember": ["qdrant", "encoder"],
    "compress": [],
    "call": ["ledger", "providers"],
    "attribute": ["ledger"],
    "redeliver": [],
}
"""What a stage opens beside Kafka and the policy (`workers/cli/stages.py`; a test holds it): its pods get these secrets and no others."""

ORDER: list[tuple[str, str, float, bool, str]] = [
    ("http.stall_s", "call.timeout_s", 1, False, ": a slow provider would look like a hung worker"),
    (
        "call.drain_s",
        "call.timeout_s",
        1,
        False,
        ": a stop would throw paid calls away; what is of `call` alone belongs in stages.call.<lane>.env",
    ),
    ("kafka.session_timeout_ms", "kafka.heartbeat_interval_ms", 1, False, ""),
    ("ledger.stale_s", "ledger.heartbeat_s", 2, True, ""),
    ("classify.long_context_tokens", "classify.short_context_tokens", 1, True, ""),
]
"""What the settings ask of two of them: this one must be above that one, so many times; or may equal it; why."""


def fleet() -> str:
    """The map of the fleet as the templates need it. Names are without prefixes."""
    settings = Settings.model_construct()
    stages = {
        name: {
            "window": settings.stage(name).window,
            "drain": settings.stage(name).drain_s,
            "needs": NEEDS[name],
            # What stands in a delay topic waits for its time, however many read it.
            "scales": not set(stage.reads) & set(DELAYS),
            "lanes": _lanes(stage),
        }
        for name, stage in STAGES.items()
    }
    document = {
        "stages": stages,
        "order": [_order(*rule) for rule in ORDER],
        "settings": [name for name, _ in variables()],
    }
    return "# Written by helm/generate.py from workers/; do not edit.\n" + yaml.safe_dump(document, sort_keys=False, width=140)


def _order(above: str, below: str, times: float, may_equal: bool, why: str) -> dict[str, Any]:
    def default(setting: str) -> Any:
        return operator.attrgetter(setting)(Settings.model_construct())

    return {
        "above": _variable(above),
        "aboveDefault": default(above),
        "below": _variable(below),
        "belowDefault": default(below),
        "times": times,
        "mayEqual": may_equal,
        "why": why,
    }


def _variable(setting: str) -> str:
    return PREFIX + setting.upper().replace(".", "__")


def _lanes(stage: Stage) -> dict[str, Any]:
    return {
        (lane if stage.lanes else "both"): [
            {"group": stage.group("", lane, consumer), "topic": topic.on(lane)}
            for consumer, topics in stage.consumers.items()
            for topic in topics
        ]
        for lane in (LANES if stage.lanes else LANES[:1])
    }


def table(values: str) -> str:
    """Every value that a comment of two dashes explains, as a Markdown table."""
    rows = [f"| `{path}` | {_shown(_at(yaml.safe_load(values), path))} | {told} |" for path, told in explained(values)]
    return "\n".join(["| value | default | |", "|---|---|---|", *rows])


def explained(values: str) -> Iterator[tuple[str, str]]:
    """Path and explanation of each key that has a comment of two dashes on the line above."""
    above: list[tuple[int, str]] = []
    told = None
    for line in values.splitlines():
        if comment := re.fullmatch(r" *# -- (.+)", line):
            told = comment[1]
        elif key := re.match(r"( *)([A-Za-z]+):", line):
            above = [(depth, name) for depth, name in above if depth < len(key[1])] + [(len(key[1]), key[2])]
            if told is not None:
                yield ".".join(name for _, name in above), told.replace("|", "\\|")
            told = None


def _at(values: Any, path: str) -> Any:
    for name in path.split("."):
        values = values[name]
    return values


def _shown(value: Any) -> str:
    return "" if value == "" else f"`{value if isinstance(value, str) else json.dumps(value)}`"


def files() -> Iterator[tuple[Path, str]]:
    """Path and text of every file that is written here, wholly or in part."""
    yield HERE / "files" / "fleet.yaml", fleet()
    page = HERE / "README.md"
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    yield page, f"{before}{BEGIN}\n{table((HERE / 'values.yaml').read_text(encoding='utf-8'))}\n{END}{after}"


def main() -> None:
    stale = [(path, text) for path, text in files() if not path.exists() or path.read_text(encoding="utf-8") != text]
    if "--check" in sys.argv[1:]:
        for path, _ in stale:
            sys.stderr.write(f"{path.relative_to(HERE.parent)} is not current: python helm/generate.py\n")
        sys.exit(bool(stale))
    for path, text in stale:
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
