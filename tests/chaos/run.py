"""A storm: a fleet of processes, a load, a schedule of blows, and the evidence that is left for the checker.

Nothing here judges but for what only a bystander can see: a worker that ends by itself, and a fleet that is not steady again in time.
What was done and seen goes to files in the run's folder (`sent.jsonl`, `blows.jsonl`, `run.json`; the provider writes `calls.jsonl`). Dead
processes are started again, as whoever runs a fleet would.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
import time
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TextIO

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from tests.chaos import load, schedule
from tests.chaos.database import Postgres
from tests.chaos.schedule import STAGES, Blow
from tests.kafka.fleet import Fleet, health
from tests.kafka.provider import ROOT, Provider
from tests.kafka.topics import DELAYED, READS, Topics
from tests.servers.kafka import Broker
from tests.servers.process import Process, free_port, listens
from workers.encoder.bundled import bundled
from workers.ledger.migrate import upgrade
from workers.runtime import provision
from workers.settings import Kafka

STEADY_S = 60.0
"""After the last blow: every process ready, every record worked on. On a machine that needs longer than `START_S` to start the fleet, which
has other work, as much more."""
START_S = 30.0
PATIENCE_S = 300.0
"""How long a fleet that is not steady in time is watched before the run is given up."""
PROCESSES = (*STAGES, "redeliver", "all-bulk")
"""A process a stage and two of `call`; the bulk lane has one for all its stages."""
CALL_TIMEOUT_S = 5.0
WINDOW = 16
PARTITIONS = 4

PRICES = {"mini": (1, 4), "middle": (5, 20), "large": (25, 100)}
"""Of the policy in `tests/kafka/fleet.py`."""
MOST_TOKENS = 300
RULES: dict[str, Any] = {
    "max_attempts": 12,
    "max_tokens": {"light": 120, "standard": 160, "heavy": 200},
    "max_tokens_cap": dict.fromkeys(("light", "standard", "heavy"), MOST_TOKENS),
}


@dataclass(frozen=True)
class Size:
    records: int
    seconds: float
    """In which the records are sent and the blows begin."""
    gap_s: float
    """Between two blows, on average."""


SHORT = Size(records=130, seconds=12, gap_s=1.2)
FULL = Size(records=1_500, seconds=120, gap_s=3)
SEEDS = (1, 2, 3)
"""Of the short storms of continuous integration."""


@dataclass
class World:
    """The servers and the fleet, and what was seen."""

    size: Size
    """Of each storm."""
    broker: Broker
    database: Postgres
    fleet: Fleet
    provider: Provider
    qdrant: Process
    folder: Path
    say: Callable[[str], None]
    budgets: list[dict[str, Any]]
    qdrant_url: str
    start_s: float = 0
    """What the whole fleet took to start, side by side."""
    blows: list[dict[str, Any]] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    """What only the harness can see and must not be."""
    hands: defaultdict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))
    """Of processes and servers: held by a blow that works on one, and nobody else touches it then."""
    launched: dict[str, bool] = field(default_factory=lambda: dict.fromkeys(PROCESSES, True))
    """By process: has it been ready since its last start?"""


@contextmanager
def world(
    seeds: Sequence[int], size: Size, broker: Broker, database: Postgres, folder: Path, say: Callable[[str], None]
) -> Iterator[World]:
    """A fleet that runs, with topics, tables and a provider of its own, for the storms of these seeds; `folder` gets the evidence."""
    folder.mkdir(parents=True, exist_ok=True)
    prefix = f"c{uuid.uuid4().hex[:8]}."
    with ExitStack() as on_exit:
        ledger_url = database.fresh()
        asyncio.run(upgrade(ledger_url))
        settings = Kafka(bootstrap_servers=broker.bootstrap, topic_prefix=prefix, partitions=PARTITIONS, idempotence=broker.idempotence)
        asyncio.run(provision.apply(settings))
        provider = Provider(folder, "--numbered", "--latency-mean", "0.5", "--latency-max", "2.5")
        on_exit.callback(provider.close)
        port = free_port()
        command = [sys.executable, "-m", "tests.servers.qdrant", str(port)]
        qdrant = Process(command, folder / "qdrant.log", lambda: listens(f"127.0.0.1:{port}"), folder=ROOT)
        on_exit.callback(qdrant.kill)
        fleet = Fleet(broker, prefix, PARTITIONS, ledger_url, provider, bundled(), folder)
        on_exit.callback(fleet.close)
        here = World(size, broker, database, fleet, provider, qdrant, folder, say, budgets(seeds, size), f"http://127.0.0.1:{port}")
        fleet.write_policy(f"defaults: {json.dumps(RULES)}\nbudgets: {json.dumps(here.budgets)}\n")  # YAML takes JSON as it is
        provider.start()
        qdrant.start()
        began = time.monotonic()
        for name in PROCESSES:
            _launch(here, name)
        for name in PROCESSES:
            fleet.processes[name].until_ready()
        here.start_s = time.monotonic() - began
        yield here


def budgets(seeds: Sequence[int], size: Size) -> list[dict[str, Any]]:
    """Each storm has tenants of its own, and so money of its own: for about half of what they ask."""
    own = [
        budget
        for seed in seeds
        for budget in (
            {"scope": {"tenant": f"bolt-{seed}"}, "window": "day", "limit_usd": size.records * 3e-5},
            {"scope": {"tenant": f"coil-{seed}"}, "window": "minute", "limit_tokens": 800 + 2 * size.records},
        )
    ]
    return [*own, {"scope": {"user": "*"}, "window": "month", "limit_usd": 100}, {"scope": {}, "window": "month", "limit_usd": 1_000}]


async def storm(here: World, seed: int) -> None:
    """Send the load of this seed, carry out its schedule, wait until the fleet is steady, and write down what was done and seen."""
    here.hands.clear()
    size = here.size
    sent, blows = load.make(seed, size.records), schedule.make(seed, size.seconds, size.gap_s)
    with (here.folder / "sent.jsonl").open("a") as log:
        async with _watched(here):
            await asyncio.gather(_send(here, sent, size.seconds, log), *(_strike(here, blow) for blow in blows))
            here.provider.mend()
            calm_at = time.monotonic()
            here.say("the last blow is over")
            steady_s = await _steady(here, calm_at)
    limit_s = STEADY_S * max(1, here.start_s / START_S)
    if steady_s is None or steady_s > limit_s:
        here.seen.append(f"not steady {limit_s:.0f} s after the last blow, but {f'{steady_s:.0f} s' if steady_s else 'never'}")
    (here.folder / "blows.jsonl").write_text("".join(json.dumps(blow) + "\n" for blow in here.blows))
    facts = {
        "bootstrap": here.broker.bootstrap,
        "prefix": here.fleet.prefix,
        "clock_s": time.time() - time.monotonic(),
        "partitions": here.fleet.partitions,
        "ledger": here.fleet.ledger_url,
        "timeout_s": CALL_TIMEOUT_S,
        "budgets": here.budgets,
        "prices": PRICES,
        "max_tokens": MOST_TOKENS,
        "steady_s": steady_s,
        "start_s": here.start_s,
        "seen": here.seen,
    }
    (here.folder / "run.json").write_text(json.dumps(facts, indent=1))


async def _send(here: World, sent: list[load.Sent], seconds: float, log: TextIO) -> None:
    """Each record until the broker has it, spread over the run's seconds. A record whose confirmation was lost is sent again."""
    began = time.monotonic()
    dated: dict[load.Sent, bytes | None] = {}  # a record that is sent twice has one deadline, or it would be another body
    async with _producer(here) as producer:
        for i, record in enumerate(sent):
            await asyncio.sleep(max(0, began + seconds * i / len(sent) - time.monotonic()))
            if record not in dated:
                dated[record] = _dated(record)
            value = dated[record]
            for _ in range(20):
                try:
                    where = await producer.send_and_wait(
                        here.fleet.prefix + record.topic, value, key=record.key, headers=list(record.headers)
                    )
                    break
                except KafkaError:
                    await asyncio.sleep(0.5)
            else:
                raise AssertionError("the broker takes no records")
            told = {
                "topic": record.topic,
                "partition": where.partition,
                "offset": where.offset,
                "at": where.timestamp / 1000,
                "key": _b64(record.key),
                "value": _b64(value),
                "headers": [[name, _b64(value)] for name, value in record.headers],
                "uncacheable": record.uncacheable,
            }
            log.write(json.dumps(told) + "\n")


