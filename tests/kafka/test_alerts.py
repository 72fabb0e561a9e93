"""Alerts by several processes of `attribute`: each once on the topic; and after a SIGKILL around the publish, the same bytes again."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from tests.kafka.fleet import Fleet
from tests.kafka.topics import eventually
from tests.unit.ledger.scenario import ask, execute, hold, settlement
from workers.ledger.ledger import Ledger

PARTITIONS = 1
DYING = Path(__file__).with_name("dying_alerts.py")
QUICK = {"attribute__sweep_s": 0.2, "ledger__heartbeat_s": 0.3, "ledger__stale_s": 2}
BUDGETS = 'timezone: UTC\nbudgets: [{scope: {tenant: "*"}, window: month, limit_usd: 10}]\n'


async def spend(fleet: Fleet, tenant: str, cost: str) -> None:
    """As `call` would: a call of this tenant is booked under its budget."""
    ledger = Ledger(fleet.ledger_url, heartbeat_s=5, stale_s=60, keep_days=7, pool_size=1)
    await ledger.start()
    request_id = f"r-{cost}"
    await ledger.open([ask(request_id, "9", 30, hold("100", {"tenant": tenant}), tenant=tenant)])
    await ledger.settle([settlement(request_id, cost=cost, tenant=tenant)])
    await ledger.close()


async def told(fleet: Fleet, tenant: str) -> list[bytes]:
    """The alerts about this tenant, as they stand on the topic now."""
    partition = TopicPartition(f"{fleet.prefix}alerts", 0)
    async with AIOKafkaConsumer(bootstrap_servers=fleet.broker.bootstrap, enable_auto_commit=False) as consumer:
        consumer.assign([partition])
        await consumer.seek_to_beginning()
        end = (await consumer.end_offsets([partition]))[partition]
        found: list[bytes] = []
        while await consumer.position(partition) < end:
            for record in (await consumer.getmany(timeout_ms=500)).get(partition, []):
                if json.loads(record.key) == {"tenant": tenant}:
                    found.append(record.value)
    return found


async def published(fleet: Fleet, tenant: str, level: int) -> list[Any]:
    """The rows of the alerts about this tenant, once all of them are noted as published."""
    rows: list[Any] = []

    async def all_are() -> bool:
        scope = json.dumps({"tenant": tenant})
        rows[:] = await execute(fleet.ledger_url, "SELECT * FROM alert WHERE scope = :scope ORDER BY level", scope=scope)
        return bool(rows) and rows[-1].level >= level and all(row.published_at is not None for row in rows)

    await eventually(all_are, "the alerts of this tenant were not published")
    return rows


async def test_several_processes_tell_once_and_a_higher_share_again(fleet: Fleet, tenant: str) -> None:
    fleet.write_policy(BUDGETS + "alerts: {budget_shares: [0.8, 1.0]}\n")
    await asyncio.to_thread(fleet.start, "attribute-1", "attribute-2", **QUICK)
    await spend(fleet, tenant, "8.5")
    await published(fleet, tenant, 8_000)
    await spend(fleet, tenant, "1.6")  # whoever looks meanwhile sees 85 % again and again
    await published(fleet, tenant, 10_000)
    alerts = [json.loads(value) for value in await told(fleet, tenant)]
    assert [(a["kind"], a["scope"], a["evidence"]["level"]) for a in alerts] == [
        ("budget_share", {"tenant": tenant}, "0.8"),
        ("budget_share", {"tenant": tenant}, "1"),
    ]
    for name in ("attribute-1", "attribute-2"):
        fleet.kill(name)


@pytest.mark.parametrize(("point", "copies"), [("stored", 1), ("published", 2)])
async def test_sigkill_around_the_publish(point: str, copies: int, fleet: Fleet, tenant: str) -> None:
    fleet.write_policy(BUDGETS)
    await spend(fleet, tenant, "9")
    fleet.launch("attribute-1", by=(sys.executable, "-P", str(DYING), point), **QUICK)
    assert await asyncio.to_thread(fleet.processes["attribute-1"].ended, 60) == -signal.SIGKILL
    assert len(await told(fleet, tenant)) == copies - 1
    await asyncio.to_thread(fleet.start, "attribute-2", **QUICK)
    (row,) = await published(fleet, tenant, 8_000)
    assert await told(fleet, tenant) == [bytes(row.body)] * copies
    fleet.kill("attribute-2")
