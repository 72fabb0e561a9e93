"""What the short storms do to the servers. They have few blows, so they are dealt out, not drawn."""

from __future__ import annotations

import pytest

from tests.chaos import schedule
from tests.chaos.run import SEEDS, SHORT


def test_the_short_storms_together_hit_every_server_in_every_way() -> None:
    kinds = {blow.kind for seed in SEEDS for blow in schedule.make(seed, SHORT.seconds, SHORT.gap_s)}
    assert kinds >= {"broker_crash", "broker_freeze", "database_crash", "qdrant_crash", "qdrant_freeze"}
    assert kinds >= {"hang", "truncated", "drip", "reset", "rate_limit", "unavailable"}


@pytest.mark.parametrize("seed", range(50))
def test_every_storm_kills_a_call_and_replays(seed: int) -> None:
    blows = schedule.make(seed, SHORT.seconds, SHORT.gap_s)
    assert any(blow.kind == "kill" and blow.target in ("call-1", "call-2") for blow in blows)
    assert {blow.kind for blow in blows} >= set(schedule.OF_A_SERVER[seed % 3 :: 3])
    assert all(0 < blow.at_s < SHORT.seconds for blow in blows)
    assert blows == schedule.make(seed, SHORT.seconds, SHORT.gap_s)
