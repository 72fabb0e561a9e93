"""Why a broker does not let us in, where it takes no broker to find out; against a real one: tests/kafka/test_security.py."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiokafka.errors import SaslAuthenticationFailed, UnsupportedSaslMechanismError

from tests.servers.process import free_port
from workers.outcomes import Unavailable
from workers.runtime import knock as module
from workers.runtime.knock import knock
from workers.settings import Kafka, SettingsError

SASL: dict[str, Any] = {
    "security_protocol": "SASL_PLAINTEXT",
    "sasl_mechanism": "PLAIN",
    "sasl_username": "scrimp",
    "sasl_password": "geheim",
}
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(serve: Serve) -> AsyncIterator[str]:
    async def serves(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(serves, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


def refusing(monkeypatch: pytest.MonkeyPatch, *errors: BaseException) -> None:
    """Every broker answers the whole way in with the next of these."""
    left = list(errors)

    async def enter(*_: Any) -> None:
        raise left.pop(0)

    monkeypatch.setattr(module, "_enter", enter)


async def test_nobody_listens() -> None:
    with pytest.raises(Unavailable, match=r"^kafka: 127\.0\.0\.1:\d+: nobody listens there \(SCRIMP_KAFKA__BOOTSTRAP_SERVERS\)$"):
        await knock(Kafka(bootstrap_servers=f"127.0.0.1:{free_port()}"))


async def test_no_such_host(monkeypatch: pytest.MonkeyPatch) -> None:
    refusing(monkeypatch, socket.gaierror(-2, "Name or service not known"))
    with pytest.raises(Unavailable, match=r"^kafka: nowhere:9092: no such host"):
        await knock(Kafka(bootstrap_servers="nowhere:9092"))


async def test_no_answer() -> None:
    async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        while await reader.read(1024):
            pass

    async with listening(silent) as address:
        with pytest.raises(Unavailable, match=f"^kafka: {address}: no answer$"):
            await knock(Kafka(bootstrap_servers=address, request_timeout_ms=1000))


async def test_it_hangs_up() -> None:
    async def hangs_up(*_: Any) -> None:
        return

    async with listening(hangs_up) as address:
        with pytest.raises(Unavailable, match=f"^kafka: {address}: it closes the connection$"):
            await knock(Kafka(bootstrap_servers=address))


async def test_a_mechanism_that_the_broker_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    async def offered(*_: Any) -> tuple[str, ...]:
        return "SCRAM-SHA-256", "SCRAM-SHA-512"

    refusing(monkeypatch, UnsupportedSaslMechanismError())
    monkeypatch.setattr(module, "_mechanisms", offered)
    line = r"^SCRIMP_KAFKA__SASL_MECHANISM: a:1 does not know PLAIN, only SCRAM-SHA-256, SCRAM-SHA-512$"
    with pytest.raises(SettingsError, match=line):
        await knock(Kafka(bootstrap_servers="a:1", **SASL))


async def test_of_several_brokers_one_that_is_wrong_counts_more_than_one_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    refusing(monkeypatch, ConnectionRefusedError(), SaslAuthenticationFailed("no"), TimeoutError())
    with pytest.raises(SettingsError, match=r"^SCRIMP_KAFKA__SASL_PASSWORD: b:2 does not take user 'scrimp'") as caught:
        await knock(Kafka(bootstrap_servers="a:1,b:2,c:3", **SASL))
    assert "geheim" not in str(caught.value)


async def test_each_broker_that_is_away_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    refusing(monkeypatch, ConnectionRefusedError(), TimeoutError())
    with pytest.raises(Unavailable, match=r"a:1: nobody listens there .*; b:2: no answer$"):
        await knock(Kafka(bootstrap_servers="a:1,b:2"))
