"""What is known after a run, read from its folder, the topics and the tables: plain JSON, plain SQL, standard library, aiokafka, asyncpg.

`scrimp ledger verify` is run as a command, as an operator would. What cannot be read raises; nothing is left out in silence.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
from aiokafka import AIOKafkaConsumer, TopicPartition

Json = dict[str, Any]
Headers = tuple[tuple[str, bytes | None], ...]
READ = ("responses", "costs", "dead")


@dataclass(frozen=True)
class Record:
    """On a topic: what was sent by a user, or what stands there now."""

    topic: str
    """Without the run's prefix."""
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    uncacheable: bool = False
    """Of what was sent: no cache may answer it, by its author's word."""
    at: datetime | None = None
    """Of what was sent: the record's own time, which is its arrival."""


@dataclass(frozen=True)
class Attempt:
    request: int
    n: int
    model: str
    state: str
    reserved_usd: int
    cost: int
    """1e-10 dollars."""
    used_tokens: int
    input_tokens: int
    output_tokens: int
    verdict: str | None
    outcome: str | None
    answer: Json | None
    usage_ids: tuple[int, ...]
    opened_at: datetime
    settled_at: datetime | None
    pid: int
    """Of the process that made the call."""


@dataclass(frozen=True)
class Row:
    """A request in the tables."""

    id: int
    tenant: str
    request_id: str
    user: str | None
    status: str | None
    response: bytes | None
    revision: int
    published_revision: int
    attempts: tuple[Attempt, ...]

    @property
    def key(self) -> str:
        return f"{self.tenant}/{self.request_id}"


@dataclass(frozen=True)
class Counter:
    id: int
    scope: str
    kind: str
    window: str
    starts_at: datetime
    reserved: int
    spent: int


@dataclass(frozen=True)
class Call:
    """As the provider saw it; times on the monotonic clock of this machine."""

    n: int
    model: str
    max_tokens: int | None
    messages: tuple[Json, ...]
    arrived: float
    ended: float | None
    status: int | None
    fault: str | None
    usage: Json | None


@dataclass(frozen=True)
class Blow:
    kind: str
    target: str | None
    pid: int | None
    """Of the process that was hit."""
    began: float
    ended: float


@dataclass(frozen=True)
class Evidence:
    run: Json
    sent: tuple[Record, ...]
    blows: tuple[Blow, ...]
    calls: tuple[Call, ...]
    topics: Mapping[str, tuple[Record, ...]]
    rows: Mapping[str, Row]
    """By `tenant/request_id`."""
    counters: tuple[Counter, ...]
    verified: Json
    """What `scrimp ledger verify --json` prints: the product's own word on its books."""


async def gather(folder: Path) -> Evidence:
    run: Json = json.loads((folder / "run.json").read_text())
    rows, counters = await _tables(run["ledger"])
    blows = (Blow(b["kind"], b["target"], b["pid"], b["from"], b["to"]) for b in _lines(folder / "blows.jsonl"))
    return Evidence(
        run=run,
        sent=tuple(map(_sent, _lines(folder / "sent.jsonl"))),
        blows=tuple(blows),
        calls=tuple(_calls(_lines(folder / "calls.jsonl"))),
        topics=await _topics(run["bootstrap"], run["prefix"], run["partitions"]),
        rows=rows,
        counters=counters,
        verified=_verified(run["ledger"], folder),
    )


def _verified(ledger: str, folder: Path) -> Json:
    command = [sys.executable, "-m", "workers.cli.main", "ledger", "verify", "--json"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SCRIMP_")} | {"SCRIMP_LEDGER__URL": ledger}
    told = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    if told.returncode not in (0, 1) or not told.stdout:
        raise RuntimeError(f"scrimp ledger verify ended with {told.returncode}: {told.stderr[-2000:]}")
    found: Json = json.loads(told.stdout)
    return found


def _lines(file: Path) -> list[Json]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def _sent(told: Json) -> Record:
    headers = tuple((name, _bytes(value)) for name, value in told["headers"])
    return Record(
        topic=told["topic"],
        partition=told["partition"],
        offset=told["offset"],
        key=_bytes(told["key"]),
        value=_bytes(told["value"]),
        headers=headers,
        uncacheable=told["uncacheable"],
        at=datetime.fromtimestamp(told["at"], UTC),
    )


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text)


def _calls(lines: Iterable[Json]) -> list[Call]:
    newest = {line["n"]: line for line in lines}
    return [
        Call(
            n=c["n"],
            model=c["model"],
            max_tokens=c["max_tokens"],
            messages=tuple(c["messages"]),
            arrived=c["arrived"],
            ended=c["ended"],
            status=c["status"],
            fault=c["fault"],
            usage=c["usage"],
        )
        for c in newest.values()
    ]


async def _topics(bootstrap: str, prefix: str, partitions: int) -> dict[str, tuple[Record, ...]]:
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False, auto_offset_reset="earliest")
    await consumer.start()
    try:
        mine = [TopicPartition(prefix + name, p) for name in READ for p in range(partitions)]
        consumer.assign(mine)
        found: dict[str, list[Record]] = {name: [] for name in READ}
        for tp, end in (await consumer.end_offsets(mine)).items():
            while await consumer.position(tp) < end:
                for records in (await consumer.getmany(timeout_ms=200)).values():
                    for r in records:
                        name = r.topic.removeprefix(prefix)
                        found[name].append(Record(name, r.partition, r.offset, r.key, r.value, tuple(r.headers)))
        return {name: tuple(records) for name, records in found.items()}
    finally:
        await consumer.stop()


async def _tables(url: str) -> tuple[dict[str, Row], tuple[Counter, ...]]:
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        attempts: dict[int, list[Attempt]] = {}
        for a in await connection.fetch("SELECT * FROM attempt ORDER BY request, n"):
            attempts.setdefault(a["request"], []).append(_attempt(a))
        rows = {
            f"{r['tenant']}/{r['request_id']}": Row(
                r["id"],
                r["tenant"],
                r["request_id"],
                r["user"],
                r["status"],
                r["response"],
                r["revision"],
                r["published_revision"],
                tuple(attempts.get(r["id"], ())),
            )
            for r in await connection.fetch("SELECT * FROM request")
        }
        counters = await connection.fetch('SELECT id, scope, kind, "window", starts_at, reserved, spent FROM budget_usage')
        return rows, tuple(Counter(*c) for c in counters)
    finally:
        await connection.close()


def _attempt(a: Any) -> Attempt:
    return Attempt(
        request=a["request"],
        n=a["n"],
        model=a["model"],
        state=a["state"],
        reserved_usd=a["reserved_usd"],
        cost=a["cost"],
        used_tokens=a["used_tokens"],
        input_tokens=a["input_tokens"],
        output_tokens=a["output_tokens"],
        verdict=a["verdict"],
        outcome=a["outcome"],
        answer=None if a["answer"] is None else json.loads(a["answer"]),
        usage_ids=tuple(a["usage_ids"]),
        opened_at=a["opened_at"],
        settled_at=a["settled_at"],
        pid=int(a["worker"].split("-")[-2]),  # its host's name, its process, and a number of its own
    )
