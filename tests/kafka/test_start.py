"""What a process does that cannot start as it is: what waiting may mend is waited for, alive and not ready; what it cannot mend ends the
process. Either way it says so in one line, and has joined no group. Settings of Kafka are in test_security.py, volumes in test_volumes.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from tests.kafka.fleet import Fleet, health
from tests.kafka.topics import eventually
from tests.servers.postgres import database
from tests.servers.process import free_port
from tests.servers.required import long
from workers.laptop.broker import embedded_broker
from workers.ledger.migrate import upgrade
from workers.runtime import provision
from workers.runtime.health import SPARE
from workers.settings import Kafka

pytestmark = long("half a minute of processes")

PARTITIONS = 1
PATIENCE_S = 60
OLDER = "0001"


def said(fleet: Fleet, name: str) -> list[str]:
    """Its log, without times and levels, after the line that names its port."""
    first, *lines = (fleet.folder / f"{name}.log").read_text().splitlines()
    assert "health at" in first
    return [line.partition("scrimp: ")[2] for line in lines]


def page_of(fleet: Fleet, name: str, holds: Callable[[int, dict[str, Any]], bool]) -> Callable[[], Awaitable[bool]]:
    async def is_so() -> bool:
        return holds(*await asyncio.to_thread(health, fleet.ports[name]))

    return is_so


@pytest.mark.parametrize(
    ("name", "settings", "told"),
    [
        ("compress-k", {"kafka__bootstrap_servers": "127.0.0.1:{port}"}, "waits for kafka: 127.0.0.1:{port}: nobody listens there"),
        ("call-d", {"ledger__url": "postgresql+asyncpg://scrimp@127.0.0.1:{port}/scrimp"}, "waits for ledger: Connection refused"),
        ("attribute-d", {"ledger__url": "postgresql+asyncpg://scrimp@127.0.0.1:{port}/scrimp"}, "waits for ledger: Connection refused"),
    ],
    ids=["no-kafka", "call-no-database", "attribute-no-database"],
)
async def test_what_is_away_is_waited_for(fleet: Fleet, name: str, settings: dict[str, str], told: str) -> None:
    port = free_port()
    fleet.launch(name, **{setting: value.format(port=port) for setting, value in settings.items()})
    told = told.format(port=port)

    def waits(status: int, page: dict[str, Any]) -> bool:
        return status == 503 and [wrong for wrong in page["wrong"] if wrong.startswith(told)] == page["wrong"] != []

    await eventually(page_of(fleet, name, waits), lambda: str(fleet.logs()), PATIENCE_S)
    await asyncio.sleep(2)  # it is tried again, and told once
    status, page = await asyncio.to_thread(health, fleet.ports[name])
    assert waits(status, page)
    assert page["consumers"] == {}
    assert [line for line in said(fleet, name) if line] == page["wrong"]
    assert fleet.stop(name) == 0


async def older(url: str) -> None:
    await upgrade(url)
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.execute(text(f"UPDATE alembic_version SET version_num = '{OLDER}'"))
    await engine.dispose()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database without a ledger."""
    if request.param == "sqlite":
        yield f"sqlite+aiosqlite:///{tmp_path}/scrimp.db"
        return
    with database() as url:
        yield url


@pytest.mark.parametrize("stage", ["call", "attribute"])
async def test_a_ledger_of_an_older_version_ends_the_process(fleet: Fleet, empty: str, stage: str) -> None:
    await older(empty)
    name = f"{stage}-{empty.partition(':')[0].partition('+')[0]}"
    fleet.launch(name, ledger__url=empty)
    assert await asyncio.to_thread(fleet.processes[name].ended, PATIENCE_S) == 1
    (told,) = said(fleet, name)
    assert told.startswith(f"the ledger is older ({OLDER}) than this program (")
    assert told.endswith("); run `scrimp ledger upgrade`")


async def test_a_missing_encoder_ends_the_process(fleet: Fleet, tmp_path: Path) -> None:
    """Kafka, which is away, is not waited for."""
    fleet.launch("cache-m", encoder__path=tmp_path / "none", kafka__bootstrap_servers=f"127.0.0.1:{free_port()}")
    assert await asyncio.to_thread(fleet.processes["cache-m"].ended, PATIENCE_S) == 1
    (told,) = said(fleet, "cache-m")
    assert told.startswith(f"SCRIMP_ENCODER__PATH={tmp_path}/none: no model.onnx, tokenizer.json, tokenizer_config.json; it must be")


async def test_one_process_more_than_partitions_is_left_without(fleet: Fleet) -> None:
    names = {"compress-1", "compress-2"}
    fleet.start(*names)
    told = f"compress.interactive: {SPARE}"
    spare: set[str] = set()

    async def one_is_spare() -> bool:
        pages = {name: await asyncio.to_thread(health, fleet.ports[name]) for name in names}
        spare.clear()
        spare.update(name for name, (_, page) in pages.items() if told in page.get("degraded", []))
        return len(spare) == 1 and all(status == 200 for status, _ in pages.values())

    await eventually(one_is_spare, lambda: str(fleet.logs()), PATIENCE_S)
    (without,) = spare
    (other,) = names - spare
    assert told in said(fleet, without)

    # Whoever has none takes over.
    assert fleet.stop(other) == 0
    await eventually(
        page_of(fleet, without, lambda status, page: status == 200 and not page["degraded"]), lambda: str(fleet.logs()), PATIENCE_S
    )
    assert fleet.stop(without) == 0


async def test_a_start_waits_for_its_topics_and_makes_none(fleet: Fleet, tmp_path: Path) -> None:
    """On the embedded broker, which makes a topic that somebody subscribes to."""
    async with embedded_broker(None, tmp_path) as broker:
        kafka = Kafka(bootstrap_servers=broker.bootstrap, topic_prefix="none-yet.", partitions=1, idempotence=False)
        fleet.launch("compress-t", **{f"kafka__{name}": getattr(kafka, name) for name in kafka.model_fields_set})
        told = "waits for kafka: missing topics: none-yet.missed; run `scrimp topics apply`"
        await eventually(page_of(fleet, "compress-t", lambda _, page: told in page.get("wrong", [])), lambda: str(fleet.logs()), PATIENCE_S)
        admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap)
        await admin.start()
        assert [name for name in await admin.list_topics() if name.startswith("none-yet.")] == []
        await admin.close()
        await provision.apply(kafka)
        await eventually(page_of(fleet, "compress-t", lambda status, _: status == 200), lambda: str(fleet.logs()), PATIENCE_S)
        assert await asyncio.to_thread(fleet.stop, "compress-t") == 0
        waited = [line for line in said(fleet, "compress-t") if "topics" in line]
        assert waited == [told]
