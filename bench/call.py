"""How busy `call` keeps its slots, from the provider's log: latency lognormal (mean 100 ms, at most 1.2 s), window 32.

`call` runs as a process of its own, as `scrimp run call` starts it, on PostgreSQL. Busy is the share of window x time that the provider
spent on calls, in the steady state: from its 500th call, about two seconds after the first, when connections are open and statements are
prepared, until it has seen all but the last 64.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from statistics import median

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from bench.fresh import fresh_ledger
from bench.report import line, verdict
from schemas import CachePlan, Compressed, Facts, Plan, Prompt, TokensAround
from schemas.request import Message
from schemas.types import utc_now
from workers.runtime import provision
from workers.settings import Kafka
from workers.topics import COMPRESSED, FINISHED

CALLS = 3_000
WARM_UP = 500
ROUNDS = 5
WINDOW = 32
PARTITIONS = 4
MEAN_S, MOST_S = 0.1, 1.2

POLICY = """
models:
  mini: {{litellm: openai/mini, api_base: "{url}", context: 8000, price: {{input: 0.15, output: 0.60}}}}
tiers: {{light: [mini]}}
reference: mini
"""


def event(n: int) -> Compressed:
    now = utc_now()
    off = CachePlan(
        verdict="off", read=False, write=False, semantic=False, share="user", candidate_threshold=0.9, serve_threshold=0.95, ttl_s=0
    )
    return Compressed(
        facts=Facts(
            request_id=f"r-{n}",
            tenant=f"t{n % 7}",
            feature="f",
            user=None,
            experiment=None,
            lane="interactive",
            body_hash="00",
            created_at=now,
            deadline_at=now + timedelta(hours=1),
            trace_id=uuid.uuid4().hex,
        ),
        prompt=Prompt(messages=(Message(role="user", content=f"Name the capital of country number {n}."),)),
        plan=Plan(
            tier="light",
            tier_why="short",
            forced=False,
            cascade=True,
            models={"light": ("mini",)},
            max_tokens={"light": 60, "standard": 60, "heavy": 60},
            max_attempts=3,
            compress_rate=None,
            cache=off,
        ),
        tokens=TokensAround(before=20, after=20),
    )


@asynccontextmanager
async def process(*command: str, **environment: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A child with a piped standard output, stopped by SIGTERM."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", *command, env=os.environ | environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        yield child
    finally:
        with contextlib.suppress(ProcessLookupError):
            child.terminate()
        await child.wait()


def busy(log: Path) -> float:
    """Share of the slots that were with the provider, from its own log of arrivals and answers."""
    lines = [json.loads(entry) for entry in log.read_text().splitlines()]
    spans: list[tuple[float, float]] = sorted((entry["arrived"], entry["ended"]) for entry in lines if entry["ended"] is not None)
    start, stop = spans[WARM_UP][0], spans[-2 * WINDOW][0]
    held = sum(max(0.0, min(end, stop) - max(begin, start)) for begin, end in spans)
    return held / (WINDOW * (stop - start))


async def once(bootstrap: str, seed: int) -> tuple[float, float]:
    """(share of the slots busy, calls a second) of one round."""
    name = f"bench-{uuid.uuid4().hex[:8]}."
    kafka = Kafka(bootstrap_servers=bootstrap, partitions=PARTITIONS, topic_prefix=name)
    await provision.apply(kafka)
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap)
    await producer.start()
    out = name + COMPRESSED.name
    for start in range(0, CALLS, 500):
        await asyncio.gather(
            *[await producer.send(out, event(n).model_dump_json().encode(), key=str(n).encode()) for n in range(start, start + 500)]
        )
    await producer.stop()
    with tempfile.TemporaryDirectory() as folder:
        log, policy = Path(folder, "calls.jsonl"), Path(folder, "policy.yaml")
        latency = ("--latency-mean", str(MEAN_S), "--latency-max", str(MOST_S), "--seed", str(seed))
        async with fresh_ledger() as url, process("tests.provider", "--port", "0", "--log", str(log), *latency) as provider:
            assert provider.stdout is not None
            base = (await provider.stdout.readline()).decode().strip() + "/v1"
            await asyncio.to_thread(policy.write_text, POLICY.format(url=base))
            environment = {
                "SCRIMP_KAFKA__BOOTSTRAP_SERVERS": bootstrap,
                "SCRIMP_KAFKA__TOPIC_PREFIX": name,
                "SCRIMP_KAFKA__GROUP_PREFIX": name,
                "SCRIMP_LEDGER__URL": url,
                "SCRIMP_POLICY_FILE": str(policy),
                "SCRIMP_CALL__WINDOW": str(WINDOW),
                "SCRIMP_HTTP__PORT": "0",
            }
            async with process("workers.cli.main", "run", "call", **environment):
                rate = await _until_finished(bootstrap, name + FINISHED.name)
        return busy(log), rate


async def _until_finished(bootstrap: str, topic: str) -> float:
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    seen, started = 0, 0.0
    while seen < CALLS:
        polled = await consumer.getmany(timeout_ms=1000)
        started = started or (time.perf_counter() if polled else 0.0)
        seen += sum(map(len, polled.values()))
    rate = seen / (time.perf_counter() - started)
    await consumer.stop()
    return rate


async def main(bootstrap: str) -> None:
    rounds = [await once(bootstrap, seed) for seed in range(ROUNDS)]
    print(f"call: {CALLS} calls, window {WINDOW}, provider latency lognormal, mean {MEAN_S} s, at most {MOST_S} s, {ROUNDS} rounds")
    print(line("calls finished", [r for _, r in rounds], "call/s"))
    print(line("share of the slots busy (provider's log)", [b for b, _ in rounds], ""))
    print(verdict("share busy (median of the rounds)", median(b for b, _ in rounds), 0.85, at_least=True))
