"""`scrimp watch`: a live table of the responses as they come, until Ctrl-C. Not on a terminal: one line a response."""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated

import typer


def watch(
    rows: Annotated[int, typer.Option(help="How many of the latest responses to show.", min=1)] = 20,
) -> None:
    """Show the responses as they come, with what each cost and saved, until Ctrl-C. Tenants' own response topics are watched as well.

    Example: scrimp watch --rows 40
    """
    try:
        asyncio.run(_watch(rows))
    except KeyboardInterrupt:
        return


async def _watch(rows: int) -> None:
    from pydantic import ValidationError
    from rich.console import Console

    from schemas import Response
    from workers import policy, topics
    from workers.cli.show import Seen, display
    from workers.runtime.client import Client
    from workers.runtime.provision import wanted
    from workers.settings import load

    settings = load()
    rules = policy.load(settings.policy_file)
    names = [name for name, topic in wanted(settings.kafka, rules).items() if topic is topics.RESPONSES]
    async with Client(settings.kafka) as client:
        since = await client.ends(*names)
        for missing in sorted(set(names) - {topic for topic, _ in since}):
            print(f"scrimp: the topic {missing} does not exist: start `scrimp up`, or run `scrimp topics apply`", file=sys.stderr)
            raise typer.Exit(1)
        with display(Console(), rows=rows) as show:
            async for batch in client.follow(since):
                for record in batch:
                    try:
                        show(Seen(Response.model_validate_json(record.value or b"")))
                    except ValidationError:
                        print(f"not a response: {record.topic}, partition {record.partition}, offset {record.offset}", file=sys.stderr)
