"""`Alert`: something a person should look at, on `llm.alerts`."""

from __future__ import annotations

from typing import Any, Literal

from schemas.types import Event, SchemaVersion, Time

AlertKind = Literal["feature_cost_spike", "user_outlier", "budget_share", "unconfirmed_spend", "price_unknown", "quality_drop"]


class Alert(Event):
    schema_version: SchemaVersion = 1
    alert_id: str
    kind: AlertKind
    scope: dict[str, str]
    at: Time
    message: str
    evidence: dict[str, Any]
