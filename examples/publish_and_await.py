"""Publish questions to the fleet and await the answers, with aiokafka and the `schemas` package alone.

Usage: python examples/publish_and_await.py "What is a message broker?" ["another question" ...]

One reader serves any number of waiting callers: each waits on a future under its response's key, `tenant/request_id`. An answer that does
not come in time is a TimeoutError; that the request was refused, expired or failed is no error but a status of its response.
"""

from __future__ import annotations

import asyncio
import os
import sys
import uuid
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Self

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from schemas import Message, Request, Response

BOOTSTRAP = os.environ.get("BOOTSTRAP", "localhost:9092")
TENANT = "acme"
PATIENCE_S = 60


class Answers:
    """Use as `async with Answers() as answers: await answers.ask(...)`; any number of calls at once."""

    async def __aenter__(self) -> Self:
        self._waiting: dict[bytes, asyncio.Future[Response]] = {}
        self._producer = AIOKafkaProducer(bootstrap_servers=BOOTSTRAP, acks="all")
        # No group: every instance of a service reads all responses and picks its own.
        self._consumer = AIOKafkaConsumer("llm.responses", bootstrap_servers=BOOTSTRAP, auto_offset_reset="latest")
        await self._producer.start()
        await self._consumer.start()
        # Where reading begins must be known before anything is asked, or a quick answer is missed.
        await self._consumer.seek_to_end()
        for partition in self._consumer.assignment():
            await self._consumer.position(partition)
        self._reader = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._reader.cancel()
        await self._consumer.stop()
        await self._producer.stop()

    async def ask(self, question: str, feature: str = "support-bot") -> Response:
        request = Request(
            request_id=str(uuid.uuid4()),
            tenant=TENANT,
            feature=feature,
            messages=(Message(role="user", content=question),),
            deadline_at=datetime.now(UTC) + timedelta(seconds=PATIENCE_S),
        )
        key = f"{request.tenant}/{request.request_id}".encode()
        self._waiting[key] = asyncio.get_running_loop().create_future()
        try:
            await self._producer.send_and_wait("llm.requests", request.model_dump_json(exclude_none=True).encode(), key=key)
            return await asyncio.wait_for(self._waiting[key], PATIENCE_S + 5)
        finally:
            del self._waiting[key]

    async def _read(self) -> None:
        async for record in self._consumer:
            waiting = self._waiting.get(record.key)
            # After a crash of a worker a second, equal copy of a response may come.
            if waiting is not None and not waiting.done():
                waiting.set_result(Response.model_validate_json(record.value))


async def main(questions: list[str]) -> None:
    async with Answers() as answers:
        for question, response in zip(questions, await asyncio.gather(*map(answers.ask, questions)), strict=True):
            print(f"> {question}")
            print(response.content if response.status == "answered" else response.reason)
            print(f"  {response.source}, {response.model}, ${response.cost_usd} instead of ${response.baseline_usd}")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:] or ["What is a message broker?"]))
