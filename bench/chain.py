"""End to end at 20 requests a second with an instant provider, against a bare chain of five aiokafka hops.

All are separate processes on the same broker, fed at the same rate, in turns of a second. A hop reads a record and writes it on. A stage
does its work as well: parse, classify, look in the cache, compress, reserve in the ledger, call over HTTP, settle, price; and beside that
each answer is embedded and stored for the cache. A hop is aiokafka as it comes, with the product's acknowledgements and idempotence; the
stages run with the timers that ship, not with the short ones of the tests, and each is started by itself. Every question is a new one of
ordinary words and length, so that none may be served from the cache: one that is stops the benchmark.

A third chain tells what the hardware takes of that: its hops do, in the same places, one commit, one call, one commit and one commit, and
nothing else (`WORK`). What the stages need beyond it is ours.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import aiohttp
import asyncpg  # type: ignore[import-untyped]
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from bench.fresh import fresh_ledger
from bench.report import line, quantile, verdict
from tests.kafka.fleet import Fleet
from tests.kafka.provider import Provider
from tests.servers.kafka import Broker
from workers.encoder.bundled import bundled
from workers.runtime import provision
from workers.settings import Attribute, Kafka, Ledger

Do = Callable[[dict[str, Any]], Awaitable[None]]
"""What a hop does with a request that it has read."""

RATE = 20
SECONDS = 10
ROUNDS = 5
PARTITIONS = 4
STAGES = ("classify", "cache", "compress", "call", "attribute")


WORK = ("none", "none", "none", "call", "commit")
"""What each hop of the working chain does: what no stage can go without."""
SHIPPED = {
    "kafka__heartbeat_interval_ms": Kafka.model_fields["heartbeat_interval_ms"].default,
    "kafka__session_timeout_ms": Kafka.model_fields["session_timeout_ms"].default,
    "ledger__heartbeat_s": Ledger.model_fields["heartbeat_s"].default,
    "ledger__stale_s": Ledger.model_fields["stale_s"].default,
    "attribute__sweep_s": Attribute.model_fields["sweep_s"].default,
}
ASKS = (
    *(
        "What is the shortest way to",
        "Who built",
        "What is the history of",
        "Which architect designed",
        "Why do people visit",
        "What can be seen near",
    ),
    *(
        "Who planned the gardens around",
        "Who was born next to",
        "What happened in 1848 at",
        "Which painter lived behind",
        "What stands beside",
    ),
    *("How did the fire of 1755 change", "Who paid for the roof of", "Which legend is told about", "What is kept below", "Who owned"),
)
THINGS = (
    *("the harbour", "the botanical garden", "the city library", "the opera house", "the fish market", "the observatory", "the old mill"),
    *("the north gate", "the university", "the town hall", "the glass bridge", "the lighthouse", "the royal stables", "the salt store"),
    *("the clock tower", "the tram depot"),
)
TOWNS = (
    *("Lisbon", "Ghent", "Trieste", "Bergen", "Krakow", "Valencia", "Bristol", "Zadar", "Uppsala", "Graz", "Nantes", "Tartu"),
    *("Cork", "Parma", "Lund", "Ulm"),
)
_texts = iter(
    random.Random(7).sample([f"{a} {b} of {c}?" for a in ASKS for b in THINGS for c in TOWNS], len(ASKS) * len(THINGS) * len(TOWNS))
)
"""Enough for every round, and none twice."""


def question(n: int) -> tuple[bytes, bytes]:
    """(key of the response, record)."""
    asked = {"request_id": f"r-{uuid.uuid4().hex}", "tenant": "acme", "feature": "bench", "user": f"u-{n}"}
    asked["messages"] = [{"role": "user", "content": next(_texts)}]  # type: ignore[assignment]
    return f"acme/{asked['request_id']}".encode(), json.dumps(asked).encode()


@dataclass
class Chain:
    """Where it begins and where it ends, and what its requests took."""

    into: str
    out: str
    took: list[float] = field(default_factory=list)
    """Seconds from publish to what comes out."""
    sent: dict[bytes, float] = field(default_factory=dict)
    """When, by the key of what has not come out yet."""
    all_out: asyncio.Event = field(default_factory=asyncio.Event)


async def measure(bootstrap: str, chains: Sequence[Chain], seconds: int) -> None:
    """The chains take turns, a second each, `seconds` times: a machine that others use changes its speed within seconds, and so it does
    that for all of them."""
    async with AsyncExitStack() as on_exit:
        producer = await on_exit.enter_async_context(AIOKafkaProducer(bootstrap_servers=bootstrap))
        async with asyncio.TaskGroup() as readers:
            reading = []
            for chain in chains:
                consumer = AIOKafkaConsumer(chain.out, bootstrap_servers=bootstrap, auto_offset_reset="latest")
                await on_exit.enter_async_context(consumer)
                await consumer.seek_to_end()
                reading.append(readers.create_task(_read(chain, consumer)))
            for chain in itertools.chain(*itertools.repeat(chains, seconds)):
                await _second(chain, producer)
            for task in reading:
                task.cancel()


async def _second(chain: Chain, producer: AIOKafkaProducer) -> None:
    """A second's requests, until all are out."""
    begin = time.perf_counter()
    for n in range(RATE):
        await asyncio.sleep(max(0.0, begin + n / RATE - time.perf_counter()))
        key, value = question(n)
        chain.all_out.clear()
        chain.sent[key] = time.perf_counter()
        await producer.send(chain.into, value, key=key)
    await asyncio.wait_for(chain.all_out.wait(), 60)


