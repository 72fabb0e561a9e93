"""LiteLLM, imported once a session (it takes seconds), and a provider for each test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.provider import Provider, provider
from workers.call.provider import Client, open_client


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
