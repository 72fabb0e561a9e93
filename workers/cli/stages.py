"""One builder a stage: from settings and shared clients to what an `Intake` delivers to. Only what the asked stages need is opened.

What cannot be reached raises `Unavailable`, what is set wrong raises `SettingsError`, both before the first record is read.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schemas import Classified, Compressed, Facts, Finished, Missed
from schemas.types import Lane, utc_now
from workers.attribute.alerts import make_alerts, make_refusals
from workers.attribute.attribute import Observed, failed_internal, make_attribute, make_sweep
from workers.classify.admit import admit
from workers.classify.classify import make_classify
from workers.classify.intake import Asked, read
from workers.classify.route import Thresholds
from workers.compress.compress import make_compress
from workers.encoder import tokens
from workers.ledger import migrate, prices
from workers.ledger.coalesce import Coalescer
from workers.ledger.ledger import Ledger
from workers.outcomes import Message, Outcome, Unavailable
from workers.pipeline import STAGES, Stage, StageName
from workers.policy import PolicyFile
from workers.runtime import metrics
from workers.runtime.delivery import Decode, Delivery, Work, decoder
from workers.runtime.intake import Deliver, Record
from workers.runtime.probes import Probe
from workers.runtime.producer import Outgoing, Producer, Unpublishable
from workers.runtime.redeliver import make_redeliver
from workers.settings import Settings, SettingsError, secret

if TYPE_CHECKING:
    from workers.cache.store import Store
    from workers.call.rest import Rests

log = logging.getLogger("scrimp")

EXPIRY_SWEEP_S = 600.0
"""Between two clean-ups of the cache."""
PURGE_S = 3_600.0
"""Between two purges of the ledger."""
SPIKES_S = 60.0
"""Between two looks for features that spend more than usual."""

OTHER = "other"
"""The label of every feature that the policy does not name."""

Reach = Callable[[str, Callable[[], Awaitable[object]]], Awaitable[None]]


async def once(_name: str, start: Callable[[], Awaitable[object]]) -> None:
    """The `Reach` that does not wait."""
    await start()


@dataclass
class Parts:
    """What the stages of this process share. Only what they need is opened."""

    settings: Settings
    policy: PolicyFile
    producer: Producer
    encoder_path: Path | None = None
    upgrades: bool = False
    """Migrate the ledger, which a single stage of a fleet does not."""
    reach: Reach = once
    """Start what may be away at this moment."""
    probes: dict[str, Probe] = field(default_factory=dict)
    optional: dict[str, Probe] = field(default_factory=dict)
    """Of what the stages do without, at a price."""
    ledger: Ledger | None = None
    called_at: float = 0.0
    """When a provider call last ended, on the monotonic clock. A request may take several, each as long as its time-out."""
    background: list[Callable[[], Coroutine[Any, Any, None]]] = field(default_factory=list)

    def delivery(self, stage: Stage, lane: Lane, decode: Decode, work: Work, **options: object) -> Deliver:  # type: ignore[type-arg]
        prefix = self.settings.kafka.topic_prefix
        return Delivery(stage, lane, decode=decode, work=work, producer=self.producer, topic_prefix=prefix, **options).deliver  # type: ignore[arg-type]


async def build(parts: Parts, work: Sequence[tuple[StageName, Lane]], stack: AsyncExitStack) -> dict[tuple[StageName, Lane], Deliver]:
    """What each stage of each lane delivers to. `stack` closes what was opened."""
    names = {name for name, _ in work}
    if names & {"call", "attribute"}:
        await _open_ledger(parts, stack)
    built: dict[tuple[StageName, Lane], Deliver] = {}
    if names & {"cache", "remember"}:
        built |= await _cache_and_remember(parts, work, stack)
    if "call" in names:
        built |= await _call(parts, [lane for name, lane in work if name == "call"], stack)
    for name, lane in work:
        match name:
            case "classify":
                built[name, lane] = _classify(parts, lane)
            case "compress":
                built[name, lane] = _compress(parts, lane)
            case "attribute":
                built[name, lane] = _attribute(parts, lane)
            case "redeliver":
                built[name, lane] = make_redeliver(parts.producer, parts.settings.kafka.topic_prefix)
    if "attribute" in names:
        parts.background += [partial(_sweep, parts), partial(_alert, parts), partial(_purge, parts)]
    return built


async def _open_ledger(parts: Parts, stack: AsyncExitStack) -> None:
    s = parts.settings.ledger
    await parts.reach("ledger", partial(migrate.upgrade if parts.upgrades else migrate.check, s.url))
    ledger = Ledger(
        s.url, heartbeat_s=s.heartbeat_s, stale_s=s.stale_s, keep_days=s.keep_days, pool_size=s.pool_size, timeout_s=s.timeout_s
    )
    await parts.reach("ledger", ledger.start)
    stack.push_async_callback(ledger.close)
    parts.ledger = ledger
    parts.probes["ledger"] = ledger.check


def _classify(parts: Parts, lane: Lane) -> Deliver:
    s = parts.settings.classify
    thresholds = Thresholds(
        short_words=s.short_words,
        short_context_tokens=s.short_context_tokens,
        long_context_tokens=s.long_context_tokens,
        signals=s.signals,
    )

    def decode(record: Record, trace_id: str) -> Asked | Outcome:
        asked = read(record.value, lane=lane, timestamp_ms=record.timestamp, now=utc_now(), trace_id=trace_id)
        return admit(asked, record.value or b"", record.headers, parts.policy(), secret) if isinstance(asked, Asked) else asked

    stage = make_classify(policy=parts.policy, thresholds=thresholds, more_than=tokens.more_than)
    return parts.delivery(STAGES["classify"], lane, decode, stage)


async def _cache_and_remember(
    parts: Parts, work: Sequence[tuple[StageName, Lane]], stack: AsyncExitStack
) -> dict[tuple[StageName, Lane], Deliver]:
    # The encoder brings onnxruntime along: only the cache stage imports it.
    from workers.cache.cache import make_cache
    from workers.cache.qdrant import StoreMisfit
    from workers.cache.remember import make_remember
    from workers.cache.store import open_store
    from workers.encoder.encoder import open_encoder

    s = parts.settings
    encoder = await asyncio.to_thread(open_encoder, parts.encoder_path or s.encoder.path, s.encoder.model, s.encoder.threads)

    def observe(event: str, reason: str) -> None:
        metrics.CACHE.labels(event, reason).inc()

    try:
        store = await open_store(
            url=s.qdrant.url,
            api_key=s.qdrant.api_key.get_secret_value(),
            path=s.qdrant.path,
            collection=s.qdrant.collection,
            dim=encoder.dim,
            timeout_s=s.qdrant.timeout_ms / 1000,
            observe=observe,
        )
    except StoreMisfit as e:
        raise SettingsError(str(e)) from e
    stack.push_async_callback(store.close)
    parts.optional["qdrant"] = partial(_qdrant, store)
    parts.background.append(partial(_forget_expired, store))

    cache = make_cache(encode=encoder.encode, encoder_name=encoder.name, store=store, now=utc_now, observe=observe)
    remember = make_remember(encode=encoder.encode, encoder_name=encoder.name, store=store, now=utc_now, observe=observe)
    built: dict[tuple[StageName, Lane], Deliver] = {}
    for name, lane in work:
        if name == "cache":
            built[name, lane] = parts.delivery(STAGES[name], lane, decoder(Classified), cache)
        if name == "remember" or (name == "cache" and not s.qdrant.url):
            built["remember", lane] = parts.delivery(STAGES["remember"], lane, decoder(Finished), remember)
    return built


async def _qdrant(store: Store) -> None:
    from workers.cache.qdrant import StoreMisfit

    try:
        await store.check()
    except StoreMisfit as e:
        raise Unavailable("qdrant", str(e)) from e


async def _forget_expired(store: Store) -> None:
    """An expired entry is never served; this frees its room. Qdrant has no expiry of its own."""
    while True:
        await asyncio.sleep(EXPIRY_SWEEP_S)
        await store.sweep(utc_now())


def _compress(parts: Parts, lane: Lane) -> Deliver:
    def observe(event: str, reason: str) -> None:
        metrics.COMPRESS.labels(event, reason).inc()

    stage = make_compress(count=tokens.count, short_tokens=parts.settings.compress.short_tokens, observe=observe)
    return parts.delivery(STAGES["compress"], lane, decoder(Missed), stage)


async def _call(parts: Parts, lanes: Sequence[Lane], stack: AsyncExitStack) -> dict[tuple[StageName, Lane], Deliver]:
    # LiteLLM takes seconds and 188 MB to import: only this stage does, in a thread, before the first record.
    from workers.call.call import make_call
    from workers.call.fairness import Turns, make_fair
    from workers.call.kept import Kept
    from workers.call.provider import open_client
    from workers.call.rest import Rests
    from workers.call.slots import Slots

    assert parts.ledger is not None
    client = await asyncio.to_thread(open_client)
    stack.push_async_callback(client.close)
    rests = Rests()
    parts.optional["provider"] = partial(_providers, rests)
    kept = Kept(Coalescer(parts.ledger.settle), refused=metrics.SETTLEMENTS_REFUSED.inc)
    stack.push_async_callback(kept.close)

    def observe(model: str, outcome: str) -> None:
        metrics.ATTEMPTS.labels(model, outcome).inc()
        parts.called_at = time.monotonic()

    call = make_call(
        open=Coalescer(parts.ledger.open),
        kept=kept,
        rests=rests,
        complete=client.complete,
        policy=parts.policy,
        rates=prices.rates,
        count=tokens.count,
        may_call=lambda: parts.ledger is not None and parts.ledger.fresh,
        key=secret,
        timeout_s=parts.settings.call.timeout_s,
        slots={lane: Slots(parts.settings.call.window) for lane in lanes},
        observe=observe,
        overran=lambda model, why: metrics.OVERRUNS.labels(model, why).inc(),
    )

    def work(lane: Lane) -> Work[Compressed]:
        turns = Turns(parts.settings.call.window)  # a window is a lane's, and so are its turns: bulk holds nobody up
        metrics.WAITING_TURN.labels(lane).set_function(lambda: turns.waiting)
        fair = make_fair(call, turns, parts.policy)

        async def one(events: Sequence[Compressed]) -> list[Outcome]:
            return [await fair(event) for event in events]

        return one

    return {("call", lane): parts.delivery(STAGES["call"], lane, decoder(Compressed), work(lane)) for lane in lanes}


async def _providers(rests: Rests) -> None:
    if down := rests.down():
        raise Unavailable("provider", f"{', '.join(down)}: the last calls have failed")


def _attribute(parts: Parts, lane: Lane) -> Deliver:
    assert parts.ledger is not None
    stage = make_attribute(
        ledger=parts.ledger,
        policy=parts.policy,
        rates=prices.rates,
        price_map=prices.installed().name,
        now=utc_now,
        observe=lambda seen: _observe(seen, parts.policy().features),
    )

    refusals = make_refusals(parts.ledger.watch, parts.policy)

    async def work(events: Sequence[Finished]) -> list[Outcome]:
        outcomes = await stage(events)
        await refusals(events)
        return outcomes

    async def bury(facts: Facts) -> Sequence[Outcome]:
        return await stage([failed_internal(facts)])

    return parts.delivery(STAGES["attribute"], lane, decoder(Finished), work, bury=bury)


def _observe(seen: Observed, named: Collection[str]) -> None:
    """`named` are the features that become labels: users make up the others, and each would be a time series for ever."""
    feature, model = seen.feature if seen.feature in named else OTHER, seen.model or ""
    metrics.REQUESTS.labels(seen.lane, feature, seen.status, seen.tier or "", seen.source or "").inc()
    metrics.REQUEST_SECONDS.labels(seen.lane, seen.status).observe(seen.seconds)
    if seen.reason is not None:
        metrics.REFUSED.labels(seen.lane, feature, seen.status, seen.reason).inc()
    metrics.UNCONFIRMED_USD.labels(seen.lane, feature).inc(float(seen.unconfirmed))
    metrics.COST_USD.labels(seen.lane, feature, model).inc(float(seen.cost))
    metrics.BASELINE_USD.labels(seen.lane, feature).inc(float(seen.baseline))
    for lever in ("routing", "cache", "compression", "batch"):
        metrics.SAVED_USD.labels(seen.lane, lever).inc(float(getattr(seen.saved, lever)))
    if seen.price_unknown:
        metrics.PRICE_UNKNOWN.labels(model).inc()


async def _publish(parts: Parts, messages: Sequence[Message]) -> None:
    prefix = parts.settings.kafka.topic_prefix
    await parts.producer.send([Outgoing(prefix + m.topic.name, m.key.encode(), _bytes(m)) for m in messages])


async def _sweep(parts: Parts) -> None:
    """Every few seconds: what dead workers left behind, and cost records that changed after their request had ended."""
    assert parts.ledger is not None
    sweep = make_sweep(parts.ledger, partial(_publish, parts))

    async def once() -> None:
        metrics.REVISIONS.inc(await sweep())

    await _rounds(parts, "sweep", once)


async def _alert(parts: Parts) -> None:
    """Every few seconds: what a person should look at. Apart from the sweep, since what only informs must not hold up the books."""
    assert parts.ledger is not None
    alerts = make_alerts(parts.ledger.watch, parts.policy, prices.rates, partial(_publish, parts), spikes_every_s=SPIKES_S)

    async def once() -> None:
        for alert in await alerts():
            metrics.ALERTS.labels(alert.kind).inc()

    await _rounds(parts, "alerts", once)


async def _rounds(parts: Parts, what: str, once: Callable[[], Awaitable[None]]) -> None:
    """Neither stops the answers: what could not go out is found again by the next round."""
    refused = metrics.ROUNDS_REFUSED.labels(what)  # there with 0: an increase from nothing is none to Prometheus
    while True:
        await asyncio.sleep(parts.settings.attribute.sweep_s)
        try:
            await once()
        except Unavailable as e:
            log.warning("%s skipped: %s", what, e)
        except Unpublishable as e:
            refused.inc()
            log.error("%s: the broker refuses them, they are tried again: %s", what, e)


async def _purge(parts: Parts) -> None:
    """Answers and responses are kept for a time (`SCRIMP_LEDGER__KEEP_DAYS`); the rows and the books stay."""
    assert parts.ledger is not None
    while True:
        try:
            if purged := await parts.ledger.purge():
                log.info("purged the answers of %d requests", purged)
        except Unavailable as e:
            log.warning("purge skipped: %s", e)
        await asyncio.sleep(PURGE_S)


def _bytes(message: Message) -> bytes:
    return message.value if isinstance(message.value, bytes) else message.value.model_dump_json().encode()