async def _read(chain: Chain, consumer: AIOKafkaConsumer) -> None:
    async for record in consumer:
        if (begin := chain.sent.pop(record.key, None)) is None:
            continue
        if b'"source":"cache' in record.value:
            raise RuntimeError("a question was served from the cache, and is no measure of the stages")
        chain.took.append(time.perf_counter() - begin)
        if not chain.sent:
            chain.all_out.set()


async def hop(bootstrap: str, into: str, out: str, work: str = "none", ledger: str = "", api: str = "") -> None:
    """One hop, as a process of its own: `python -m bench.chain BOOTSTRAP FROM TO [WORK LEDGER API]`."""
    consumer = AIOKafkaConsumer(into, bootstrap_servers=bootstrap, group_id=f"hop-{into}", auto_offset_reset="earliest")
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", enable_idempotence=True)
    async with AsyncExitStack() as on_exit:
        do = await WORKS[work](on_exit, ledger, api)
        await consumer.start()
        await producer.start()
        print("ready", flush=True)
        async for record in consumer:
            await do(json.loads(record.value) if work != "none" else {})
            await producer.send_and_wait(out, record.value, key=record.key)


async def _none(_: AsyncExitStack, _ledger: str, _api: str) -> Do:
    async def do(asked: dict[str, Any]) -> None: ...

    return do


async def _connect(on_exit: AsyncExitStack, ledger: str) -> asyncpg.Connection:
    connection = await asyncpg.connect(ledger.replace("+asyncpg", ""))
    on_exit.push_async_callback(connection.close)
    return connection


async def _commit(on_exit: AsyncExitStack, ledger: str, _api: str) -> Do:
    """One row, in a statement that is a transaction."""
    connection = await _connect(on_exit, ledger)

    async def do(asked: dict[str, Any]) -> None:
        await connection.execute("insert into hop values ($1)", asked["request_id"])

    return do


async def _call(on_exit: AsyncExitStack, ledger: str, api: str) -> Do:
    """Before the answer a commit, and one after it."""
    commit = await _commit(on_exit, ledger, api)
    session = await on_exit.enter_async_context(aiohttp.ClientSession(headers={"Authorization": "Bearer k"}))

    async def do(asked: dict[str, Any]) -> None:
        await commit(asked)
        body = {"model": "mini", "messages": asked["messages"], "max_tokens": 100}
        async with session.post(f"{api}/v1/chat/completions", json=body, raise_for_status=True) as answer:
            await answer.json()
        await commit(asked)

    return do


