"""Writes the JSON Schema of every event to `schemas/json/`.

    python -m schemas.export            write them
    python -m schemas.export --check    write nothing; exit 1 and name the files that are not current

What users send is described as it is read (fields with a default may be left out); what the fleet writes, as it is written (every field
is there). The output is the same for the same models, byte for byte.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from schemas import Alert, Classified, Compressed, CostRecord, Finished, Missed, Request, Response

FOLDER = Path(__file__).parent / "json"
EVENTS: dict[type[BaseModel], Literal["validation", "serialization"]] = {
    Request: "validation",
    Response: "serialization",
    CostRecord: "serialization",
    Alert: "serialization",
    Classified: "serialization",
    Missed: "serialization",
    Compressed: "serialization",
    Finished: "serialization",
}


def files() -> Iterator[tuple[str, str]]:
    """Name and text of every schema file."""
    for event, mode in EVENTS.items():
        schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **event.model_json_schema(mode=mode)}
        yield f"{event.__name__}.json", json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def stale(folder: Path = FOLDER) -> list[str]:
    """Files in `folder` that are missing, differ from the models, or belong to no event."""
    wanted = dict(files())
    there = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.json")}
    return sorted(name for name in wanted.keys() | there.keys() if wanted.get(name) != there.get(name))


def write(folder: Path = FOLDER) -> None:
    """Write every schema file. A file that belongs to no event is left alone; `stale` names it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files():
        (folder / name).write_text(text, encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    """The command. Returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m schemas.export", description="Write the JSON Schema of every event.")
    parser.add_argument("folder", type=Path, nargs="?", default=FOLDER)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a file is not current")
    given = parser.parse_args(arguments)
    if given.check:
        for name in (old := stale(given.folder)):
            sys.stderr.write(f"{given.folder / name} is not current: run python -m schemas.export\n")
        return 1 if old else 0
    write(given.folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
