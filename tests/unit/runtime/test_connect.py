"""A write to a connection that has just closed is a lost connection to aiokafka, on the event loop that the workers run on, too."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine

import pytest
import uvloop
from aiokafka.conn import AIOKafkaConnection, AIOKafkaProtocol
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.admin import ApiVersionRequest

import workers.runtime.connect  # noqa: F401  it is this import that mends


async def _connected(ours: socket.socket) -> AIOKafkaConnection:
    """As its `connect` does, without the greeting; and its reader, which would notice a loss, comes late."""
    loop = asyncio.get_running_loop()
    connection = AIOKafkaConnection("127.0.0.1", 1)
    connection._closed_fut = loop.create_future()
    reader = asyncio.StreamReader()
    protocol = AIOKafkaProtocol(connection._closed_fut, reader, loop=loop)
    transport, _ = await loop.create_connection(lambda: protocol, sock=ours)
    connection._reader, connection._protocol = reader, protocol
    connection._writer = asyncio.StreamWriter(transport, protocol, reader, loop)
    connection._read_task = asyncio.ensure_future(asyncio.Event().wait())
    return connection


@pytest.mark.parametrize("write", ["send", "_send_sasl_token"])
def test_a_write_to_a_transport_that_has_closed_is_a_lost_connection(write: str) -> None:
    async def run(ours: socket.socket) -> None:
        connection = await _connected(ours)
        waiting = asyncio.ensure_future(connection.send(ApiVersionRequest()))
        await asyncio.sleep(0)
        connection._writer.transport.abort()
        await connection._closed_fut
        await asyncio.sleep(0)
        with pytest.raises(KafkaConnectionError):
            await getattr(connection, write)(b"" if write == "_send_sasl_token" else ApiVersionRequest())
        assert not connection.connected()
        with pytest.raises(KafkaConnectionError):
            await waiting

    _on_uvloop(run)


def test_what_aiokafka_cannot_send_is_no_lost_connection() -> None:
    class Newer(ApiVersionRequest):  # type: ignore[misc]
        def prepare(self, _versions: object) -> object:
            raise NotImplementedError

    async def run(ours: socket.socket) -> None:
        connection = await _connected(ours)
        with pytest.raises(NotImplementedError):
            connection.send(Newer())
        assert connection.connected()
        await connection.close()

    _on_uvloop(run)


def _on_uvloop(run: Callable[[socket.socket], Coroutine[None, None, None]]) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        uvloop.run(asyncio.wait_for(run(ours), 20))
