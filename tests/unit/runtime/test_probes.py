"""What does not answer is named, what hangs is given up, and a stage whose work waits for it is parked and alive."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp.test_utils import TestClient, TestServer

from workers.outcomes import Unavailable
from workers.runtime import health, probes
from workers.runtime.parking import Parking
from workers.runtime.probes import silent, why_not


async def answers() -> None:
    return


async def refuses() -> None:
    raise Unavailable("ledger", "refused")


async def hangs() -> None:
    await asyncio.Event().wait()


async def test_who_is_silent_and_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "PROBE_S", 0.01)
    assert await silent({"kafka": answers, "ledger": refuses, "qdrant": hangs}) == {
        "ledger": "ledger: refused",
        "qdrant": "qdrant: no answer in 0 s",
    }


async def test_a_bug_in_a_probe_is_no_outage() -> None:
    async def broken() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        await why_not("ledger", broken)


async def test_suspicion_parks_on_what_is_down_alone_until_it_is_back() -> None:
    down, changes = True, []

    async def ledger() -> None:
        if down:
            raise Unavailable("ledger", "gone")

    parking = Parking({"kafka": answers, "ledger": ledger}, lambda name, on: changes.append((name, on)), first_s=0.001, most_s=0.002)
    await parking.suspect()
    assert parking.dependencies == ("ledger",)
    await parking.suspect()
    down = False
    await parking.clear()
    assert changes == [("ledger", True), ("ledger", False)]
    await parking.suspect()
    assert parking.dependencies == ()


async def test_an_outage_that_becomes_another_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """A broker that is back, and does not let us in any more."""
    whys = ["gone", "gone", "no right", "no right"]

    async def kafka() -> None:
        if whys:
            raise Unavailable("kafka", whys.pop(0))

    parking = Parking({"kafka": kafka}, lambda *_: None, first_s=0.001, most_s=0.002)
    await parking.wait("kafka", "kafka: gone")
    told = [record.getMessage() for record in caplog.records]
    assert told == ["parked: kafka: gone", "still parked: kafka: no right", "resumed: kafka is back"]


async def test_what_the_pages_say() -> None:
    told: list[str | None] = ["waits for kafka", None, None]
    app = health.application({}, {"ledger": refuses, "kafka": answers}, 1, optional={"qdrant": refuses}, starting=lambda: told.pop(0))
    async with TestClient(TestServer(app)) as client:
        first, second = await client.get("/readyz"), await client.get("/readyz")
        assert (first.status, (await first.json())["wrong"]) == (503, ["waits for kafka", "ledger: refused"])
        assert (second.status, (await second.json())["degraded"]) == (503, ["ledger: refused"])
        assert (await client.get("/livez")).status == 200
    only_degraded = health.application({}, {}, 1, optional={"qdrant": refuses})
    async with TestClient(TestServer(only_degraded)) as client:
        assert (await client.get("/readyz")).status == 200
