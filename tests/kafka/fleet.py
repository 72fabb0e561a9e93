"""A fleet of real processes: one `scrimp run STAGE` each, told by settings alone, as somebody who deploys it would.

Every process logs to a file of its own, which is shown when a test fails, and none outlives the session. `start` raises `NotReady` with the
end of that log when a stage does not get ready. What tests look at, they look at from outside: `topics.py`, `books.py`, `provider.py`.
"""

from __future__ import annotations

import http.client
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.kafka.provider import Provider
from tests.servers.kafka import Broker
from tests.servers.process import NotReady, Process, free_port

SCRIMP = (sys.executable, "-m", "workers.cli.main")
HEARTBEAT_S, STALE_S = 0.5, 6
DRAIN_S = {"call": 70.0, "all": 70.0}
"""Of the settings' defaults: `call` outlasts a call's time-out, the others take 10 s."""

POLICY = """\
models:
  mini:   {{litellm: openai/mini, api_base: "{url}/v1", context: 16000, price: {{input: 1, output: 4}}}}
  middle: {{litellm: openai/middle, api_base: "{url}/v1", context: 16000, price: {{input: 5, output: 20}}}}
  large:  {{litellm: openai/large, api_base: "{url}/v1", context: 64000, price: {{input: 25, output: 100}}}}
tiers: {{light: [mini], standard: [middle], heavy: [large]}}
reference: large
"""
"""Dollars per million tokens; dear enough that every answer costs more than the rounding."""


@dataclass
class Fleet:
    """The settings that its processes share, and the processes by name. A name is a stage, or a stage and a suffix (`call-2`)."""

    broker: Broker
    prefix: str
    """Of its topics and of its groups."""
    partitions: int
    ledger_url: str
    provider: Provider
    encoder: Path
    folder: Path
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Of all its processes, over those of `_environment`: `call__window=2` is `SCRIMP_CALL__WINDOW=2`."""
    forked: bool = True
    """Its processes come from `tests/servers/nursery.py`, which saves the seconds of their imports; else each is started by itself."""
    processes: dict[str, Process] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.policy = self.folder / "policy.yaml"
        self.write_policy()

    def write_policy(self, more: str = "") -> None:
        """The policy of the tests, with these lines added. Processes that run take it within five seconds."""
        self.policy.write_text(POLICY.format(url=self.provider.url) + more)

    def start(self, *names: str, lane: str = "interactive", by: Sequence[str] = SCRIMP, **settings: Any) -> None:
        """Start these, side by side, and wait until all are ready. `all` has both lanes, or the bulk lane alone.

        Args:
            by: the command line that stands in for `scrimp`.
            settings: of these processes alone.
        """
        for name in names:
            self.launch(name, lane=lane, by=by, **settings)
        for name in names:
            self.processes[name].until_ready()

    def launch(self, name: str, *, lane: str = "interactive", by: Sequence[str] = SCRIMP, **settings: Any) -> None:
        if name in self.processes and self.processes[name].running:
            raise NotReady(f"{name} is running already")
        if name in self.processes:
            self.processes[name].kill()
        port = self.ports[name] = free_port()
        stage = name.partition("-")[0]
        command = [*by, "run", stage, *(() if stage == "all" and lane == "interactive" else ("--lane", lane))]
        environment = self._environment({"http__port": port, **settings})
        log = self.folder / f"{name}.log"
        process = Process(command, log, lambda: health(port)[0] == 200, environment=environment, folder=self.folder, forked=self.forked)
        self.processes[name] = process
        process.launch()

    def stop(self, name: str) -> int | None:
        """SIGTERM; what it ended with, -9 if it did not end within its drain."""
        return self.processes[name].stop(DRAIN_S.get(name.partition("-")[0], 10) + 10)

    def kill(self, name: str) -> None:
        self.processes[name].kill()

    def running(self, name: str) -> bool:
        return name in self.processes and self.processes[name].running

    def consumer(self, name: str) -> dict[str, Any]:
        """What the health page tells of the only consumer of a process."""
        told = health(self.ports[name])[1]
        consumers: dict[str, dict[str, Any]] = told.get("consumers", {})
        return next(iter(consumers.values()), {})

    def close(self) -> None:
        for process in self.processes.values():
            process.kill()

    def logs(self, characters: int = 3_000) -> dict[str, str]:
        """The end of every process's log, by file."""
        return {path.name: path.read_text(errors="replace")[-characters:] for path in sorted(self.folder.glob("*.log"))}

    def _environment(self, more: Mapping[str, Any]) -> dict[str, str]:
        settings = {
            "kafka__bootstrap_servers": self.broker.bootstrap,
            "kafka__topic_prefix": self.prefix,
            "kafka__group_prefix": self.prefix,
            "kafka__partitions": self.partitions,
            "kafka__idempotence": self.broker.idempotence,
            "kafka__heartbeat_interval_ms": 500,
            "kafka__session_timeout_ms": 6_000,
            "ledger__url": self.ledger_url,
            "ledger__heartbeat_s": HEARTBEAT_S,
            "ledger__stale_s": STALE_S,
            "encoder__path": self.encoder,
            "policy_file": self.policy,
            "attribute__sweep_s": 1,
            "log_level": "INFO",
            **self.settings,
            **more,
        }
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SCRIMP_")}
        return kept | {f"SCRIMP_{name.upper()}": str(value) for name, value in settings.items()}


def health(port: int) -> tuple[int, dict[str, Any]]:
    """Status and body of `/readyz`; status 0 where nobody answers, or somebody else: a process that starts does not have its port yet."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/readyz")
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    except (OSError, http.client.HTTPException, json.JSONDecodeError):
        return 0, {}
    finally:
        connection.close()
