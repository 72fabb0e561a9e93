"""The provider's own books: every call it saw, which the fleet's attempts must equal.

Times are `time.monotonic()`, one clock for all processes of a machine. A file gets a line for each event at once, so that the books
survive a kill.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO


@dataclass(slots=True)
class Call:
    n: int
    model: str
    max_tokens: int | None
    prompt: str
    """Digest of the messages."""
    request_id: str | None
    connection: int
    """The client's port: equal numbers are one reused connection."""
    arrived: float
    fault: str | None = None
    ended: float | None = None
    aborted: bool = False
    """The client was gone before the answer."""
    status: int | None = None
    usage: dict[str, Any] | None = None
    messages: list[dict[str, Any]] | None = None
    """Word for word; only where the log is to be whole."""


class Calls:
    def __init__(self, log: Path | None, whole: bool = False) -> None:
        """Without `whole` no prompt stands in the log."""
        self._whole = whole
        self._calls: list[Call] = []
        self._log: TextIO | None = log.open("a") if log else None

    def __len__(self) -> int:
        return len(self._calls)

    def __getitem__(self, i: int) -> Call:
        return self._calls[i]

    def dump(self) -> list[dict[str, Any]]:
        return [asdict(call) for call in self._calls]

    def arrived(self, **facts: Any) -> Call:
        call = Call(n=len(self._calls) + 1, arrived=time.monotonic(), **facts)
        self._calls.append(call)
        self._write("arrived", call)
        return call

    def answered(self, call: Call, status: int, usage: dict[str, Any] | None) -> None:
        call.ended, call.status, call.usage = time.monotonic(), status, usage
        self._write("answered", call)

    def aborted(self, call: Call) -> None:
        call.ended, call.aborted = time.monotonic(), True
        self._write("aborted", call)

    def clear(self) -> None:
        self._calls.clear()

    def close(self) -> None:
        if self._log:
            self._log.close()

    def _write(self, event: str, call: Call) -> None:
        if self._log:
            facts = asdict(call)
            if not self._whole:
                del facts["messages"]
            self._log.write(json.dumps({"event": event, "at": time.monotonic(), **facts}) + "\n")
            self._log.flush()
