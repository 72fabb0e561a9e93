"""The command as a process: what it prints where, and how it exits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import ExitStack, chdir, redirect_stderr, redirect_stdout
from importlib import resources
from io import StringIO
from pathlib import Path
from unittest import mock

import pytest
import typer
from typer.core import TyperGroup

from workers.cli.main import app, main
from workers.laptop.broker import HOST, free_port


def scrimp(folder: Path, *arguments: str, alone: bool = False, **variables: str) -> subprocess.CompletedProcess[str]:
    """What the command says and how it ends: `alone` in a process of its own, which takes seconds to start, else in this one."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("SCRIMP_") and not k.endswith("_API_KEY")}
    root = str(Path(__file__).parents[3])
    env = clean | {"PYTHONPATH": root, "NO_COLOR": "1", "COLUMNS": "200"} | variables
    command = [sys.executable, "-m", "workers.cli.main", *arguments]
    if alone:
        return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=120, check=False)
    with ExitStack() as here:
        here.enter_context(chdir(folder))
        here.enter_context(mock.patch.dict(os.environ, env, clear=True))
        here.enter_context(mock.patch("sys.argv", ["scrimp", *arguments]))
        out = here.enter_context(redirect_stdout(StringIO()))
        errors = here.enter_context(redirect_stderr(StringIO()))
        with pytest.raises(SystemExit) as end:
            main()
        return subprocess.CompletedProcess(command, end.value.code or 0, out.getvalue(), errors.getvalue())  # type: ignore[arg-type]


def commands(group: TyperGroup, before: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], str]]:
    """Every command and every group with its help text."""
    found = [(before, group.help or "")]
    for name, command in group.commands.items():
        path = (*before, name)
        found += commands(command, path) if isinstance(command, TyperGroup) else [(path, command.help or "")]
    return found


def test_every_command_has_help_with_an_example_of_itself() -> None:
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    found = commands(group)
    names = {"up", "demo", "ask", "submit", "watch", "run", "report", "forget", "doctor", "topics", "ledger", "schemas"}
    assert {path[0] for path, _ in found if path} >= names
    for path, text in found:
        assert f"Example: {' '.join(('scrimp', *path))}" in text, path


def test_help_imports_nothing_heavy() -> None:
    heavy = "{'litellm', 'faststream', 'aiokafka', 'qdrant_client', 'sqlalchemy'}"
    code = f"import sys, workers.cli.main; print(*sorted({heavy} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""


@pytest.mark.parametrize("command", [("ask", "Hello?"), ("up",), ("demo", "--json"), ("topics", "check"), ("ledger", "upgrade")])
def test_a_wrong_setting_is_one_line_and_exit_2(tmp_path: Path, command: tuple[str, ...]) -> None:
    result = scrimp(tmp_path, *command, SCRIMP_KAFKA__BOOTSTRAPSERVERS="x:9092")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.splitlines() == [
        "scrimp: SCRIMP_KAFKA__BOOTSTRAPSERVERS is not a setting; did you mean SCRIMP_KAFKA__BOOTSTRAP_SERVERS?"
    ]


