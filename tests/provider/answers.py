"""What the model would say: a pure function of the request body, so that every test knows the answer before it asks.

The text repeats the last user message; JSON and tool arguments are the smallest values that fit their schema.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from tests.provider import tokens

ECHO_WORDS = 60


def prompt_digest(body: Mapping[str, Any]) -> str:
    """SHA-256, hex, of the messages: names a prompt in the log without holding it."""
    return hashlib.sha256(json.dumps(body["messages"], sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def last_user_text(body: Mapping[str, Any]) -> str:
    return next((tokens.text_of(m) for m in reversed(body["messages"]) if m.get("role") == "user"), "")


def text(body: Mapping[str, Any]) -> str:
    asked = last_user_text(body)
    mark = hashlib.sha256(asked.encode()).hexdigest()[:8]
    return f"Answer {mark}: {' '.join(asked.split()[:ECHO_WORDS])}"


def fitting(schema: Mapping[str, Any], word: str) -> Any:
    """The smallest value that `schema` (the common subset of JSON Schema) accepts; strings are `word`."""
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    for union in ("anyOf", "oneOf"):
        if schema.get(union):
            return fitting(schema[union][0], word)
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if isinstance(kind, list):
        kind = kind[0]
    if kind == "object":
        properties = schema.get("properties", {})
        return {name: fitting(properties.get(name, {}), word) for name in schema.get("required", properties)}
    if kind == "array":
        return [fitting(schema.get("items", {}), word) for _ in range(schema.get("minItems", 1))]
    if kind in ("integer", "number"):
        return schema.get("minimum", 1)
    return {"boolean": True, "null": None}.get(kind, word)


def tool_calls(body: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """The calls of an answer whose `tool_choice` demands one; None when it does not."""
    choice, tools = body.get("tool_choice"), body.get("tools") or []
    if not tools or not (choice == "required" or isinstance(choice, Mapping)):
        return None
    wanted = choice["function"]["name"] if isinstance(choice, Mapping) else tools[0]["function"]["name"]
    function = next(t["function"] for t in tools if t["function"]["name"] == wanted)
    arguments = fitting(function.get("parameters", {"type": "object"}), "value")
    return [
        {"id": f"call_{prompt_digest(body)[:12]}", "type": "function", "function": {"name": wanted, "arguments": json.dumps(arguments)}}
    ]


def content(body: Mapping[str, Any]) -> str:
    """The whole answer, before stop sequences and `max_tokens` cut it."""
    wanted = body.get("response_format") or {}
    if wanted.get("type") == "json_object":
        return json.dumps({"answer": text(body)})
    if wanted.get("type") == "json_schema":
        return json.dumps(fitting(wanted["json_schema"].get("schema", {}), "value"))
    return text(body)


def cut(said: str, body: Mapping[str, Any]) -> tuple[str, str]:
    """What is left of an answer, and its finish_reason: `stop`, or `length` when `max_tokens` cut it."""
    stops = body.get("stop") or []
    for stop in [stops] if isinstance(stops, str) else stops:
        said = said.partition(stop)[0]
    limit = body.get("max_tokens") or body.get("max_completion_tokens")
    if limit is not None and tokens.count(said) > limit:
        return tokens.first(said, limit), "length"
    return said, "stop"
