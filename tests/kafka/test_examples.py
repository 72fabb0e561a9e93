"""The examples of the README, of docs/publish.md and of examples/, run as they stand but for the address and the topics' prefix."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from tests.kafka.fleet import Fleet
from tests.kafka.provider import digest
from tests.kafka.topics import Topics
from tests.servers import apache_kafka
from tests.servers.required import required

ROOT = Path(__file__).parents[2]
UNPACKED = Path(sys.prefix) / "kcat" / "usr"
"""Where `make deploy-test` puts Debian's kcat and the libraries that it brings."""


def block(page: str, language: str, holding: str = "") -> str:
    """The first block of the page in that language that holds the word."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", (ROOT / page).read_text(), re.S | re.M)
    return next(text for named, text in found if named == language and holding in text)


def here(text: str, fleet: Fleet) -> str:
    """The example with the fleet's address and prefix."""
    return re.sub(r"\bllm\.(?=re)", fleet.prefix, text.replace("localhost:9092", fleet.broker.bootstrap))


def with_kcat() -> dict[str, str]:
    """The variables by which a shell finds the unpacked one."""
    if not UNPACKED.is_dir():
        return {}
    libraries = os.pathsep.join(map(str, UNPACKED.glob("lib/*-linux-gnu*")))
    return {"PATH": f"{UNPACKED / 'bin'}{os.pathsep}{os.environ['PATH']}", "LD_LIBRARY_PATH": libraries}


async def run(fleet: Fleet, *command: str) -> str:
    """What an example prints."""
    example = await asyncio.create_subprocess_exec(
        *command,
        cwd=ROOT,
        env=os.environ | {"BOOTSTRAP": fleet.broker.bootstrap} | with_kcat(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    printed, errors = await example.communicate()
    assert example.returncode == 0, errors.decode()
    return printed.decode()


async def run_example(page: str, fleet: Fleet) -> str:
    return await run(fleet, sys.executable, "-c", here(block(page, "python"), fleet))


async def test_the_readme_publishes_a_request(calm_fleet: Fleet) -> None:
    async with Topics(calm_fleet) as topics:
        await run_example("README.md", calm_fleet)
        answers = await topics.answers([{"tenant": "acme", "request_id": "readme-1"}])
    assert answers["readme-1"]["status"] == "answered"


async def test_the_guide_waits_for_its_answer(calm_fleet: Fleet) -> None:
    printed = await run_example("docs/publish.md", calm_fleet)
    status, source, cost, *_content = printed.split()
    assert (status, source) in {("answered", "model"), ("answered", "cache_exact")}
    assert float(cost) >= 0


async def test_the_example_in_python_waits_for_its_answers(calm_fleet: Fleet) -> None:
    code = here((ROOT / "examples" / "publish_and_await.py").read_text(), calm_fleet)
    printed = await run(calm_fleet, sys.executable, "-c", code, "What is a lighthouse?", "What is a windmill?")
    assert "What is a lighthouse?" in printed
    assert "What is a windmill?" in printed


async def test_the_example_in_java_waits_for_its_answer(calm_fleet: Fleet, tmp_path: Path) -> None:
    if calm_fleet.broker.kind != "apache":
        pytest.skip("the Java client comes with Apache Kafka from Maven Central, which is not this session's broker")
    if shutil.which("javac") is None:
        pytest.skip("no javac: this Java cannot compile the example")
    # What Maven brings for examples/java/pom.xml, and no more of the broker's own jars.
    needs = ("kafka-clients", "slf4j-api", "lz4-java", "snappy-java", "zstd-jni")
    path = [jar for jar in sorted(apache_kafka.jars().glob("*.jar")) if jar.name.startswith(needs)]
    assert len(path) == len(needs)
    source = tmp_path / "PublishAndAwait.java"
    source.write_text(here((ROOT / "examples" / "java" / source.name).read_text(), calm_fleet))
    question = 'What is a "bus" \\ in\nünicode?'
    printed = await run(calm_fleet, "java", *apache_kafka.JVM, "-cp", os.pathsep.join(map(str, path)), str(source), question)
    assert json.loads(printed)["status"] == "answered"
    assert calm_fleet.provider.counts()[digest({"messages": [{"role": "user", "content": question}]})] == 1


def test_the_example_in_java_asks_for_the_client_that_is_tested() -> None:
    assert f"<version>{apache_kafka.VERSION}</version>" in (ROOT / "examples" / "java" / "pom.xml").read_text()


@pytest.fixture
def kcat(calm_fleet: Fleet) -> None:
    if shutil.which("kcat", path=with_kcat().get("PATH")) is None:
        if required("kcat"):
            pytest.fail("SCRIMP_REQUIRE names kcat, and there is none")
        pytest.skip("no kcat: `make deploy-test` takes Debian's packages where they can be had")
    if calm_fleet.broker.kind == "embedded":
        pytest.skip("an old kcat cannot speak to the embedded broker")


@pytest.mark.usefixtures("kcat")
async def test_the_guide_publishes_with_kcat(calm_fleet: Fleet) -> None:
    commands = here(block("docs/publish.md", "", "kcat -P"), calm_fleet)
    async with Topics(calm_fleet) as topics:
        await run(calm_fleet, "sh", "-c", commands)
        await topics.answers([{"tenant": "acme", "request_id": "sh-1"}])
    # A user's repeat gets its response again; the first one is there to be read.
    responses = await run(calm_fleet, "sh", "-c", commands)
    (answer, *_copies) = [line.removeprefix("acme/sh-1 ") for line in responses.splitlines() if line.startswith("acme/sh-1 ")]
    assert json.loads(answer)["status"] == "answered"


@pytest.mark.usefixtures("kcat")
async def test_the_script_waits_for_its_answer_with_kcat(calm_fleet: Fleet) -> None:
    script = here((ROOT / "examples" / "ask.sh").read_text(), calm_fleet)
    printed = await run(calm_fleet, "sh", "-c", script, "ask.sh", 'What is a "kettle"?')
    assert json.loads(printed)["status"] == "answered"
