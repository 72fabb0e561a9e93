"""The business policy: tiers, models, prices, features, budgets, tenants. A YAML file, typed and validated here.

`load` raises `PolicyError` with one line that names the key and says what would be right. `PolicyFile` keeps the last good policy when
the file goes bad while the fleet runs; whoever polls it counts the refusal.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from decimal import Decimal
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from schemas.types import TIERS, Tier

SHIPPED = "policy.yaml"
DIMENSIONS = ("tenant", "feature", "user", "experiment")


class PolicyError(ValueError):
    """The policy file cannot be used. The text is one line: the key, what is wrong with it, what would be right."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _decimal(value: Any) -> Any:
    # YAML gives floats; their shortest text is what the author typed.
    return Decimal(str(value)) if isinstance(value, int | float) and not isinstance(value, bool) else value


Number = Annotated[Decimal, BeforeValidator(_decimal), Field(allow_inf_nan=False)]
Ratio = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


def _per_million(value: Decimal) -> Decimal:
    if not 0 <= value <= 10_000:
        raise ValueError("must be dollars per million tokens, from 0 to 10000")
    if 0 < value < Decimal("0.0001"):
        raise ValueError(f"{value} looks like a price per token; write dollars per million tokens")
    return value


Rate = Annotated[Decimal, BeforeValidator(_decimal), Field(allow_inf_nan=False)]


class Price(_Part):
    """Dollars per million tokens. A kind left out costs what input costs (cached_input, cache_write)."""

    input: Rate
    output: Rate
    cached_input: Rate | None = None
    cache_write: Rate | None = None

    @field_validator("input", "output", "cached_input", "cache_write")
    @classmethod
    def _sane(cls, value: Decimal | None) -> Decimal | None:
        return None if value is None else _per_million(value)


class Model(_Part):
    """One model as LiteLLM calls it (`provider/name`)."""

    litellm: str = Field(pattern=r"^[^/\s]+/\S+$")
    api_base: str | None = None
    api_key_env: str | None = None
    context: int = Field(gt=0)
    """Tokens of input and output together."""
    price: Price | None = None
    """None: LiteLLM's price map."""
    token_margin: float = Field(1.5, ge=1, le=4)
    """Upper estimate of the provider's count over ours: LiteLLM counted 977 where Anthropic billed 1,452."""

    @property
    def provider(self) -> str:
        return self.litellm.partition("/")[0]


class CachePolicy(_Part):
    semantic: bool = True
    candidate_threshold: float = Field(0.90, ge=0.88, le=0.95)
    serve_threshold: float = Field(0.95, ge=0.88, le=1)
    ttl_s: int = Field(86_400, ge=0)
    share: Literal["user", "tenant", "auto"] = "auto"

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.serve_threshold < self.candidate_threshold:
            raise ValueError("serve_threshold must not be below candidate_threshold")
        return self


class CompressPolicy(_Part):
    rate: float = Field(0.5, gt=0, le=1)
    """Share of a document's tokens to keep; 1 switches compression off."""


class AuditPolicy(_Part):
    rate: Ratio = 0.01


def _by_tier(light: int, standard: int, heavy: int) -> dict[Tier, int]:
    return {"light": light, "standard": standard, "heavy": heavy}


class Rules(_Part):
    """How the requests of a feature are treated. `defaults` gives all of it, a feature overrides what it names."""

    max_tokens: dict[Tier, Annotated[int, Field(ge=1)]] = _by_tier(300, 800, 2000)
    max_tokens_cap: dict[Tier, Annotated[int, Field(ge=1)]] = _by_tier(1000, 4000, 8000)
    max_attempts: int = Field(6, ge=1, le=50)
    cascade: bool = True
    cache: CachePolicy = CachePolicy()
    compress: CompressPolicy = CompressPolicy()
    audit: AuditPolicy = AuditPolicy()
    instruction: str | None = Field(None, max_length=500)
    """Added to the system message, e.g. "Answer in one paragraph or less."."""
    stop: tuple[str, ...] = Field((), max_length=4)

    @model_validator(mode="after")
    def _every_tier(self) -> Self:
        for name in ("max_tokens", "max_tokens_cap"):
            if missing := [t for t in TIERS if t not in getattr(self, name)]:
                raise ValueError(f"{name} must name every tier; missing: {', '.join(missing)}")
        return self


class Budget(_Part):
    scope: dict[Literal["tenant", "feature", "user", "experiment"], str]
    window: Literal["minute", "hour", "day", "month"]
    limit_usd: Number | None = Field(None, ge=0)
    limit_tokens: int | None = Field(None, ge=0)
    degrade_at: Annotated[float, Field(gt=0, le=1)] | None = None
    on_exceed: Literal["reject", "wait"] = "reject"

    @model_validator(mode="after")
    def _one_limit(self) -> Self:
        if (self.limit_usd is None) == (self.limit_tokens is None):
            raise ValueError("needs exactly one of limit_usd and limit_tokens")
        return self


