"""Everything that `up` and `demo` start on one machine, in order, and stop again in reverse: broker, model, topics, ledger, all stages.

Whatever fails while it runs (a stage that must not go on, a broker or model that dies) comes out of `Running.watch`. Logs of the broker and
the model are in a temporary folder that is kept when something failed.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from schemas.types import LANES
from workers.cli.wiring import policy_file, serve
from workers.encoder.bundled import bundled
from workers.laptop import model
from workers.laptop.broker import embedded_broker, free_port
from workers.laptop.model import LocalModel, local_model
from workers.laptop.policy import over_local_model, over_provider
from workers.laptop.process import Child, first
from workers.ledger.migrate import upgrade
from workers.pipeline import STAGES
from workers.policy import PolicyFile
from workers.runtime import provision
from workers.settings import Settings, secret

KAFKA_PORT = 9092
HTTP_PORT = 8080
EMBEDDED_KAFKA = {"session_timeout_ms": 3_000, "heartbeat_interval_ms": 500}
"""The embedded broker lets a consumer join after half its session time-out, and every stage joins twice."""
LOCAL_CALL = {"window": model.SLOTS, "timeout_s": 120.0, "drain_s": 130.0}
"""A call to the local model waits in line behind others on one thread."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Running:
    settings: Settings
    """As the stages have them: with the broker, the ports and the ledger that were chosen."""
    policy: PolicyFile
    model: LocalModel | None
    """None: a paid provider serves."""
    children: tuple[Child, ...]
    stages: asyncio.Task[None]

    async def watch(self) -> None:
        """Wait for the first thing that ends by itself, and raise its error; never returns."""
        await first(self._stages(), *(child.ended() for child in self.children))

    async def _stages(self) -> None:
        await asyncio.shield(self.stages)
        raise AssertionError("the stages ended without being told to")


@asynccontextmanager
async def scratch(say: Say) -> AsyncIterator[Path]:
    """A temporary folder for logs and the like; it stays when something went wrong, and `say` tells where it is."""
    folder = Path(tempfile.mkdtemp(prefix="scrimp-"))
    try:
        yield folder
    finally:
        if isinstance(sys.exc_info()[1], Exception):
            say(f"logs: {folder}")
        else:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


@asynccontextmanager
async def laptop(settings: Settings, folder: Path, say: Say, *, provider: str | None, demo: bool) -> AsyncIterator[Running]:
    """The whole fleet in this process. The stages have their assignment when the block begins, and have drained when it ends.

    Args:
        settings: what the user set; a broker that is set is used, else an embedded one is started.
        say: takes one line of progress at a time.
        provider: a paid provider for all tiers; None: the local model, or for `up` the policy file that is set.
        demo: the demo's policy, and ports that nobody else uses.
    """
    paid = over_provider(provider, demo=demo, secret=secret) if provider is not None else None
    async with AsyncExitStack() as stack:
        children: list[Child] = []
        if not _given(settings.kafka, "bootstrap_servers"):
            settings = await _broker(settings, folder, say, stack, children)
        else:
            say(f"Kafka: {settings.kafka.bootstrap_servers}, as set")
        local = None
        if paid is not None:
            path = _write(folder, paid)
            say(f"models: {provider}, which costs money")
        elif settings.policy_file is not None and not demo:
            path = settings.policy_file
            say(f"models: as {path} says, which may cost money")
        else:
            local = await stack.enter_async_context(local_model(folder))
            children.append(local.child)
            path = _write(folder, over_local_model(local.base_url))
            settings = _unless_set(settings, "call", LOCAL_CALL)
            say(f"models: {model.TITLE} at {local.base_url}; nothing is spent")
        if not demo:
            settings = _unless_set(settings, "http", {"port": free_port(HTTP_PORT)})
        else:
            settings = settings.model_copy(update={"http": settings.http.model_copy(update={"port": 0})})
        policy = policy_file(path)
        await provision.apply(settings.kafka, policy())
        await upgrade(settings.ledger.url)
        encoder = None if _given(settings.encoder, "path") or _given(settings.encoder, "model") else bundled()
        stop, started = asyncio.Event(), asyncio.Event()
        work = [(name, lane) for name in STAGES for lane in LANES]
        stages = asyncio.ensure_future(serve(settings, work, policy=policy, stop=stop, started=started, encoder_path=encoder))
        running = Running(settings, policy, local, tuple(children), stages)
        try:
            await first(started.wait(), running.watch())
            yield running
        finally:
            stop.set()
            await stages


async def _broker(settings: Settings, folder: Path, say: Say, stack: AsyncExitStack, children: list[Child]) -> Settings:
    broker = await stack.enter_async_context(embedded_broker(free_port(KAFKA_PORT), folder))
    children.append(broker.child)
    port = broker.bootstrap.rpartition(":")[2]
    aside = (
        "" if port == str(KAFKA_PORT) else f"; {KAFKA_PORT} is taken, so set SCRIMP_KAFKA__BOOTSTRAP_SERVERS={broker.bootstrap} elsewhere"
    )
    say(f"Kafka: an embedded broker at {broker.bootstrap}, in memory{aside}")
    kafka = settings.kafka.model_copy(update={"bootstrap_servers": broker.bootstrap, "idempotence": False})
    return _unless_set(settings.model_copy(update={"kafka": kafka}), "kafka", EMBEDDED_KAFKA)


def _given(group: BaseModel, name: str) -> bool:
    """Whether the user has set it."""
    return name in group.model_fields_set


def _unless_set(settings: Settings, group: str, values: dict[str, Any]) -> Settings:
    old: BaseModel = getattr(settings, group)
    return settings.model_copy(update={group: old.model_copy(update={k: v for k, v in values.items() if not _given(old, k)})})


def _write(folder: Path, policy: str) -> Path:
    path = folder / "policy.yaml"
    path.write_text(policy)
    return path
