"""docker-compose.yml from a reader's `up --wait` to the `down`: every container, the real servers and the local model, which needs no key.

`make image-test` builds the images and names them in IMAGE and LOCAL_MODEL_IMAGE. Without those, without an engine or Compose, or where the
servers' images are not here and cannot be pulled, it is skipped and says why. It takes the ports of the file: 9092, 6333 and 5432.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.deploy.compose import compose, needed, resolved
from workers.pipeline import STAGES

needed()
log = logging.getLogger("compose")
OURS = {name: os.environ.get(name, "") for name in ("IMAGE", "LOCAL_MODEL_IMAGE")}
CHOSEN = OURS | {"COMPOSE_PROFILES": "local-model", "POLICY": "./examples/policy-local-model.yaml"}
ONCE = {"topics", "migrate"}
PATIENCE_S = 600

if not all(OURS.values()) or shutil.which("docker") is None:
    pytest.skip("no images: `make image-test` builds them, where a container engine answers", allow_module_level=True)


class Project:
    """The file's containers under a name of their own, so that its volumes are not a reader's."""

    def __init__(self) -> None:
        self._name = f"scrimp-test-{uuid.uuid4().hex[:8]}"

    def __call__(self, *arguments: str) -> str:
        done = compose("--project-name", self._name, *arguments, **CHOSEN)
        assert done.returncode == 0, f"{' '.join(arguments)}\n{done.stdout}{done.stderr}\n{self.logs()}"
        return done.stdout

    def containers(self) -> dict[str, dict[str, Any]]:
        """Service -> what the engine says of its container, also of one that has ended."""
        told = self("ps", "--all", "--format", "json").strip()
        # One document, or one a line, as Compose's versions have it.
        found = json.loads(told) if told.startswith("[") else [json.loads(line) for line in told.splitlines()]
        return {container["Service"]: container for container in found}

    def ids(self) -> dict[str, str]:
        return {service: container["ID"] for service, container in self.containers().items()}

    def logs(self) -> str:
        return compose("--project-name", self._name, "logs", "--no-color", "--tail", "20", **CHOSEN).stdout


@pytest.fixture
def project() -> Iterator[Project]:
    images = {service["image"] for service in resolved(**CHOSEN)["services"].values()} - set(OURS.values())
    for image in sorted(images):
        if not _ran("docker", "image", "inspect", image) and not _ran("docker", "pull", "--quiet", image):
            pytest.skip(f"the image {image} is not here and cannot be pulled")
    with ExitStack() as on_exit:
        project = Project()
        on_exit.callback(project, "down", "--volumes", "--timeout", "10")
        yield project


def _ran(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.timeout(2 * PATIENCE_S)
def test_up_answers_and_down(project: Project) -> None:
    began = time.monotonic()
    project("up", "--wait", "--wait-timeout", str(PATIENCE_S))
    log.info("up after %.0f s", time.monotonic() - began)
    up = project.containers()
    assert set(up) == {*STAGES, *ONCE, "kafka", "qdrant", "postgres", "local-model"}
    for service, container in up.items():
        expected = ("exited", "", 0) if service in ONCE else ("running", "healthy", 0)
        assert (container["State"], container["Health"], container["ExitCode"]) == expected, service

    ask = ("exec", "--no-TTY", "classify", "scrimp", "ask", "What is a message broker?", "--json", "--timeout", "60")
    first = json.loads(project(*ask).splitlines()[0])
    log.info("first answer %.0f s after `up` was typed", time.monotonic() - began)
    assert (first["status"], first["source"]) == ("answered", "model"), first
    again: dict[str, Any] = {}
    while again.get("source") != "cache_exact":  # `remember` is a process of its own
        assert time.monotonic() < began + PATIENCE_S, again
        again = json.loads(project(*ask).splitlines()[0])
    project("exec", "--no-TTY", "attribute", "scrimp", "ledger", "verify")
    assert re.search(r"\bmini\b|\bmiddle\b|\blarge\b", project("exec", "--no-TTY", "attribute", "scrimp", "report"))

    ids = project.ids()
    project("up", "--wait", "--wait-timeout", str(PATIENCE_S))
    assert {service: i for service, i in project.ids().items() if service not in ONCE} == {s: i for s, i in ids.items() if s not in ONCE}

    project("stop")
    ended = project.containers()
    assert {stage: ended[stage]["ExitCode"] for stage in STAGES} == dict.fromkeys(STAGES, 0)
