"""Does a Kafka broker answer? Asked from outside, with the client that the fleet uses; any answer but a good one is "not yet"."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from tests.servers.process import listens

Question = Callable[[AIOKafkaAdminClient], Awaitable[object]]


def serves(address: str) -> bool:
    """A metadata request is answered at `host:port[,host:port]`."""
    # Looked at first, since the client writes an error to the log for every address that nobody listens on.
    return any(map(listens, address.split(","))) and _answers(address, lambda admin: admin.describe_cluster())


def coordinates(address: str) -> bool:
    """It serves, and consumer groups work. The first question makes a new broker create their topic; clients that ask before it is there
    get an error."""
    return serves(address) and _answers(address, lambda admin: admin.list_consumer_group_offsets("are-there-groups"))


def _answers(address: str, question: Question) -> bool:
    async def ask() -> bool:
        admin = AIOKafkaAdminClient(bootstrap_servers=address, request_timeout_ms=3_000)
        try:
            await admin.start()
            await question(admin)
        except (KafkaError, OSError, TimeoutError):
            return False
        finally:
            await admin.close()
        return True

    # A thread of its own: a test may restart the broker from inside an event loop.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, ask()).result()
