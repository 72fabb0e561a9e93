"""What the chart says of the fleet is what the workers say. Needs no Helm."""

from __future__ import annotations

import importlib.util
import json
import re
import tomllib
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from types import ModuleType
from typing import Any

import jsonschema
import pytest
import yaml
from pydantic import ValidationError

from workers import policy
from workers.cli import stages as builders
from workers.cli.stages import Parts
from workers.pipeline import STAGES
from workers.runtime import metrics
from workers.settings import Settings

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm"
VALUES_TEXT = (CHART / "values.yaml").read_text()
VALUES = yaml.safe_load(VALUES_TEXT)
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
META = yaml.safe_load((CHART / "Chart.yaml").read_text())
ALERTS = yaml.safe_load((CHART / "files" / "alerts.yaml").read_text())


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", CHART / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def leaves(values: Any, path: str = "") -> Iterator[str]:
    if isinstance(values, dict) and values:
        for key, value in values.items():
            yield from leaves(value, f"{path}.{key}" if path else key)
    else:
        yield path


def test_what_is_generated_is_current(generate: ModuleType) -> None:
    stale = [str(path.relative_to(ROOT)) for path, text in generate.files() if path.read_text() != text]
    assert stale == [], "python helm/generate.py"


def test_every_value_is_explained(generate: ModuleType) -> None:
    told = dict(generate.explained(VALUES_TEXT))
    assert [leaf for leaf in leaves(VALUES) if not any(leaf == path or leaf.startswith(f"{path}.") for path in told)] == []


def test_a_value_without_a_comment_would_be_seen(generate: ModuleType) -> None:
    told = dict(generate.explained("a:\n  # -- one\n  b: 1\n  c: 2\nd: 3\n# -- two\ne: {f: 4}\n"))
    assert told == {"a.b": "one", "e": "two"}


def test_the_values_fit_their_schema() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    jsonschema.Draft7Validator(SCHEMA).validate(VALUES)


def test_the_schema_is_closed_wherever_it_lists_keys() -> None:
    def open_ones(part: Any, path: str) -> Iterator[str]:
        if isinstance(part, dict):
            if "properties" in part and part.get("additionalProperties") is not False:
                yield path
            for key, value in part.items():
                yield from open_ones(value, f"{path}/{key}")

    assert list(open_ones(SCHEMA, "")) == []


def test_the_chart_has_the_version_of_the_program() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert (META["version"], META["appVersion"]) == (version, version)


def test_stages_and_lanes_are_those_of_the_map() -> None:
    expected = {name: {"interactive", "bulk"} if stage.lanes else {"both"} for name, stage in STAGES.items()}
    assert {name: set(lanes) for name, lanes in VALUES["stages"].items()} == expected


@pytest.mark.parametrize(
    ("value", "setting"),
    [
        ("kafka.securityProtocol", "kafka.security_protocol"),
        ("kafka.topicPrefix", "kafka.topic_prefix"),
        ("kafka.groupPrefix", "kafka.group_prefix"),
        ("kafka.partitions", "kafka.partitions"),
        ("qdrant.collection", "qdrant.collection"),
        ("ledger.poolSize", "ledger.pool_size"),
        ("http.port", "http.port"),
        ("logLevel", "log_level"),
    ],
)
def test_the_defaults_are_those_of_the_settings(value: str, setting: str) -> None:
    ours, theirs = VALUES, Settings.model_construct()
    for part in value.split("."):
        ours = ours[part]
    for part in setting.split("."):
        theirs = getattr(theirs, part)
    assert ours == theirs


def test_the_order_of_two_settings_is_that_of_the_settings(generate: ModuleType) -> None:
    def taken(given: dict[str, float]) -> bool:
        groups: dict[str, dict[str, float]] = {"http": {"stall_s": 9_999}, "call": {"drain_s": 9_999}}
        for setting, value in given.items():
            group, _, name = setting.partition(".")
            groups.setdefault(group, {})[name] = value
        try:
            Settings.model_validate(groups)
        except ValidationError:
            return False
        return True

    for above, below, times, may_equal, _ in generate.ORDER:
        bound = round(2_000 * times)
        assert not taken({below: 2_000, above: bound - 1}), above
        assert taken({below: 2_000, above: bound}) == may_equal, above
        assert taken({below: 2_000, above: bound + 1}), above


def test_the_default_keys_are_those_of_the_policy_that_ships() -> None:
    named = {model.api_key_env for model in policy.load(None).models.values()} - {None}
    assert set(VALUES["providerKeys"]["names"]) == named


def test_the_pods_run_as_the_user_of_the_image_and_call_its_program() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    (user,) = set(re.findall(r"^USER (\d+):(\d+)$", dockerfile, re.M)) - {("0", "0")}
    given = VALUES["podSecurityContext"]
    assert (str(given["runAsUser"]), str(given["runAsGroup"])) == user
    assert 'ENTRYPOINT ["scrimp"]' in dockerfile
    assert "command: [scrimp]" in (CHART / "templates" / "_helpers.tpl").read_text()


async def test_a_stage_gets_what_it_opens(generate: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """`build` is asked for each stage alone, with every opener replaced by one that only says so."""
    opened: set[str] = set()

    async def ledger(parts: Parts, stack: AsyncExitStack) -> None:
        opened.add("ledger")

    async def cache(*_: object) -> dict[Any, Any]:
        opened.update({"qdrant", "encoder"})
        return {}

    async def call(*_: object) -> dict[Any, Any]:
        opened.add("providers")
        return {}

    monkeypatch.setattr(builders, "_open_ledger", ledger)
    monkeypatch.setattr(builders, "_cache_and_remember", cache)
    monkeypatch.setattr(builders, "_call", call)
    monkeypatch.setattr(builders, "_classify", lambda *_: opened.add("signing"))
    for light in ("_compress", "_attribute", "make_redeliver"):
        monkeypatch.setattr(builders, light, lambda *_: None)
    for name in STAGES:
        opened.clear()
        parts: Any = Parts(Settings.model_construct(), policy.PolicyFile(None, pytest.fail), None)  # type: ignore[arg-type]
        async with AsyncExitStack() as stack:
            await builders.build(parts, [(name, "interactive")], stack)
        assert opened == set(generate.NEEDS[name]), name


def test_alerts_ask_for_metrics_that_there_are() -> None:
    source = Path(metrics.__file__).read_text()
    exposed = set()
    for kind, name in re.findall(r'(Counter|Gauge|Histogram)\(\s*"(scrimp_[a-z_]+)"', source):
        exposed |= {f"{name}_bucket", f"{name}_count", f"{name}_sum"} if kind == "Histogram" else {name}
    rules = [rule for group in ALERTS["groups"] for rule in group["rules"]]
    asked = {name for rule in rules for name in re.findall(r"\bscrimp_[a-z_]+", str(rule["expr"]))}
    assert asked
    assert asked <= exposed
    assert all(re.search(r"\bscrimp_", str(rule["expr"])) for rule in rules if "alert" in rule)


def test_alerts_have_a_severity_and_say_what_is_wrong() -> None:
    rules = [rule for group in ALERTS["groups"] for rule in group["rules"] if "alert" in rule]
    assert len({rule["alert"] for rule in rules}) == len(rules)
    for rule in rules:
        assert rule["labels"]["severity"] in ("critical", "warning", "info"), rule["alert"]
        assert rule["annotations"]["summary"], rule["alert"]
