"""The provider-shaped server as a process of its own, so that its log of calls is not the fleet's word."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from tests.provider.answers import prompt_digest
from tests.servers.process import Process, free_port, listens

ROOT = Path(__file__).parents[2]


class Provider:
    def __init__(self, folder: Path, *options: str) -> None:
        """`options` of `python -m tests.provider`, beside its port and its log."""
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._calls = folder / "calls.jsonl"
        command = [sys.executable, "-m", "tests.provider", "--port", str(port), "--log", str(self._calls), *options]
        self._process = Process(command, folder / "provider.log", lambda: listens(f"127.0.0.1:{port}"), folder=ROOT)

    def start(self) -> None:
        self._process.start()

    def close(self) -> None:
        self._process.kill()

    def latency(self, seconds: float) -> None:
        """Of every answer from now on."""
        self._control("latency", {"seconds": seconds})

    def fault(self, kind: str, **facts: Any) -> None:
        """Of the next call, or of so many `times`; see `tests/provider/faults.py`."""
        self._control("faults", {"kind": kind, **facts})

    def mend(self) -> None:
        """No more faults."""
        self._control("faults", None, method="DELETE")

    def _control(self, name: str, told: Mapping[str, Any] | None, method: str = "POST") -> None:
        body = None if told is None else json.dumps(told).encode()
        asked = Request(f"{self.url}/control/{name}", body, {"Content-Type": "application/json"}, method=method)
        with urlopen(asked, timeout=10) as response:
            response.read()

    def calls(self) -> list[dict[str, Any]]:
        """Every call that arrived, as its newest line in the log says."""
        text = self._calls.read_text() if self._calls.exists() else ""
        lines = text[: text.rfind("\n") + 1].splitlines()  # the last one may be half written
        return list({call["n"]: call for call in map(json.loads, lines)}.values())

    def counts(self) -> Counter[str]:
        """How often each prompt arrived, by `digest`."""
        return Counter(call["prompt"] for call in self.calls())


def digest(request: Mapping[str, Any]) -> str:
    """Names a request's prompt in the log; only for one without documents, which go to the model as its messages are."""
    return prompt_digest({"messages": request["messages"]})
