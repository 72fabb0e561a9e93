"""Prometheus itself: its `promtool`, and a server on a port of its own that scrapes what it is told and is asked over its HTTP API.

`make deploy-test` takes both out of Debian's package, into .venv, where that can be had; else they are those on the PATH. Without them the
modules that need them are skipped, and say so; with SCRIMP_REQUIRE=prometheus they fail instead.
"""

from __future__ import annotations

import functools
import json
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
import yaml

from tests.servers.process import Process, free_port
from tests.servers.required import required

UNPACKED = Path(sys.prefix) / "prometheus" / "usr" / "bin"
RULES = Path(__file__).parents[2] / "helm" / "files" / "alerts.yaml"
SCRAPE_S = 1
JOB = "llm/scrimp"
"""As the operator names what a PodMonitor finds."""
PATIENCE_S = 90


@functools.cache
def _found(name: str) -> str | None:
    return shutil.which(name, path=str(UNPACKED)) or shutil.which(name)


def program(name: str) -> str:
    found = _found(name)
    assert found is not None, f"SCRIMP_REQUIRE names prometheus, and there is no {name}"
    return found


def needed() -> None:
    """Skips the module that says this, where there is no Prometheus."""
    if not required("prometheus") and not (_found("prometheus") and _found("promtool")):
        pytest.skip("no prometheus and no promtool: `make deploy-test` takes Debian's package where it can be had", allow_module_level=True)


def rules() -> list[dict[str, Any]]:
    """The alert rules of the chart, as they are."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"] if "alert" in rule]


class Prometheus:
    """A server with these rules that scrapes these ports, by name."""

    def __init__(self, folder: Path, ports: Mapping[str, int], groups: Any) -> None:
        (folder / "rules.yml").write_text(yaml.safe_dump({"groups": groups}))
        pods = [{"targets": [f"127.0.0.1:{port}"], "labels": {"pod": name}} for name, port in ports.items()]
        config = {
            "global": {"scrape_interval": f"{SCRAPE_S}s", "evaluation_interval": f"{SCRAPE_S}s"},
            "rule_files": ["rules.yml"],
            "scrape_configs": [{"job_name": JOB, "static_configs": pods}],
        }
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        port = free_port()
        self._url = f"http://127.0.0.1:{port}"
        command = [
            program("prometheus"),
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ]
        self._process = Process(command, folder / "prometheus.log", self._ready, folder=folder)

    def start(self) -> None:
        self._process.start()

    def close(self) -> None:
        self._process.kill()

    def _ready(self) -> bool:
        try:
            with urlopen(f"{self._url}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except (URLError, ConnectionError, TimeoutError):
            return False

    def _ask(self, path: str, **arguments: str) -> Any:
        with urlopen(f"{self._url}/api/v1/{path}?{urlencode(arguments)}", timeout=30) as answer:
            told = json.loads(answer.read())
        assert told["status"] == "success", told
        return told["data"]

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Labels and value of every series of an instant query."""
        return [(series["metric"], float(series["value"][1])) for series in self._ask("query", query=expression)["result"]]

    def names(self) -> set[str]:
        """Of all metrics that were ever scraped."""
        return set(self._ask("label/__name__/values"))

    def targets(self) -> dict[str, str]:
        """The health of each target, by its pod."""
        return {target["labels"]["pod"]: target["health"] for target in self._ask("targets")["activeTargets"]}

    def health(self) -> dict[str, tuple[str, str]]:
        """Of each rule: whether Prometheus can compute it, and what keeps it from that."""
        groups = self._ask("rules")["groups"]
        return {rule["name"]: (rule["health"], rule.get("lastError", "")) for group in groups for rule in group["rules"]}

    def alerts(self) -> list[dict[str, Any]]:
        """What is pending or firing."""
        found: list[dict[str, Any]] = self._ask("alerts")["alerts"]
        return found

    def firing(self, name: str) -> list[dict[str, str]]:
        """The labels of each instance of an alert that fires."""
        return [alert["labels"] for alert in self.alerts() if alert["labels"]["alertname"] == name and alert["state"] == "firing"]

    def until(self, condition: Callable[[], bool], otherwise: Callable[[], object], patience_s: float = PATIENCE_S) -> None:
        deadline = time.monotonic() + patience_s
        while not condition():
            assert time.monotonic() < deadline, otherwise()
            time.sleep(SCRAPE_S / 2)
