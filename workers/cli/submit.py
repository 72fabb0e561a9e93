"""`scrimp submit`: publish a file of requests. Every line is checked first; one bad line, and nothing is published."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, get_args

import typer
from pydantic import ValidationError

from schemas import MAX_REQUEST_BYTES, Params, Request
from schemas.types import Lane
from workers.settings import load


class BadLine(ValueError):
    """A line that is no request. The text says which line and why."""


def submit(
    file: Annotated[Path, typer.Argument(help="JSON lines: requests, or an OpenAI batch file.", exists=True, dir_okay=False)],
    tenant: Annotated[str | None, typer.Option(help="On whose account; needed for the lines of an OpenAI batch file.")] = None,
    feature: Annotated[
        str | None, typer.Option(help="Whose rules and budgets apply; needed for the lines of an OpenAI batch file.")
    ] = None,
    lane: Annotated[
        str, typer.Option(help="bulk, or interactive: before everything in bulk, and with a deadline of two minutes.")
    ] = "bulk",
) -> None:
    """Publish every line of a file as a request. Answers come on the responses topic: see `scrimp watch`.

    A line is a Request, or an OpenAI batch line with custom_id and body; of the latter the model's name is left to the policy.

    Example: scrimp submit questions.jsonl --tenant acme --feature digest
    """
    if lane not in get_args(Lane):
        raise typer.BadParameter("must be bulk or interactive", param_hint="--lane")
    try:
        with file.open("rb") as lines:
            requests = list(read(lines, tenant, feature))
    except BadLine as e:
        print(f"scrimp: {file}: {e}; nothing was published", file=sys.stderr)
        raise typer.Exit(1) from e
    if not requests:
        print(f"scrimp: {file} holds no request", file=sys.stderr)
        raise typer.Exit(1)
    topic = asyncio.run(_publish(requests, lane))
    print(f"{len(requests)} requests published to {topic}")


def read(lines: Iterable[bytes], tenant: str | None, feature: str | None) -> Iterable[tuple[str, bytes]]:
    """Key and value of each line's record; empty lines are skipped.

    Raises:
        BadLine: a line is no request, too large, or repeats an id.
    """
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            text = line.decode()
        except UnicodeDecodeError as e:
            raise BadLine(f"line {number}: not UTF-8 at byte {e.start}") from e
        try:
            content = json.loads(text)
            value = line.strip()
            if isinstance(content, dict) and "custom_id" in content and "body" in content:
                value = json.dumps(from_openai(content, tenant, feature), ensure_ascii=False).encode()
            request = Request.model_validate_json(value)
        except ValidationError as e:
            first = e.errors()[0]
            raise BadLine(f"line {number}: {'.'.join(map(str, first['loc'])) or 'the line'}: {first['msg']}") from e
        except ValueError as e:
            raise BadLine(f"line {number}: {e}") from e
        except RecursionError as e:
            raise BadLine(f"line {number}: nested too deep") from e
        if len(value) > MAX_REQUEST_BYTES:
            raise BadLine(f"line {number}: {len(value):,} bytes, at most {MAX_REQUEST_BYTES:,} are allowed")
        key = f"{request.tenant}/{request.request_id}"
        if key in seen:
            raise BadLine(f"line {number}: the id {request.request_id} stands in line {seen[key]}, too")
        seen[key] = number
        yield key, value


def from_openai(line: dict[str, Any], tenant: str | None, feature: str | None) -> dict[str, Any]:
    """The Request of one line of an OpenAI batch file. A parameter that a Request cannot carry raises ValueError."""
    if tenant is None or feature is None:
        raise ValueError("an OpenAI batch line needs --tenant and --feature")
    if line.get("url", "/v1/chat/completions") != "/v1/chat/completions":
        raise ValueError(f"url: {line['url']} is not /v1/chat/completions")
    if not isinstance(body := line["body"], dict):
        raise ValueError("body: must be an object")
    params = {k: v for k, v in body.items() if k not in ("model", "messages", "user", "metadata")}
    if unknown := [k for k in params if k not in Params.model_fields]:
        raise ValueError(f"body.{unknown[0]}: not supported; known: {', '.join(Params.model_fields)}")
    request = {"request_id": line["custom_id"], "tenant": tenant, "feature": feature, "messages": body.get("messages"), "params": params}
    return request | {k: body[k] for k in ("user", "metadata") if k in body}


async def _publish(requests: list[tuple[str, bytes]], lane: str) -> str:
    from workers import policy, topics
    from workers.cli.sign import signed
    from workers.runtime.client import Client
    from workers.runtime.producer import Outgoing

    settings = load()
    rules = policy.load(settings.policy_file)
    async with Client(settings.kafka) as client:
        topic = client.name(topics.REQUESTS, lane)  # type: ignore[arg-type]
        records = [Outgoing(topic, key.encode(), value, signed(rules, key.partition("/")[0], value)) for key, value in requests]
        if topic not in await client.topics():
            print(f"scrimp: the topic {topic} does not exist: start `scrimp up`, or run `scrimp topics apply`", file=sys.stderr)
            raise typer.Exit(1)
        await client.publish(records)
    return topic
