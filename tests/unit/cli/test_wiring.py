"""What keeps a fleet from starting is one line that names the setting."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from prometheus_client import REGISTRY

from workers.cli.wiring import Starting, _close, _listen, policy_file, serve
from workers.laptop.broker import embedded_broker
from workers.outcomes import Unavailable
from workers.runtime.fleet import Fleet
from workers.settings import Http, Kafka, Settings, SettingsError


async def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match=f"^SCRIMP_HTTP__PORT: 127.0.0.1:{port} is taken: .*; 0 takes a free one$"):
            await _listen(web.Application(), Http(port=port))


@pytest.mark.parametrize("host", ["256.1.1.1", "192.0.2.1", "no-such-host.invalid"])
async def test_a_host_that_is_not_here_is_named(host: str) -> None:
    with pytest.raises(SettingsError, match=f"^SCRIMP_HTTP__HOST: {host} is no address of this host$"):
        await _listen(web.Application(), Http(host=host, port=0))


async def test_port_0_takes_a_free_one() -> None:
    runner = await _listen(web.Application(), Http(port=0))
    try:
        host, port = runner.addresses[0]
        async with aiohttp.ClientSession() as session, session.get(f"http://{host}:{port}/") as answer:
            assert answer.status == 404
    finally:
        await runner.cleanup()


async def test_the_embedded_broker_asks_for_a_producer_it_can_serve(tmp_path: Path) -> None:
    async with embedded_broker(None, tmp_path) as broker:
        settings = Settings(kafka=Kafka(bootstrap_servers=broker.bootstrap))
        with pytest.raises(SettingsError, match=r"^kafka: .*UnknownError; .* needs SCRIMP_KAFKA__IDEMPOTENCE=false$"):
            await serve(settings, [("classify", "interactive")], policy=policy_file(None), stop=asyncio.Event())


async def test_the_port_is_taken_before_any_group_is_joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def joins(_: Fleet) -> None:
        pytest.fail("a group was joined")

    monkeypatch.setattr(Fleet, "start", joins)
    async with embedded_broker(None, tmp_path) as broker:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            http = Http(port=taken.getsockname()[1])
            settings = Settings(kafka=Kafka(bootstrap_servers=broker.bootstrap, idempotence=False), http=http)
            with pytest.raises(SettingsError, match="SCRIMP_HTTP__PORT: "):
                await serve(settings, [("classify", "interactive")], policy=policy_file(None), stop=asyncio.Event())


async def test_a_client_that_does_not_close_holds_nobody_up(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """As aiokafka's producer does while its broker is away and a batch is on its way."""
    monkeypatch.setattr("workers.cli.wiring.CLOSE_S", 0.01)
    await asyncio.wait_for(_close("producer", asyncio.Event().wait), 5)  # type: ignore[arg-type]
    assert "the producer did not close" in caplog.text


async def test_an_error_while_closing_is_not_lost() -> None:
    async def fails() -> None:
        raise OSError("no more files")

    with pytest.raises(OSError, match="no more files"):
        await _close("producer", fails)


async def test_what_a_start_waits_for_is_down_in_the_metrics_too() -> None:
    seen = []

    async def start() -> None:
        seen.append(REGISTRY.get_sample_value("scrimp_up", {"dependency": "of-this-test"}))
        if len(seen) == 1:
            raise Unavailable("of-this-test", "not yet")

    await Starting(asyncio.Event()).reach("of-this-test", start)
    assert seen == [None, 0]
    assert REGISTRY.get_sample_value("scrimp_up", {"dependency": "of-this-test"}) == 1
