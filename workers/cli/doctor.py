"""`scrimp doctor`: look at everything the fleet needs, change nothing, and say of each finding what to do. Exit 1 if something is wrong."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from workers.policy import Policy
    from workers.settings import Settings

OURS = "the one that ships"


@dataclass(frozen=True, slots=True)
class Finding:
    about: str
    ok: bool
    text: str
    advice: str = ""
    """What to do: about a problem, or about what is well as it is and could be more (a note)."""

    @property
    def mark(self) -> str:
        return "PROBLEM" if not self.ok else "note   " if self.advice else "ok     "


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Check settings, policy, keys, Kafka, topics, ledger, Qdrant, the encoder and laptop mode; say what to do about each finding.

    Example: scrimp doctor
    """
    findings = asyncio.run(examine())
    if as_json:
        print(json.dumps([asdict(f) for f in findings], indent=2))
    else:
        for f in findings:
            print(f"{f.mark} {f.about}: {f.text}" + (f"\n        -> {f.advice}" if f.advice else ""))
    if not all(f.ok for f in findings):
        raise typer.Exit(1)


async def examine() -> list[Finding]:
    """All findings. Wrong settings end it at once: nothing else could be looked at."""
    from workers import policy
    from workers.settings import SettingsError, load

    try:
        settings = load()
    except SettingsError as e:
        return [Finding("settings", False, str(e), "correct it in the environment or in .env")]
    findings = [Finding("settings", True, "every SCRIMP_ variable is known and fits")]
    try:
        rules = policy.load(settings.policy_file)
    except policy.PolicyError as e:
        rules = None
        findings.append(Finding("policy", False, str(e), "correct the file that SCRIMP_POLICY_FILE names"))
    parts = await asyncio.to_thread(laptop)
    if rules is not None:
        findings.append(Finding("policy", True, str(settings.policy_file or OURS)))
        # Nobody has chosen the models of the shipped policy, and laptop mode does without them.
        chosen = settings.policy_file is not None or any(part.advice for part in parts)
        findings += models(rules, keys_needed=chosen) + tenants(rules)
    for look in (partial(_kafka, rules), _ledger, _qdrant, _encoder):
        findings += await _patiently(look, settings)
    return findings + parts


async def _patiently(look: Callable[[Settings], Awaitable[list[Finding]]], settings: Settings) -> list[Finding]:
    try:
        return await asyncio.wait_for(look(settings), 30)
    except TimeoutError:
        name = look.func.__name__ if isinstance(look, partial) else look.__name__
        return [Finding(name.strip("_"), False, "no answer within 30 s", "look at its address, and at what stands between")]


def models(policy: Policy, *, keys_needed: bool = True) -> list[Finding]:
    """Whether each model that a tier names has its key and a price. A missing key is a note where `keys_needed` is not so."""
    from workers.ledger import prices
    from workers.settings import secret

    found = []
    for name in dict.fromkeys(n for tier in policy.tiers.values() for n in tier):
        model = policy.models[name]
        if model.api_key_env is not None and not secret(model.api_key_env):
            found.append(
                Finding(
                    f"model {name}",
                    not keys_needed,
                    f"{model.litellm}: its key is missing",
                    f"set {model.api_key_env}; `scrimp up` with its local model needs no key",
                )
            )
        elif model.api_key_env is None and model.provider == "openai" and model.api_base is None:
            advice = f"name the variable that holds it (models.{name}.api_key_env)"
            found.append(Finding(f"model {name}", False, f"{model.litellm}: the policy names no key, and OpenAI asks for one", advice))
        elif prices.rates(model) is None:
            advice = f"give it a price in the policy (models.{name}.price)"
            found.append(Finding(f"model {name}", False, f"{model.litellm}: no price is known", advice))
        else:
            found.append(Finding(f"model {name}", True, model.litellm))
    return found


def tenants(policy: Policy) -> list[Finding]:
    """Whether the fleet can check the signature of each tenant that must sign."""
    from workers.policy import Tenant
    from workers.settings import secret

    found = []
    for name, entry in policy.tenants.items():
        if isinstance(entry, Tenant) and entry.hmac_env is not None:
            there = bool(secret(entry.hmac_env))
            text = "its signatures can be checked" if there else "the key of its signatures is missing: all its requests are rejected"
            found.append(Finding(f"tenant {name}", there, text, "" if there else f"set {entry.hmac_env}"))
    return found


