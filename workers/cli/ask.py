"""`scrimp ask`: publish one request, wait for its answer on the responses topic, print it."""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
from datetime import timedelta
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console

from schemas import Message, Request, Response
from schemas.types import usd, utc_now
from workers.settings import Settings, load

LONGEST_S = 86_400
"""A day: an answer that is worth waiting longer for is a matter for `submit`."""


def ask(
    text: Annotated[str, typer.Argument(help="The question.")],
    tenant: Annotated[str, typer.Option(help="On whose account.")] = "local",
    feature: Annotated[str, typer.Option(help="Which feature's rules and budgets apply.")] = "ask",
    user: Annotated[str | None, typer.Option(help="Who asks; some answers are cached for one user only.")] = None,
    tier: Annotated[str, typer.Option(help="auto, light, standard or heavy.")] = "auto",
    timeout: Annotated[float, typer.Option(help="Seconds to wait; also the request's deadline.")] = 120,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole Response.")] = False,
) -> None:
    """Ask one question and print the answer; what it cost goes to standard error.

    Example: scrimp ask "What is a message broker?" --tenant acme
    """
    if tier not in ("auto", "light", "standard", "heavy"):
        raise typer.BadParameter("must be auto, light, standard or heavy", param_hint="--tier")
    # Not typer's min and max: they let "nan" pass.
    if not 0 < timeout <= LONGEST_S:
        raise typer.BadParameter(f"must be above 0 and at most {LONGEST_S} seconds", param_hint="--timeout")
    try:
        request = Request(
            request_id=f"ask-{secrets.token_hex(8)}",
            tenant=tenant,
            feature=feature,
            user=user,
            tier=tier,  # type: ignore[arg-type]
            messages=(Message(role="user", content=text),),
            deadline_at=utc_now() + timedelta(seconds=timeout),
        )
    except ValidationError as e:
        fault = e.errors(include_url=False, include_input=False)[0]
        hint = f"--{fault['loc'][0]}" if fault["loc"][0] in ("tenant", "feature", "user") else "TEXT"
        raise typer.BadParameter(fault["msg"].removeprefix("Value error, "), param_hint=hint) from e
    response = asyncio.run(_answer(load(), request, timeout))
    if as_json:
        print(response.model_dump_json())
    elif response.content is not None:
        print(response.content)
    elif response.tool_calls is not None:
        print(json.dumps(response.tool_calls))
    Console(stderr=True).print(verdict(response), style="dim", markup=False, highlight=False)
    if response.status != "answered":
        raise typer.Exit(1)


def verdict(response: Response) -> str:
    """One line: how the request ended, and what it cost."""
    if response.reason is not None:
        return f"{response.status}: {response.reason.code}: {response.reason.message}"
    saved = usd(response.saved_usd.total)
    return f"{response.tier} · {response.model} · {response.source} · ${usd(response.cost_usd)}, ${saved} saved"


async def _answer(settings: Settings, request: Request, timeout: float) -> Response:
    from workers import policy, topics
    from workers.cli.sign import signed
    from workers.runtime.client import Client
    from workers.runtime.producer import Outgoing

    rules = policy.load(settings.policy_file)
    entry = rules.tenant(request.tenant)
    answers = entry.responses_topic if entry is not None and entry.responses_topic else settings.kafka.topic_prefix + topics.RESPONSES.name
    key, value = f"{request.tenant}/{request.request_id}", request.model_dump_json(exclude_none=True).encode()
    headers = signed(rules, request.tenant, value)
    async with Client(settings.kafka) as client:
        asked = client.name(topics.REQUESTS)
        since = await client.ends(answers)
        if not since or asked not in await client.topics():
            where = settings.kafka.bootstrap_servers
            _give_up(f"{asked} or {answers} does not exist at {where}: start `scrimp up`, or run `scrimp topics apply`")
        await client.publish([Outgoing(asked, key.encode(), value, headers)])
        try:
            # The fleet itself answers when the deadline passes; a little later means that nobody is there.
            async with asyncio.timeout(timeout + 5):
                async for batch in client.follow(since):
                    for record in batch:
                        if record.key == key and record.value is not None:
                            return Response.model_validate_json(record.value)
        except TimeoutError:
            _give_up(f"no answer within {timeout:g} s: is the fleet running? (`scrimp doctor`)")
    raise AssertionError("following a topic never ends")


def _give_up(why: str) -> None:
    print(f"scrimp: {why}", file=sys.stderr)
    raise typer.Exit(1)
