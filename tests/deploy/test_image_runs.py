"""The image as containers: who it is, what it can, and the whole fleet from it, on a real broker and a real database of this machine.

`make image-test` builds the image and names it in the variable IMAGE; without that, or without an engine, it is skipped. Containers are
run as docker-compose.yml and the chart run them: a read-only root, no capabilities, and nothing to write to but /tmp.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from tests.kafka.fleet import POLICY, health
from tests.kafka.provider import Provider
from tests.servers.kafka import Broker
from tests.servers.postgres import database
from tests.servers.process import free_port
from workers.pipeline import STAGES

log = logging.getLogger("image")
IMAGE = os.environ.get("IMAGE", "")
PATIENCE_S = 300
RATE = 10
"""Requests a second while the fleet is restarted."""
CLOSED = ("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges:true", "--network", "host")

if not IMAGE or shutil.which("docker") is None:
    pytest.skip("no image: `make image-test` builds one, where a container engine answers", allow_module_level=True)


def docker(*arguments: str, code: int = 0) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def python(program: str) -> str:
    return docker("run", "--rm", *CLOSED, "--entrypoint", "python", IMAGE, "-c", program)


def test_it_is_nobody_and_can_write_only_to_tmp() -> None:
    program = """
import os, pathlib
print(os.getuid(), os.getgid())
for place in ("/", "/opt/scrimp", "/opt/venv", "/opt/encoder", "/tmp"):
    try:
        pathlib.Path(place, "mine").write_text("")
        print("wrote", place)
    except OSError:
        pass