WORKS: dict[str, Callable[[AsyncExitStack, str, str], Awaitable[Do]]] = {"none": _none, "call": _call, "commit": _commit}


@asynccontextmanager
async def hops(bootstrap: str, works: Sequence[str], ledger: str = "", api: str = "") -> AsyncIterator[tuple[str, str]]:
    """A chain of hops that do these; gives the first topic and the last."""
    name = f"hops-{uuid.uuid4().hex[:8]}"
    topics = [f"{name}-{n}" for n in range(len(works) + 1)]
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(t, PARTITIONS, 1) for t in topics])
    await admin.close()
    command = (sys.executable, "-m", "bench.chain", bootstrap)
    processes = [
        await asyncio.create_subprocess_exec(*command, a, b, work, ledger, api, stdout=asyncio.subprocess.PIPE)
        for (a, b), work in zip(itertools.pairwise(topics), works, strict=True)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            if not await process.stdout.readline():
                raise RuntimeError("a hop ended before it was ready")
        yield topics[0], topics[-1]
    finally:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def main(bootstrap: str) -> None:
    async with AsyncExitStack() as on_exit:
        folder = Path(on_exit.enter_context(tempfile.TemporaryDirectory()))
        url = await on_exit.enter_async_context(fresh_ledger())
        name = f"bench-{uuid.uuid4().hex[:8]}."
        kafka = Kafka(bootstrap_servers=bootstrap, topic_prefix=name, partitions=PARTITIONS)
        await provision.apply(kafka)
        provider = Provider(folder)
        on_exit.push_async_callback(asyncio.to_thread, provider.close)
        await asyncio.to_thread(provider.start)
        fleet = Fleet(Broker(bootstrap, "given"), name, PARTITIONS, url, provider, bundled(), folder, SHIPPED, forked=False)
        on_exit.push_async_callback(asyncio.to_thread, fleet.close)
        await asyncio.to_thread(fleet.start, *STAGES, log_level="WARNING")
        bare = await on_exit.enter_async_context(hops(bootstrap, ["none"] * len(STAGES)))
        await (await _connect(on_exit, url)).execute("create table hop (id text)")
        working = await on_exit.enter_async_context(hops(bootstrap, WORK, url, provider.url))
        ends = (bare, working, (name + "requests", name + "responses"))
        await measure(bootstrap, [Chain(*each) for each in ends], SECONDS)  # warm up
        rounds = []
        for _ in range(ROUNDS):
            chains = [Chain(*each) for each in ends]
            await measure(bootstrap, chains, SECONDS)
            rounds.append([chain.took for chain in chains])
    print(f"chain: {RATE} requests/s, {ROUNDS} rounds of {SECONDS} s each, in turns of a second; stages and hops are processes")
    for what, q in (("p50", 0.5), ("p99", 0.99)):
        for k, chain_name in enumerate((f"bare chain of {len(STAGES)} hops", "hops that call and commit", "five stages")):
            print(line(f"{chain_name}, {what}", [1e3 * quantile(a_round[k], q) for a_round in rounds], "ms"))
    to_bare, to_work, work_to_bare = (
        median(quantile(a_round[of], 0.5) / quantile(a_round[to], 0.5) for a_round in rounds) for of, to in ((2, 0), (2, 1), (1, 0))
    )
    print(f"  {'p50, stages to hops that work':<44} {to_work:10.2f}")
    print(f"  {'p50, hops that work to bare':<44} {work_to_bare:10.2f}")
    print(verdict("p50, stages to bare (median of the rounds)", to_bare, 2.5, at_least=False))


if __name__ == "__main__":
    asyncio.run(hop(*sys.argv[1:]))
