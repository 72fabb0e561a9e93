"""What can be said of the image without building it: the Dockerfile, what it copies and installs, and what each stage loads at its start.

`make image-test` builds it and runs it, where there is an engine.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.probe import Answering
from tests.servers.required import long, required
from workers.pipeline import STAGES, StageName
from workers.settings import Settings, variables

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "Dockerfile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
VALUES = yaml.safe_load((ROOT / "helm" / "values.yaml").read_text())

LOADS = """
import asyncio, json, sys
from contextlib import AsyncExitStack
from pathlib import Path

async def main(stage):
    from workers.cli.stages import Parts, build
    from workers.cli.wiring import policy_file
    from workers.encoder.bundled import bundled
    from workers.runtime.producer import KafkaProducer
    from workers.settings import load

    settings = load()
    async with AsyncExitStack() as stack:
        parts = Parts(settings, policy_file(None), KafkaProducer(settings.kafka), bundled(), upgrades=True)
        built = await build(parts, [(stage, "interactive")], stack)
        return [name for name, _ in built]

built = asyncio.run(main(sys.argv[1]))
print(json.dumps({"built": built, "modules": [name for name in sys.modules if "." not in name]}))
"""
"""Opens a stage as `scrimp run` does, short of the broker, and says which packages that has loaded."""


def instructions() -> list[str]:
    """One line each, without comments."""
    lines = "\n".join(line for line in TEXT.splitlines() if not line.lstrip().startswith("#"))
    return [" ".join(line.split()) for line in re.sub(r"\\\n", " ", lines).splitlines() if line.strip()]


def of(keyword: str) -> list[str]:
    return [line.removeprefix(keyword + " ") for line in instructions() if line.startswith(keyword + " ")]


def pins(lock: str) -> set[tuple[str, str]]:
    return set(re.findall(r"^([a-z0-9._-]+)==([^ ]+)", (ROOT / lock).read_text(), re.M))


def test_any_builder_can_read_it() -> None:
    assert not re.search(r"^#\s*(syntax|escape|check)\s*=", TEXT, re.M)
    assert "--mount" not in TEXT
    assert "<<" not in TEXT


def test_hadolint_has_nothing_to_say() -> None:
    program = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if program is None and not required("compose"):
        pytest.skip("no hadolint: `make deploy-test` installs it")
    assert program is not None
    done = subprocess.run([program, "--no-color", str(ROOT / "Dockerfile")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_every_stage_of_it_stands_on_the_one_base() -> None:
    names = {line.rpartition(" AS ")[2] for line in of("FROM")}
    assert all(line.startswith("${BASE} ") or line.split()[0] in names for line in of("FROM"))
    (base,) = (line.removeprefix("BASE=") for line in of("ARG") if line.startswith("BASE="))
    assert re.fullmatch(r"python:3\.\d+-slim-[a-z]+", base)


def test_it_is_as_the_chart_expects() -> None:
    context = VALUES["podSecurityContext"]
    nobody = f"{context['runAsUser']}:{context['runAsGroup']}"
    assert of("USER") == [nobody, "0:0", nobody]  # root for as long as a package is installed
    assert of("ENTRYPOINT")[0] == '["scrimp"]'
    assert of("EXPOSE")[0] == str(VALUES["http"]["port"]) == str(Settings.model_construct().http.port)
    assert f"VERSION={PROJECT['version']}" in of("ARG")


def test_the_settings_that_it_sets_are_settings() -> None:
    environment = dict(word.partition("=")[::2] for line in of("ENV") for word in shlex.split(line))
    ours = {name: value for name, value in environment.items() if name.startswith("SCRIMP_")}
    assert set(ours) <= {name for name, _ in variables()}
    assert ours["SCRIMP_HTTP__HOST"] == VALUES["http"]["host"]
    assert f"COPY --from=build {ours['SCRIMP_ENCODER__PATH']} {ours['SCRIMP_ENCODER__PATH']}" in instructions()


def test_what_is_copied_is_let_in_and_nothing_else() -> None:
    copied = {word for line in of("COPY") if not line.startswith("--from") for word in line.split()[:-1]}
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    let_in = {line.removeprefix("!") for line in lines if line.startswith("!")}
    assert "*" in lines
    assert copied == let_in
    assert [name for name in sorted(copied) if not (ROOT / name).exists()] == []


def test_the_check_asks_for_life() -> None:
    check = ["CMD", *json.loads(of("HEALTHCHECK")[0].partition(" CMD ")[2])]
    with Answering() as server:
        assert server.verdict(check, 8080, status=200) == (0, "/livez")
        assert server.verdict(check, 8080, status=503) == (1, "/livez")
        elsewhere = {"SCRIMP_HTTP__PORT": str(server._server.server_port)}
        assert server.verdict(check, 99999, status=200, environment=elsewhere) == (0, "/livez")
    assert server.verdict(check, 8080, status=200)[0] == 1


def test_the_lock_of_the_image_is_part_of_the_lock_that_is_tested() -> None:
    runtime, tested = pins("runtime.lock"), pins("requirements.lock")
    assert runtime - tested == set()
    needed = {re.split(r"[\[<>=;]", line)[0].lower() for line in PROJECT["dependencies"]}
    assert needed <= {name for name, _ in runtime}
    extras = PROJECT["optional-dependencies"]
    others = {re.split(r"[\[<>=;]", line)[0].lower() for extra in extras.values() for line in extra} - {"setuptools"}
    assert others & {name for name, _ in runtime} == set()


def test_the_lock_of_the_image_names_no_host() -> None:
    assert "://" not in (ROOT / "runtime.lock").read_text()


@long("half a minute of CPU")
@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_loads_what_it_needs_and_no_more(stage: StageName, tmp_path: Path) -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith("SCRIMP_")}
    env |= {"PYTHONPATH": str(ROOT), "SCRIMP_LEDGER__URL": f"sqlite+aiosqlite:///{tmp_path}/ledger.db"}
    if stage == "remember":  # it shares the cache's server, which may be away
        env["SCRIMP_QDRANT__URL"] = "http://127.0.0.1:1"
    done = subprocess.run(
        [sys.executable, "-c", LOADS, stage], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert stage in told["built"]
    heavy = {"litellm", "onnxruntime", "fastembed", "qdrant_client"} & set(told["modules"])
    assert heavy == {"call": {"litellm"}, "cache": {"onnxruntime", "fastembed", "qdrant_client"}}.get(
        "cache" if stage == "remember" else stage, set()
    )