class Tenant(_Part):
    hmac_env: str | None = None
    responses_topic: str | None = Field(None, pattern=r"^[a-zA-Z0-9._-]{1,249}$")
    max_in_flight: int | None = Field(None, ge=1)


class Policy(_Part):
    models: dict[str, Model] = Field(min_length=1)
    tiers: dict[Tier, tuple[str, ...]]
    reference: str
    timezone: str = "UTC"
    defaults: Rules = Rules()
    features: dict[str, dict[str, Any]] = {}
    budgets: tuple[Budget, ...] = ()
    tenants: dict[str, Tenant | Literal["allow", "reject"]] = {"unknown": "allow"}
    digest: str = ""
    """SHA-256 of the file, for logs and metrics."""

    @field_validator("defaults", mode="before")
    @classmethod
    def _over_the_built_in(cls, value: Any) -> Any:
        return _merge(Rules().model_dump(), value) if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _refers_to_itself(self) -> Self:
        for tier, names in self.tiers.items():
            if unknown := [n for n in names if n not in self.models]:
                raise ValueError(f"tiers.{tier}: no such model: {', '.join(unknown)}; known: {', '.join(self.models)}")
        if not any(self.tiers.values()):
            raise ValueError("tiers: at least one tier must name a model")
        if self.reference not in self.models:
            raise ValueError(f"reference: no such model: {self.reference}; known: {', '.join(self.models)}")
        try:
            ZoneInfo(self.timezone)
        except (ZoneInfoNotFoundError, ValueError) as e:
            raise ValueError(f"timezone: {self.timezone!r} is not an IANA name such as Europe/Berlin") from e
        unknown_tenants = self.tenants.get("unknown")
        if isinstance(unknown_tenants, Tenant):
            raise ValueError("tenants.unknown must be allow or reject")
        for name, tenant in self.tenants.items():
            if name != "unknown" and not isinstance(tenant, Tenant):
                raise ValueError(f"tenants.{name} must be a mapping such as {{max_in_flight: 8}}")
        for feature in self.features:
            self.rules(feature)
        return self

    def rules(self, feature: str) -> Rules:
        """The rules of a feature: the defaults, with what the policy says of the feature laid over them."""
        return _rules(self, feature) if feature in self.features else self.defaults

    def tenant(self, name: str) -> Tenant | None:
        """The tenant's own entry; None when it is not allowed in."""
        entry = self.tenants.get(name) if name != "unknown" else None
        if isinstance(entry, Tenant):
            return entry
        unknown = self.tenants.get("unknown", "reject" if self.tenants else "allow")
        return Tenant() if unknown == "allow" else None

    def __hash__(self) -> int:
        return id(self)


@lru_cache(maxsize=1024)
def _rules(policy: Policy, feature: str) -> Rules:
    try:
        return Rules.model_validate(_merge(policy.defaults.model_dump(), policy.features[feature]))
    except ValidationError as e:
        first = e.errors()[0]
        raise ValueError(f"features.{feature}.{'.'.join(map(str, first['loc']))}: {first['msg']}") from e


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        inside = merged.get(key)
        merged[key] = _merge(inside, value) if isinstance(inside, dict) and isinstance(value, dict) else value
    return merged


def parse(text: str, source: str) -> Policy:
    """The policy in `text`; `source` names it in errors."""
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as e:
        raise PolicyError(f"{source}: not YAML: {' '.join(str(e).split())}") from e
    if not isinstance(data, dict):
        raise PolicyError(f"{source}: must be a mapping with models, tiers and reference")
    try:
        return Policy.model_validate(data | {"digest": hashlib.sha256(text.encode()).hexdigest()})
    except ValidationError as e:
        first = e.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        told = first["msg"].removeprefix("Value error, ")
        raise PolicyError(f"{source}: {where + ': ' if where else ''}{told}") from e


def load(path: Path | None) -> Policy:
    """The policy at `path`, or the one that ships."""
    if path is None:
        return parse(resources.files("workers").joinpath(SHIPPED).read_text(), f"the shipped {SHIPPED}")
    try:
        return parse(path.read_text(), str(path))
    except OSError as e:
        raise PolicyError(f"{path}: cannot be read: {e.strerror}") from e


class PolicyFile:
    """The current policy. Call it to get it; `poll` reads the file again when its content has changed."""

    def __init__(self, path: Path | None, on_refused: Callable[[PolicyError], None]) -> None:
        self._path = path
        self._on_refused = on_refused
        self._current = load(path)
        self._refused: str | None = None

    def __call__(self) -> Policy:
        return self._current

    def poll(self) -> None:
        """Take the file's new content if it is good; keep the old policy and report once if it is not."""
        if self._path is None:
            return
        try:
            fresh = load(self._path)
        except PolicyError as e:
            if str(e) != self._refused:
                self._refused = str(e)
                self._on_refused(e)
            return
        self._refused = None
        if fresh.digest != self._current.digest:
            self._current = fresh
