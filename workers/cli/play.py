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
from dataclasses import dataclass, field
from datetime import timedelta
from importlib import resources

import typer
from rich.console import Console

from schemas import UNCLAIMED, Compressed, CostRecord, Response, TokensAround
from schemas.types import utc_now
from workers import topics
from workers.cli.laptop import Running, first, laptop, scratch
from workers.cli.run import stop_on_signals
from workers.cli.show import Seen, display
from workers.cli.summary import Run
from workers.laptop.model import TITLE
from workers.laptop.policy import LIST_PRICES
from workers.pipeline import STAGES
from workers.runtime.client import Client, Record
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
        raise typer.Exit(130)

    stop = asyncio.Event()
    stop_on_signals(stop)
    return await first(play(), stopped())  # type: ignore[no-any-return]


async def _play(running: Running, console: Console) -> Run:
    """Publish the waves, read everything back, and ask the model server how often it was called."""
    kafka = running.settings.kafka
    script = list(_script())
    inbox = Inbox({row.key: row.about for row in script})
    begin = time.monotonic()
    async with Client(kafka) as client:
        requests, finished = client.name(topics.REQUESTS), client.name(topics.FINISHED)
        answers = client.follow(await client.ends(*(client.name(t) for t in inbox.takes)))
        with display(console, total=len(script)) as show:
            for wave in sorted({row.wave for row in script}):
                rows = [row for row in script if row.wave == wave]
                await client.publish(requests, [(row.key, row.value) for row in rows])
                await _collect(answers, inbox, {row.key for row in rows}, kafka.topic_prefix, show)
                # An answer is out before the cache has stored it.
                await _caught_up(client, STAGES["remember"].group(kafka.group_prefix, "interactive"), finished)
    seconds = time.monotonic() - begin
    models = ", ".join(sorted({model.litellm for model in running.policy().models.values()}))
    return Run(
        asked=len(script),
        endings=inbox.endings(),
        records=list(inbox.records.values()),
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


@dataclass
class Inbox:
    """What came back for the requests of this run."""

    about: dict[str, str]
    responses: dict[str, Response] = field(default_factory=dict)
    records: dict[str, CostRecord] = field(default_factory=dict)
    tokens: dict[str, TokensAround] = field(default_factory=dict)

    takes = (topics.COMPRESSED, topics.RESPONSES, topics.COSTS)

    def take(self, topic: str, value: bytes) -> Response | None:
        """Note one record; returns the response that is new, if it is one."""
        if topic == topics.COMPRESSED.name:
            event = Compressed.model_validate_json(value)
            if event.facts.key in self.about:
                self.tokens[event.facts.key] = event.tokens
        elif topic == topics.COSTS.name:
            record = CostRecord.model_validate_json(value)
            if (key := f"{record.tenant}/{record.request_id}") in self.about:
                self.records[key] = record
        else:
            response = Response.model_validate_json(value)
            if (key := f"{response.tenant}/{response.request_id}") in self.about and key not in self.responses:
                self.responses[key] = response
                return response
        return None

    def complete(self, keys: set[str]) -> bool:
        """Whether each of them has its response and, where it should be in the books, its cost record."""
        return all(
            (r := self.responses.get(key)) is not None and (key in self.records or (r.reason is not None and r.reason.code in UNCLAIMED))
            for key in keys
        )

    def seen(self, response: Response) -> Seen:
        key = f"{response.tenant}/{response.request_id}"
        return Seen(response, self.about[key], self.tokens.get(key))

    def endings(self) -> list[Seen]:
        return [self.seen(self.responses[key]) for key in self.about if key in self.responses]


async def _collect(
    answers: AsyncIterator[Sequence[Record]], inbox: Inbox, keys: set[str], prefix: str, show: Callable[[Seen], None]
) -> None:
    """Read until every request of the wave is complete, or nothing has come for too long."""
    last = time.monotonic()
    while not inbox.complete(keys) and time.monotonic() - last < SILENCE_S:
        batch = [(r.topic.removeprefix(prefix), r.value) for r in await anext(answers) if r.value is not None]
        for topic, value in sorted(batch, key=lambda r: r[0] != topics.COMPRESSED.name):
            last = time.monotonic()
            if (response := inbox.take(topic, value)) is not None:
                show(inbox.seen(response))


async def _caught_up(client: Client, group: str, topic: str) -> None:
    for _ in range(SILENCE_S * 10):
        if not await client.behind(group, topic):
            return
        await asyncio.sleep(0.1)
