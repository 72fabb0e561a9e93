"""What happens to the fleet in one run, and when: a pure function of the seed. The harness (`run.py`) carries it out."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

STAGES = ("classify", "cache", "remember", "compress", "call-1", "call-2", "attribute")

KINDS: Final = {
    # kind: (weight, shortest and longest seconds that it lasts)
    "kill": (8, 0, 0),
    "term": (4, 0, 0),
    "freeze": (4, 1, 4),
    "coma": (2, 8, 9),
    "broker_crash": (1, 1, 3),
    "broker_freeze": (1, 1, 5),
    "database_crash": (2, 0, 3),
    "qdrant_freeze": (2, 2, 5),
    "qdrant_crash": (1, 1, 4),
    "rate_limit": (2, 2, 5),
    "unavailable": (1, 2, 4),
    "hang": (2, 1, 2),
    "truncated": (2, 0, 1),
    "reset": (1, 0, 1),
    "drip": (1, 0, 1),
}
"""kill: SIGKILL, started again. term: SIGTERM, started again. freeze: SIGSTOP, SIGCONT. coma: the same, for longer than a session and a
stale worker. The others hit a server, the last six the provider: every call that begins meanwhile."""
OF_A_STAGE = ("kill", "term", "freeze", "coma")


@dataclass(frozen=True)
class Blow:
    at_s: float
    kind: str
    lasts_s: float
    target: str | None
    """A process of the fleet."""


OF_A_SERVER = tuple(kind for kind in KINDS if kind not in OF_A_STAGE)
IN_A_ROW = 3
"""Storms among which the blows to servers are dealt out."""


def make(seed: int, seconds: float, gap_s: float) -> list[Blow]:
    """Blows that begin within so many seconds, one in `gap_s` on average; some overlap.

    Every storm has a kill of `call`, and three storms in a row have every blow to a server, from the short form on.
    """
    draw = random.Random(f"schedule {seed}")
    blows = [Blow(seconds * 0.35, "kill", 0, draw.choice(("call-1", "call-2")))]
    times, at = [], gap_s
    while at < seconds:
        times.append(at)
        at += draw.uniform(0.2, 1.8) * gap_s
    dealt = OF_A_SERVER[seed % IN_A_ROW :: IN_A_ROW]
    weights = [weight for weight, _, _ in KINDS.values()]
    kinds = [*dealt, *draw.choices(list(KINDS), weights, k=max(0, len(times) - len(dealt)))]
    draw.shuffle(kinds)
    for at, kind in zip(times, kinds, strict=False):
        _, shortest, longest = KINDS[kind]
        # The money is in `call` and `attribute`: half of the blows are theirs.
        target = draw.choice((*STAGES, "call-1", "call-2", "attribute", "call-1", "call-2")) if kind in OF_A_STAGE else None
        blows.append(Blow(at, kind, draw.uniform(shortest, longest), target))
    return sorted(blows, key=lambda blow: blow.at_s)
