"""`CostRecord`: the book entry of one request, on `llm.costs`. A later `revision` replaces an earlier one."""

from __future__ import annotations

from typing import Literal

from schemas.response import ZERO, Saved, Usage
from schemas.types import Event, Lane, Purpose, SchemaVersion, Source, Status, Tier, Time, Usd

AttemptState = Literal["reserved", "settled", "unconfirmed", "abandoned"]
"""reserved: under way · settled: its cost is known · unconfirmed: cut off, booked at its worst case · abandoned: never sent, free."""


class AttemptRecord(Event):
    """One HTTP call to a provider. `cost_usd` is exact (up to 10 decimals); the record's own is rounded once, from the sum."""

    n: int
    model: str
    provider: str
    state: AttemptState
    usage: Usage = Usage()
    cost_usd: Usd = ZERO
    outcome: str | None = None


class CostRecord(Event):
    schema_version: SchemaVersion = 1
    request_id: str
    tenant: str
    feature: str
    user: str | None
    experiment: str | None
    purpose: Purpose
    revision: int
    lane: Lane
    status: Status
    tier: Tier | None
    model: str | None
    provider: str | None
    source: Source | None
    usage: Usage
    cost_usd: Usd
    unconfirmed_usd: Usd
    baseline_usd: Usd
    saved_usd: Saved
    price_unknown: bool
    estimated: bool
    price_map: str
    occurred_at: Time
    trace_id: str
    attempts: tuple[AttemptRecord, ...]