def _dated(record: load.Sent) -> bytes | None:
    if record.within_s is None:
        return record.value
    deadline = datetime.now(UTC) + timedelta(seconds=record.within_s)
    return json.dumps(json.loads(record.value or b"") | {"deadline_at": deadline.isoformat(timespec="milliseconds")}).encode()


@asynccontextmanager
async def _producer(here: World) -> AsyncIterator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(
        bootstrap_servers=here.broker.bootstrap, enable_idempotence=here.broker.idempotence, max_request_size=4 << 20, linger_ms=5
    )
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


def _b64(value: bytes | None) -> str | None:
    return None if value is None else base64.b64encode(value).decode()


# ---- blows


async def _strike(here: World, blow: Blow) -> None:
    await asyncio.sleep(blow.at_s)
    target = blow.target or blow.kind.partition("_")[0]
    async with here.hands[target]:
        pid = here.fleet.processes[blow.target].pid if blow.target and here.fleet.running(blow.target) else None
        told: dict[str, Any] = {"kind": blow.kind, "target": blow.target, "pid": pid, "from": time.monotonic(), "to": None}
        here.blows.append(told)
        here.say(f"{blow.kind} {blow.target or ''} {blow.lasts_s:.1f} s")
        if blow.target is not None:
            await _at_stage(here, blow.kind, blow.target, blow.lasts_s)
        else:
            await _at_server(here, blow.kind, blow.lasts_s)
        told["to"] = time.monotonic()


