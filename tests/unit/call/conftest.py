"""LiteLLM, imported once a session (it takes seconds), and a provider for each test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.provider import Provider, provider
from tests.unit.call.build import policy
from tests.unit.call.stage import Stage
from workers.call.provider import Client, open_client
from workers.ledger.ledger import Ledger
from workers.ledger.migrate import upgrade


@pytest.fixture(scope="session")
def litellm_client() -> Client:
    return open_client()


@pytest.fixture
async def client(litellm_client: Client) -> AsyncIterator[Client]:
    yield litellm_client
    await litellm_client.close()


@pytest.fixture
async def server() -> AsyncIterator[Provider]:
    async with provider() as p:
        yield p


@pytest.fixture
async def unused_tcp_port() -> int:
    server = await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", 0)
    port: int = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    return port


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[Ledger]:
    url = f"sqlite+aiosqlite:///{tmp_path}/ledger.db"
    await upgrade(url)
    ledger = Ledger(url, heartbeat_s=5, stale_s=15, keep_days=7, pool_size=2)
    await ledger.start()
    yield ledger
    await ledger.close()


@pytest.fixture
def stage(client: Client, ledger: Ledger, server: Provider) -> Stage:
    return Stage(client, ledger, policy(server.base_url))