"""
    assert python(program).split("\n")[:2] == ["10001 10001", "wrote /tmp"]


def test_it_has_no_compiler_and_no_installer() -> None:
    tools = ("cc", "gcc", "g++", "clang", "make", "pip", "curl")
    assert json.loads(python(f"import json, shutil; print(json.dumps([t for t in {tools} if shutil.which(t)]))")) == []
    assert python("import importlib.util as u; print([n for n in ('setuptools', 'pytest') if u.find_spec(n)])").strip() == "[]"


def test_it_says_what_it_is() -> None:
    labels = json.loads(docker("inspect", "--format", "{{json .Config.Labels}}", IMAGE))
    assert labels["org.opencontainers.image.title"] == "scrimp"
    assert labels["org.opencontainers.image.version"]
    size = int(docker("image", "inspect", "--format", "{{.Size}}", IMAGE))
    log.info("%d MB, the same for every stage", size / 1e6)


def test_a_wrong_setting_is_one_line() -> None:
    said = docker("run", "--rm", *CLOSED, "--env", "SCRIMP_KAFKA__BOOTSTRAP=x:1", IMAGE, "run", "call", code=2)
    assert said.splitlines() == ["scrimp: SCRIMP_KAFKA__BOOTSTRAP is not a setting; did you mean SCRIMP_KAFKA__BOOTSTRAP_SERVERS?"]


def test_a_missing_encoder_is_one_line(kafka: Broker) -> None:
    env = ("--env", f"SCRIMP_KAFKA__BOOTSTRAP_SERVERS={kafka.bootstrap}", "--env", "SCRIMP_ENCODER__PATH=/none")
    port = ("--env", "SCRIMP_HTTP__PORT=0", "--env", "SCRIMP_LOG_LEVEL=ERROR")
    said = docker("run", "--rm", *CLOSED, *env, *port, IMAGE, "run", "cache", code=1)
    assert said.splitlines()[-1].startswith("scrimp: SCRIMP_ENCODER__PATH=/none: no model.onnx")


@pytest.fixture(scope="module")
def ledger() -> Iterator[str]:
    with database() as url:
        yield url


@dataclass(frozen=True)
class Containers:
    """A fleet of containers, each of one stage, and the provider that it calls."""

    bootstrap: str
    prefix: str
    options: list[str]
    provider: Provider
    on_exit: ExitStack

    def start(self, stage: str, name: str) -> int:
        """The port of its health page."""
        port = free_port()
        self.on_exit.callback(docker, "rm", "--force", self.prefix + name)
        docker("run", "--detach", "--name", self.prefix + name, *self.options, "--env", f"SCRIMP_HTTP__PORT={port}", IMAGE, "run", stage)
        return port

    def until_ready(self, ports: dict[str, int], began: float) -> None:
        waiting = dict(ports)
        while waiting:
            assert time.monotonic() < began + PATIENCE_S, {name: docker("logs", self.prefix + name)[-2000:] for name in waiting}
            for name in [name for name, port in waiting.items() if health(port)[0] == 200]:
                log.info("%s: ready after %.1f s", name, time.monotonic() - began)
                del waiting[name]
            time.sleep(0.2)

    def stop(self, name: str) -> None:
        """As an orchestrator does, which is obeyed."""
        docker("stop", "--time", "90", self.prefix + name)
        assert docker("inspect", "--format", "{{.State.ExitCode}}", self.prefix + name).strip() == "0", name


@pytest.fixture
def containers(kafka: Broker, ledger: str, tmp_path: Path) -> Iterator[Containers]:
    """None yet, but with all that they need."""
    prefix = f"i{uuid.uuid4().hex[:8]}."
    with ExitStack() as on_exit:
        provider = Provider(tmp_path)
        on_exit.callback(provider.close)
        provider.start()
        (tmp_path / "policy.yaml").write_text(POLICY.format(url=provider.url))
        tmp_path.chmod(0o755)
        env = {
            "SCRIMP_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap,
            "SCRIMP_KAFKA__TOPIC_PREFIX": prefix,
            "SCRIMP_KAFKA__GROUP_PREFIX": prefix,
            "SCRIMP_KAFKA__PARTITIONS": "2",
            "SCRIMP_KAFKA__IDEMPOTENCE": str(kafka.idempotence).lower(),
            "SCRIMP_QDRANT__URL": "http://127.0.0.1:9",  # away, which the fleet must bear
            "SCRIMP_LEDGER__URL": ledger,
            "SCRIMP_POLICY_FILE": "/etc/scrimp/policy.yaml",
        }
        options = [*CLOSED, "--volume", f"{tmp_path}/policy.yaml:/etc/scrimp/policy.yaml:ro"]
        options += [word for name, value in env.items() for word in ("--env", f"{name}={value}")]
        assert f"created {prefix}requests" in docker("run", "--rm", *options, IMAGE, "topics", "apply")
        assert docker("run", "--rm", *options, IMAGE, "ledger", "upgrade").startswith("the ledger is at revision")
        yield Containers(kafka.bootstrap, prefix, options, provider, on_exit)


@pytest.mark.timeout(3 * PATIENCE_S)
async def test_the_whole_fleet_answers_from_it_and_a_rolling_restart_under_load_loses_nothing(containers: Containers) -> None:
    began = time.monotonic()
    containers.until_ready({stage: containers.start(stage, stage) for stage in STAGES}, began)
    answer = docker("run", "--rm", *containers.options, IMAGE, "ask", "Which colour has the parcel?", "--json", "--timeout", "100")
    log.info("first answer %.1f s after the first container was started, all seven at once", time.monotonic() - began)
    assert json.loads(answer.splitlines()[0])["status"] == "answered"
    assert len(containers.provider.calls()) == 1

    done = asyncio.Event()
    load = asyncio.create_task(_load(containers, done))
    for stage in STAGES:
        # A new one first, then the old one goes, so that each joins a group that has members. The chart has it the other way round.
        began, port = time.monotonic(), await asyncio.to_thread(containers.start, stage, f"{stage}-new")
        await asyncio.to_thread(containers.until_ready, {f"{stage}-new": port}, began)
        await asyncio.to_thread(containers.stop, stage)
    done.set()
    asked, answers = await load
    log.info("%d requests at %d a second", len(asked), RATE)
    assert sorted(answer["request_id"] for answer in answers) == asked
    assert {answer["status"] for answer in answers} == {"answered"}
    assert len(containers.provider.calls()) == 1 + len(asked)
    for stage in STAGES:
        await asyncio.to_thread(containers.stop, f"{stage}-new")


async def _load(containers: Containers, done: asyncio.Event) -> tuple[list[str], list[dict[str, Any]]]:
    """Ids of what was asked, a steady stream until `done`, and the responses."""
    consumer = AIOKafkaConsumer(bootstrap_servers=containers.bootstrap, auto_offset_reset="earliest")
    producer = AIOKafkaProducer(bootstrap_servers=containers.bootstrap)
    asked: list[str] = []
    answers: list[dict[str, Any]] = []
    async with consumer, producer:
        consumer.assign([TopicPartition(f"{containers.prefix}responses", n) for n in (0, 1)])
        await consumer.seek_to_end()
        for n in itertools.count():
            if done.is_set():
                break
            asked.append(f"r-{n:05}")
            request = {
                "request_id": asked[-1],
                "tenant": "acme",
                "feature": "rolling",
                "messages": [{"role": "user", "content": f"Number {n}?"}],
            }
            await producer.send_and_wait(f"{containers.prefix}requests", json.dumps(request).encode(), key=asked[-1].encode())
            await asyncio.sleep(1 / RATE)
        give_up = time.monotonic() + PATIENCE_S
        quiet = 0
        while quiet < 10 and time.monotonic() < give_up:
            records = [record for read in (await consumer.getmany(timeout_ms=500)).values() for record in read]
            answers += [json.loads(record.value) for record in records]
            # A second copy of an answer would come late.
            quiet = 0 if records or len(answers) < len(asked) else quiet + 1
    return asked, answers