async def _at_stage(here: World, kind: str, name: str, lasts_s: float) -> None:
    process = here.fleet.processes[name]
    if not process.running:
        return
    match kind:
        case "kill":
            here.launched[name] = False
            await asyncio.to_thread(process.kill)
        case "term":
            ready = here.launched[name]  # before that nobody listens to it
            here.launched[name] = False
            code = await asyncio.to_thread(here.fleet.stop, name)
            if code != 0 and ready:
                here.seen.append(f"{name} ended with {code} after SIGTERM")
        case "freeze" | "coma":
            process.freeze()
            await asyncio.sleep(lasts_s)
            process.thaw()


async def _at_server(here: World, kind: str, lasts_s: float) -> None:
    match kind.partition("_"):
        case ("broker" | "database" | "qdrant" as name, _, how):
            machines = {"broker": here.broker.machine, "database": here.database, "qdrant": here.qdrant}
            await _machine(machines[name], how, lasts_s)
        case _:
            facts = {"retry_after": 1} if kind == "rate_limit" else {"seconds": CALL_TIMEOUT_S + 2} if kind == "hang" else {}
            await asyncio.to_thread(here.provider.fault, kind, times=None, **facts)
            await asyncio.sleep(lasts_s or 0.3)
            await asyncio.to_thread(here.provider.mend)


async def _machine(machine: Any, how: str, lasts_s: float) -> None:
    if how == "freeze":
        machine.freeze()
        await asyncio.sleep(lasts_s)
        machine.thaw()
    else:
        await asyncio.to_thread(machine.crash if isinstance(machine, Postgres) else machine.kill)
        await asyncio.sleep(lasts_s)
        await asyncio.to_thread(machine.start)


# ---- standing by


@asynccontextmanager
async def _watched(here: World) -> AsyncIterator[None]:
    """Meanwhile, whoever has ended is started again."""
    watching = asyncio.create_task(_watch(here))
    try:
        yield
    finally:
        if watching.done():
            watching.result()
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching


async def _watch(here: World) -> None:
    while True:
        for name in list(here.launched):
            if here.hands[name].locked():
                continue
            if here.fleet.running(name):
                if not here.launched[name]:
                    here.launched[name] = (await asyncio.to_thread(health, here.fleet.ports[name]))[0] == 200
                continue
            if here.launched[name]:
                here.seen.append(f"{name} ended by itself")
                here.say(here.seen[-1])
            here.launched[name] = False
            await asyncio.to_thread(_launch, here, name)
        await asyncio.sleep(0.2)


async def _steady(here: World, since: float) -> float | None:
    """Seconds from `since` until every process is ready and has worked on all there is; None: not within the patience."""
    async with Topics(here.fleet) as topics:
        while time.monotonic() - since < PATIENCE_S:
            try:
                ready = [(await asyncio.to_thread(health, port))[0] == 200 for port in here.fleet.ports.values()]
                if all(ready) and await _idle(here, topics):
                    return time.monotonic() - since
            except KafkaError:
                pass
            await asyncio.sleep(0.5)
    return None


async def _idle(here: World, topics: Topics) -> bool:
    behind = [await topics.behind(READS), await topics.behind(READS, ".bulk"), await topics.behind(DELAYED)]
    return not any(behind)


def _launch(here: World, name: str) -> None:
    settings: dict[str, Any] = {
        "qdrant__url": here.qdrant_url,
        "qdrant__timeout_ms": 300,  # of a lookup; within the default's thirty a starved machine would never be served by the cache
        "call__timeout_s": CALL_TIMEOUT_S,
        "call__drain_s": CALL_TIMEOUT_S + 5,
        "call__window": WINDOW,
    }
    here.fleet.launch(name, lane="bulk" if name == "all-bulk" else "interactive", **settings)
