"""THE map of the fleet: which stage reads what, and what it may write. Read this first.

    llm.requests ─classify─▶ llm.classified ─cache─▶ llm.missed ─compress─▶ llm.compressed ─call─▶ llm.finished ─attribute─▶ llm.responses
                     │ rejected          │ hit                                                        ▲   │               ├─▶ llm.costs
                     └───────────────────┴──────────────── every ending ──────────────────────────────┘   │               └─▶ llm.alerts
                                                                                                          └─remember─▶ Qdrant

The names are used everywhere: consumer group, command line, metric label, settings. Wiring (clients, settings) is in `cli/wiring.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from schemas.types import Lane
from workers import topics as t
from workers.topics import Topic

StageName = Literal["classify", "cache", "remember", "compress", "call", "attribute", "redeliver"]


@dataclass(frozen=True, slots=True)
class Stage:
    name: StageName
    reads: tuple[Topic, ...]
    writes: tuple[Topic, ...]
    form: Literal["batch", "window"]
    """batch: light, a list of events at a time. window: slow, one event at a time, many at once."""
    expires: bool
    """The runtime ends a request whose deadline has passed before the stage sees it. `call` asks the ledger first, and what
    stands after it never expires anything."""
    ends_requests: bool = True
    """A dead letter of this stage also ends the request, where its id can be read."""
    apart: bool = False
    """A consumer for each topic it reads, in a group of its own: the topics have a pace of their own, and one must not wait for another."""

    gathers_ms: int = 0
    """Records may wait so long for company, since nobody waits for what the stage does with them."""

    @property
    def lanes(self) -> bool:
        """Runs once a lane. `redeliver` does not: the delay topics belong to both."""
        return any(topic.lanes for topic in self.reads)

    @property
    def consumers(self) -> dict[str, tuple[Topic, ...]]:
        """The topics of each consumer, by its name: the stage's own, unless they are read apart."""
        return {f"{self.name}.{topic.name}": (topic,) for topic in self.reads} if self.apart else {self.name: self.reads}

    def group(self, prefix: str, lane: Lane, consumer: str | None = None) -> str:
        return f"{prefix}{consumer or self.name}{'.bulk' if self.lanes and lane == 'bulk' else ''}"


STAGES: dict[StageName, Stage] = {
    s.name: s
    for s in (
        Stage("classify", (t.REQUESTS,), (t.CLASSIFIED,), "batch", expires=True),
        Stage("cache", (t.CLASSIFIED,), (t.MISSED,), "batch", expires=True),
        Stage("remember", (t.FINISHED,), (), "batch", expires=False, ends_requests=False, gathers_ms=200),
        Stage("compress", (t.MISSED,), (t.COMPRESSED,), "batch", expires=True),
        Stage("call", (t.COMPRESSED,), (), "window", expires=False),
        Stage("attribute", (t.FINISHED,), (t.RESPONSES, t.COSTS, t.ALERTS), "batch", expires=False),
        Stage("redeliver", (t.RETRY_10S, t.RETRY_300S), (), "window", expires=False, ends_requests=False, apart=True),
    )
}
"""Beside its `writes`, every stage may write `llm.finished` (an ending) and `llm.dead`; in the bulk lane also the delay topics."""