def laptop() -> list[Finding]:
    """What `scrimp up` and `scrimp demo` need beside the fleet. Notes only: a fleet does without."""
    from workers.encoder.bundled import wheels
    from workers.encoder.errors import EncoderMissing
    from workers.laptop.broker import installed
    from workers.laptop.model import weights
    from workers.laptop.process import LaptopError

    found = []
    looks: tuple[tuple[str, Callable[[], object]], ...] = (("broker", installed), ("model", weights), ("encoder", wheels))
    for name, look in looks:
        try:
            look()
        except (LaptopError, EncoderMissing) as e:
            what, _, advice = str(e).partition(": ")
            found.append(Finding(f"laptop {name}", True, what, f"for `scrimp up` and `scrimp demo`: {advice}"))
        else:
            found.append(Finding(f"laptop {name}", True, "installed"))
    return found


async def _kafka(policy: Policy | None, settings: Settings) -> list[Finding]:
    from workers.outcomes import Unavailable
    from workers.runtime import provision
    from workers.settings import SettingsError

    server = settings.kafka.bootstrap_servers
    try:
        differences = await provision.check(settings.kafka, policy)
    except SettingsError as e:
        return [Finding("Kafka", False, str(e), "correct it in the environment or in .env (docs/kafka-security.md)")]
    except Unavailable as e:
        return [Finding("Kafka", False, str(e), "start it (`scrimp up` brings one), or set SCRIMP_KAFKA__BOOTSTRAP_SERVERS")]
    topics = Finding("topics", True, "all there")
    if differences:
        topics = Finding(
            "topics", False, "; ".join(differences), "run `scrimp topics apply`; what exists is changed with your broker's own tools"
        )
    return [Finding("Kafka", True, f"{server} answers"), topics]


async def _ledger(settings: Settings) -> list[Finding]:
    from workers.ledger import migrate
    from workers.outcomes import Unavailable

    try:
        await migrate.check(settings.ledger.url)
    except Unavailable as e:
        return [Finding("ledger", False, str(e), "look at SCRIMP_LEDGER__URL and whether the database runs")]
    except migrate.LedgerNotReady as e:
        return [Finding("ledger", False, str(e), "run `scrimp ledger upgrade`")]
    return [Finding("ledger", True, "reachable and up to date")]


async def _qdrant(settings: Settings) -> list[Finding]:
    if not settings.qdrant.url:
        where = f"at {settings.qdrant.path}" if settings.qdrant.path else "in memory"
        return [Finding("Qdrant", True, f"embedded, {where}: for one process; a fleet sets SCRIMP_QDRANT__URL")]
    from qdrant_client import AsyncQdrantClient
    from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

    client = AsyncQdrantClient(url=settings.qdrant.url, api_key=settings.qdrant.api_key.get_secret_value() or None, timeout=5)
    try:
        await client.get_collections()
    except (ResponseHandlingException, UnexpectedResponse) as e:
        advice = "look at SCRIMP_QDRANT__URL and SCRIMP_QDRANT__API_KEY; without Qdrant the fleet goes on, and pays for every answer"
        return [Finding("Qdrant", False, f"{settings.qdrant.url}: {type(e).__name__}", advice)]
    finally:
        await client.close()
    return [Finding("Qdrant", True, f"{settings.qdrant.url} answers")]


async def _encoder(settings: Settings) -> list[Finding]:
    from workers.encoder.encoder import open_encoder
    from workers.encoder.errors import EncoderMissing

    given = settings.encoder
    if given.path is None:
        hint = "it is downloaded when `cache` first starts; without a model hub, set SCRIMP_ENCODER__PATH"
        return [Finding("encoder", True, f"{given.model} from the model hub, not looked at: {hint}")]
    try:
        encoder = await asyncio.to_thread(open_encoder, given.path, given.model, given.threads)
    except EncoderMissing as e:
        return [Finding("encoder", False, str(e), "set SCRIMP_ENCODER__PATH to a directory with an ONNX model and its tokenizer")]
    return [Finding("encoder", True, f"{encoder.name}, {encoder.dim} dimensions")]
