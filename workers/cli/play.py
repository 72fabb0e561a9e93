"""The demo itself: publish the waves, read every ending back through Kafka, ask the model server for its count.

A request that never ends is missing from the result, whose checks say so; what breaks underneath raises.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from importlib import resources

import typer
from rich.console import Console

from schemas.types import utc_now
from workers import topics
from workers.cli.inbox import TAKES, Inbox
from workers.cli.laptop import Running, laptop, scratch
from workers.cli.run import stop_on_signals
from workers.cli.show import Seen, display
from workers.cli.summary import Run
from workers.laptop.model import TITLE
from workers.laptop.policy import LIST_PRICES
from workers.laptop.process import first
from workers.pipeline import STAGES
from workers.runtime.client import Client, Offsets, Record
from workers.runtime.producer import Outgoing
from workers.settings import Settings

DEADLINE_S = 600
"""Of every request: the whole demo takes one to three minutes, on a busy machine more."""
SILENCE_S = 180
"""Seconds without any ending after which the demo gives up."""
LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


async def demo(settings: Settings, provider: str | None, console: Console) -> Run:
    """Start the fleet, play the demo, stop the fleet. Progress goes to `console`."""

    def say(line: str) -> None:
        console.print(line, style="dim", markup=False, highlight=False, soft_wrap=True)

    async def play() -> Run:
        async with scratch(say) as folder:
            logging.basicConfig(level=settings.log_level, filename=folder / "scrimp.log", format=LOG_FORMAT)
            ours = settings
            if "url" not in settings.ledger.model_fields_set:
                ledger = settings.ledger.model_copy(update={"url": f"sqlite+aiosqlite:///{folder}/scrimp.db"})
                ours = settings.model_copy(update={"ledger": ledger})
            async with laptop(ours, folder, say, provider=provider, demo=True) as running:
                return await first(_play(running, console), running.watch())  # type: ignore[no-any-return]

    async def stopped() -> Run:
        await stop.wait()
        say("stopped before every request had ended")
        raise typer.Exit(130)

    stop = asyncio.Event()
    stop_on_signals(stop)
    return await first(play(), stopped())  # type: ignore[no-any-return]


async def _play(running: Running, console: Console) -> Run:
    """Publish the waves, read everything back, and ask the model server how often it was called."""
    kafka = running.settings.kafka
    script = list(_script())
    inbox = Inbox({row.key: row.about for row in script}, kafka.topic_prefix)
    begin = time.monotonic()
    async with Client(kafka) as client:
        requests = client.name(topics.REQUESTS)
        answers = client.follow(await client.ends(*(client.name(t) for t in TAKES)))
        with display(console, total=len(script)) as show:
            for wave in sorted({row.wave for row in script}):
                rows = [row for row in script if row.wave == wave]
                await client.publish([Outgoing(requests, row.key.encode(), row.value) for row in rows])
                await _collect(answers, inbox, {row.key for row in rows}, show)
                await _remembered(client, STAGES["remember"].group(kafka.group_prefix, "interactive"), inbox.past_finished())
    seconds = time.monotonic() - begin
    models = ", ".join(sorted({model.litellm for model in running.policy().models.values()}))
    return Run(
        asked=len(script),
        endings=inbox.endings(),
        records=inbox.booked(),
        calls=await running.model.calls() if running.model else None,
        seconds=seconds,
        served_by=TITLE if running.model else models,
        priced_by=LIST_PRICES if running.model else "LiteLLM's price map",
    )


@dataclass(frozen=True, slots=True)
class Row:
    wave: int
    about: str
    key: str
    value: bytes


def _script() -> Iterator[Row]:
    """The demo's requests, with ids and a deadline of this run: a broker or a ledger of the user's own may know the last run's."""
    run = secrets.token_hex(2)
    deadline = (utc_now() + timedelta(seconds=DEADLINE_S)).isoformat()
    for line in resources.files("workers").joinpath("laptop/requests.jsonl").read_text().splitlines():
        row = json.loads(line)
        request = row["request"] | {"request_id": f"{row['request']['request_id']}-{run}", "deadline_at": deadline}
        yield Row(
            row["wave"], row["about"], f"{request['tenant']}/{request['request_id']}", json.dumps(request, ensure_ascii=False).encode()
        )


async def _collect(answers: AsyncIterator[Sequence[Record]], inbox: Inbox, keys: set[str], show: Callable[[Seen], None]) -> None:
    """Read until every request of the wave is complete, or nothing has come for too long."""
    last = time.monotonic()
    while not inbox.complete(keys) and time.monotonic() - last < SILENCE_S:
        if batch := await anext(answers):
            last = time.monotonic()
            for seen in inbox.take(batch):
                show(seen)


async def _remembered(client: Client, group: str, finished: Offsets) -> None:
    """Wait until the cache has stored the wave's answers, which go out before that."""
    for _ in range(SILENCE_S * 10):
        committed = await client.committed(group, finished)
        if all(committed[partition] >= offset for partition, offset in finished.items()):
            return
        await asyncio.sleep(0.1)
