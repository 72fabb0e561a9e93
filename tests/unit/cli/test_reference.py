"""The reference pages say what the code says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from workers.cli import reference
from workers.policy import Policy, _Part
from workers.settings import variables


def test_the_pages_are_current() -> None:
    assert reference.stale() == [], "run python -m workers.cli.reference"


def test_check_names_what_is_not_current(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert reference.main([str(tmp_path)]) == 0
    assert reference.main(["--check", str(tmp_path)]) == 0
    (tmp_path / "settings.md").write_text("")
    (tmp_path / "policy.md").unlink()
    assert reference.main(["--check", str(tmp_path)]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_every_setting_has_a_row() -> None:
    page = reference.settings_page()
    for name, _ in variables():
        assert f"| `{name}` |" in page


def test_every_part_of_the_policy_has_a_section() -> None:
    assert {part for _, part in reference.PARTS} == set(_Part.__subclasses__())


def test_no_secret_has_a_default_in_the_page() -> None:
    assert "SecretStr" not in reference.settings_page()


def test_the_policys_schema_knows_what_a_feature_may_say() -> None:
    schema = reference.policy_schema()
    assert schema["required"] == ["models", "tiers", "reference"]
    assert schema["properties"]["features"]["additionalProperties"] == {"$ref": "#/$defs/Rules"}
    assert "required" not in schema["$defs"]["Rules"]
    assert "digest" not in schema["properties"]
    assert "`digest`" not in reference.policy_page()
    assert json.dumps(schema, sort_keys=True) != json.dumps(Policy.model_json_schema(), sort_keys=True)