def test_a_wrong_policy_is_one_line_and_exit_2(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text("models: {}")
    result = scrimp(tmp_path, "ask", "Hello?", SCRIMP_POLICY_FILE="policy.yaml")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("scrimp: policy.yaml: models: ")
    assert len(result.stderr.splitlines()) == 1


def test_remember_without_a_server_is_one_line_also_where_no_broker_is(tmp_path: Path) -> None:
    result = scrimp(tmp_path, "run", "remember", SCRIMP_KAFKA__BOOTSTRAP_SERVERS=f"{HOST}:{free_port()}")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("scrimp: SCRIMP_QDRANT__URL: ")
    assert len(result.stderr.splitlines()) == 1


def test_a_provider_without_its_key_is_one_line_and_starts_nothing(tmp_path: Path) -> None:
    result = scrimp(tmp_path, "up", "--provider", "openai", alone=True)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.splitlines()[-1] == "scrimp: --provider openai: its key is missing; set OPENAI_API_KEY"
    assert "Kafka" not in result.stderr
    assert not list(tmp_path.iterdir())


def test_no_broker_is_told_and_exit_1(tmp_path: Path) -> None:
    result = scrimp(tmp_path, "ask", "Hello?", alone=True, SCRIMP_KAFKA__BOOTSTRAP_SERVERS=f"{HOST}:{free_port()}")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.splitlines()[-1].startswith("scrimp: kafka: ")
    assert "Traceback" not in result.stderr


def test_doctor_prints_one_document_in_which_each_problem_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(resources.files("workers").joinpath("policy.yaml").read_text())
    broker = f"{HOST}:{free_port()}"
    result = scrimp(tmp_path, "doctor", "--json", alone=True, SCRIMP_KAFKA__BOOTSTRAP_SERVERS=broker, SCRIMP_POLICY_FILE="policy.yaml")
    findings = {f["about"]: f for f in json.loads(result.stdout)}
    assert result.returncode == 1
    assert {about for about, f in findings.items() if not f["ok"]} == {"model mini", "model middle", "model large", "Kafka", "ledger"}
    assert all(f["advice"] for f in findings.values() if not f["ok"])
    assert "OPENAI_API_KEY" in findings["model mini"]["advice"]
    assert "scrimp ledger upgrade" in findings["ledger"]["advice"]


def test_doctor_asks_no_key_of_somebody_who_has_chosen_no_model(tmp_path: Path) -> None:
    result = scrimp(tmp_path, "doctor", SCRIMP_KAFKA__BOOTSTRAP_SERVERS=f"{HOST}:{free_port()}")
    assert {line.split(":")[0] for line in result.stdout.splitlines() if line.startswith("PROBLEM")} == {"PROBLEM Kafka", "PROBLEM ledger"}
    assert "note    model mini: openai/gpt-4o-mini: its key is missing" in result.stdout
    assert "ok      laptop model: installed" in result.stdout


def test_doctor_sees_a_ledger_and_a_wrong_setting(tmp_path: Path) -> None:
    assert scrimp(tmp_path, "ledger", "upgrade").returncode == 0
    broker = f"{HOST}:{free_port()}"
    findings = json.loads(scrimp(tmp_path, "doctor", "--json", SCRIMP_KAFKA__BOOTSTRAP_SERVERS=broker).stdout)
    assert [f["ok"] for f in findings if f["about"] == "ledger"] == [True]
    findings = json.loads(scrimp(tmp_path, "doctor", "--json", SCRIMP_KAFKA__PARTITIONS="0").stdout)
    assert [(f["about"], f["ok"]) for f in findings] == [("settings", False)]
    assert "SCRIMP_KAFKA__PARTITIONS" in findings[0]["text"]


def test_schemas_export_writes_what_it_says(tmp_path: Path) -> None:
    result = scrimp(tmp_path, "schemas", "export", "out")
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert result.returncode == 0
    assert result.stdout == f"{len(written)} schemas written to out\n"
    assert {"Request.json", "Response.json", "CostRecord.json", "Alert.json"} <= set(written)


def test_schemas_export_to_nowhere_is_told(tmp_path: Path) -> None:
    result = scrimp(tmp_path, "schemas", "export", "/proc/nope")
    assert (result.returncode, result.stdout) == (2, "")
    assert "Invalid value for FOLDER: /proc/nope: No such file or directory" in result.stderr


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--tenant", "a/b"), "Invalid value for --tenant: must not hold '/'"),
        (("--feature", ""), "Invalid value for --feature: must have 1 to 128 characters"),
        (("--user", "a\tb"), "Invalid value for --user: must not hold control characters"),
        (("--timeout", "-5"), "Invalid value for --timeout: must be above 0 and at most 86400 seconds"),
        (("--timeout", "nan"), "Invalid value for --timeout: must be above 0 and at most 86400 seconds"),
        (("--tier", "best"), "Invalid value for --tier: must be auto, light, standard or heavy"),
    ],
)
def test_ask_refuses_what_cannot_be_asked(tmp_path: Path, options: tuple[str, ...], told: str) -> None:
    result = scrimp(tmp_path, "ask", "Hello?", *options)
    assert (result.returncode, result.stdout) == (2, "")
    assert told in result.stderr


def test_submit_of_a_file_with_a_bad_line_publishes_nothing(tmp_path: Path) -> None:
    (tmp_path / "f.jsonl").write_text('{"request_id": "a"}\n')
    result = scrimp(tmp_path, "submit", "f.jsonl")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "scrimp: f.jsonl: line 1: tenant: Field required; nothing was published\n"
