"""Events that once were written must keep parsing, and keep their meaning."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from schemas.export import EVENTS

GOLDEN = Path(__file__).parents[2] / "golden" / "v1"
BY_NAME = {event.__name__: event for event in EVENTS}
FILES = sorted(GOLDEN.glob("*/*.json"))


def missing(old: Any, new: Any, where: str = "") -> list[str]:
    """Places where `new` lacks or changes something of `old`. What is only in `new` is fine: fields may be added."""
    if isinstance(old, dict) and isinstance(new, dict):
        return [m for k, v in old.items() for m in (missing(v, new[k], f"{where}.{k}") if k in new else [f"{where}.{k} is gone"])]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [m for i, (a, b) in enumerate(zip(old, new, strict=True)) for m in missing(a, b, f"{where}[{i}]")]
    return [] if type(old) is type(new) and old == new else [f"{where}: {old!r} became {new!r}"]


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_a_golden_event_keeps_its_meaning(path: Path) -> None:
    event = BY_NAME[path.parent.name]
    parsed = event.model_validate_json(path.read_bytes())
    again = json.loads(parsed.model_dump_json())
    if event.__name__ == "Request":
        # Read, never written: a golden request may hold what is ignored, and times and numbers in other forms.
        assert {"request_id", "tenant", "feature", "messages"} <= again.keys()
        assert event.model_validate_json(parsed.model_dump_json()) == parsed
    else:
        assert missing(json.loads(path.read_bytes()), again) == []


def test_every_event_has_golden_ones() -> None:
    for name in BY_NAME:
        assert sum(p.parent.name == name for p in FILES) >= 2, name


def test_every_reason_status_and_source_stands_somewhere() -> None:
    responses = [json.loads(p.read_bytes()) for p in FILES if p.parent.name == "Response"]
    assert {r["status"] for r in responses} == {"answered", "rejected", "expired", "failed"}


def test_a_full_request_is_read_to_the_letter() -> None:
    request = BY_NAME["Request"].model_validate_json((GOLDEN / "Request" / "every_field.json").read_bytes())
    again = json.loads(request.model_dump_json())
    assert missing(json.loads((GOLDEN / "Request" / "every_field.json").read_bytes()), again) == [".params.temperature: 0 became 0.0"]
