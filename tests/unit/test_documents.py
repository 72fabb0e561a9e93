"""The README and the guides name only what exists: files, make targets, commands, settings, topics, metrics. Their examples parse."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.core import TyperGroup

from schemas import Request, Response
from workers import policy
from workers.cli import sign
from workers.cli.main import app
from workers.encoder import bundled
from workers.laptop import broker, model
from workers.runtime import metrics
from workers.settings import NOT_OURS, PREFIX, variables
from workers.topics import TOPICS

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*.md")]
EXAMPLES = [ROOT / "examples" / name for name in ("publish_and_await.py", "ask.sh", "java/PublishAndAwait.java")]
README = (ROOT / "README.md").read_text()


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.S | re.M)


def guide(name: str) -> str:
    return (ROOT / "docs" / name).read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text())
    assert [t for t in targets if "://" not in t and not (page.parent / t).exists()] == []


def test_the_readme_and_ci_run_the_same_tests() -> None:
    develop = blocks(README.partition("## Develop")[2], "sh")[0].split("\n")
    ci = [line for line in (ROOT / ".ci" / "run").read_text().split("\n") if line.startswith("make ")]
    assert ci == ["make test", "make deploy-test", "make lint"]
    assert set(ci) <= set(develop)


def test_every_make_target_named_is_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    named = {word for page in PAGES for word in re.findall(r"(?:`|^|\s{4})make ([a-z-]+)", page.read_text(), re.M)}
    assert named
    assert named <= targets


def test_every_command_named_is_there() -> None:
    commands = typer.main.get_command(app)
    assert isinstance(commands, TyperGroup)
    named = {words for page in PAGES for words in re.findall(r"(?:`|^|/bin/)scrimp ([a-z]+)(?: ([a-z]+))?", page.read_text(), re.M)}
    assert named
    for first, second in named:
        assert first in commands.commands
        inside = commands.commands[first]
        assert not isinstance(inside, TyperGroup) or second in inside.commands


def test_every_setting_named_is_there() -> None:
    known = {name for name, _ in variables()} | NOT_OURS
    named = {word for page in PAGES for word in re.findall(rf"\b{PREFIX}[A-Z_]*[A-Z]\b", page.read_text())}
    assert named
    assert named <= known


def test_every_topic_named_is_there() -> None:
    known = {f"llm.{topic.on(lane)}" for topic in TOPICS for lane in ("interactive", "bulk")}
    named = {word for page in PAGES for word in re.findall(r"\bllm\.[a-z0-9][a-z0-9.]*[a-z0-9]", page.read_text())}
    assert named <= known


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda p: p.name)
def test_every_example_writes_requests_and_reads_responses(example: Path) -> None:
    assert set(re.findall(r"\bllm\.[a-z.]*[a-z]", example.read_text())) == {"llm.requests", "llm.responses"}


def test_every_metric_named_is_there() -> None:
    source = Path(metrics.__file__).read_text()
    named = {word for page in PAGES for word in re.findall(r"`(scrimp_[a-z_]+)`", page.read_text())}
    assert {word for word in named if f'"{word}"' not in source} == set()


def test_the_examples_of_events_are_events() -> None:
    request, response = blocks(guide("publish.md"), "json")
    Request.model_validate_json(request)
    assert set(Response.model_fields) == set(Response.model_validate_json(response).model_fields_set)


def test_the_example_policy_is_one() -> None:
    (example,) = blocks(guide("configure.md"), "yaml")
    policy.parse(example, "docs/configure.md")


def test_the_example_of_a_signature_makes_the_one_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "models: {m: {litellm: openai/m, context: 9}}\ntiers: {light: [m]}\nreference: m\ntenants: {acme: {hmac_env: ACME_KEY}}"
    monkeypatch.setenv("ACME_KEY", "s3cret")
    names: dict[str, Any] = {}
    exec(blocks(guide("publish.md"), "python")[-1], names)
    assert sign.signed(policy.parse(text, "test"), "acme", b"value") == (names["signature"](b"value", "s3cret"),)


def test_the_examples_in_python_compile() -> None:
    examples = [*blocks(README, "python"), *blocks(guide("publish.md"), "python")]
    assert len(examples) == 3
    for example in examples:
        compile(example, "example", "exec")


def test_the_wheels_that_errors_name_are_the_locked_ones() -> None:
    locked = {line.split()[0] for lock in ("requirements.lock", "models.lock") for line in (ROOT / lock).read_text().splitlines() if line}
    assert {broker.WHEEL, *model.WHEELS, *(wheel[0] for wheel in bundled._WHEELS.values())} <= locked


def test_the_changelog_has_this_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text()
