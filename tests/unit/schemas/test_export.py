"""The published JSON Schema is the code's, and `schemas` needs nothing but pydantic."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from schemas import export

PYDANTIC_ALONE = {"schemas", "pydantic", "pydantic_core", "annotated_types", "typing_extensions", "typing_inspection"}


def test_the_files_are_current() -> None:
    assert export.stale() == [], "run python -m schemas.export"


def test_check_names_what_is_not_current(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert export.main([str(tmp_path)]) == 0
    assert export.main(["--check", str(tmp_path)]) == 0
    (tmp_path / "Request.json").write_text("{}")
    (tmp_path / "Alert.json").unlink()
    (tmp_path / "Gone.json").write_text("{}")
    assert export.main(["--check", str(tmp_path)]) == 1
    told = capsys.readouterr().err
    assert all(name in told for name in ("Request.json", "Alert.json", "Gone.json"))
    assert len(told.splitlines()) == 3


def test_every_field_of_what_we_write_is_promised() -> None:
    for name, text in export.files():
        schema = json.loads(text)
        if name in ("Response.json", "CostRecord.json", "Alert.json"):
            assert set(schema["required"]) == set(schema["properties"]), name


def test_a_request_needs_four_fields() -> None:
    schema = json.loads(dict(export.files())["Request.json"])
    assert schema["required"] == ["request_id", "tenant", "feature", "messages"]
    assert schema["$defs"]["Params"]["additionalProperties"] is False


def test_schemas_import_with_pydantic_alone() -> None:
    code = "import sys; before = set(sys.modules); import schemas, schemas.export; print(*set(sys.modules) - before)"
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    packages = {module.partition(".")[0] for module in ran.stdout.split() if not module.startswith("_")}
    assert packages - set(sys.stdlib_module_names) <= PYDANTIC_ALONE
