"""Requests as users send them: JSON, distinct prompts, nothing of the fleet's code."""

from __future__ import annotations

from typing import Any


def question(tenant: str, request_id: str, text: str | None = None, **fields: Any) -> dict[str, Any]:
    """A small question. Without a `text` of its own nobody else asks it; it is not cached unless `fields` say so."""
    said = text or f"Which colour has the parcel {tenant} {request_id}?"
    request = {"request_id": request_id, "tenant": tenant, "feature": "parcels", "messages": [{"role": "user", "content": said}]}
    return request | {"cache": {"mode": "off"}} | fields


def questions(tenant: str, number: int, prefix: str = "q") -> list[dict[str, Any]]:
    return [question(tenant, f"{prefix}-{n:03}") for n in range(number)]
