"""The business policy: tiers, models, prices, features, budgets, tenants. A YAML file, typed and validated here.

`load` raises `PolicyError` with one line that names the key and says what would be right. `PolicyFile` keeps the last good policy when
the file goes bad while the fleet runs; whoever polls it counts the refusal.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Callable
from decimal import Decimal
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails

from schemas.types import TIERS, Tier

SHIPPED = "policy.yaml"


class PolicyError(ValueError):
    """The policy file cannot be used. The text is one line: the key, what is wrong with it, what would be right."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, hide_input_in_errors=True)


def _decimal(value: Any) -> Any:
    # YAML gives floats; their shortest text is what the author typed.
    return Decimal(str(value)) if isinstance(value, int | float) and not isinstance(value, bool) else value


Number = Annotated[Decimal, BeforeValidator(_decimal), Field(allow_inf_nan=False)]
Ratio = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


def _per_million(value: Decimal) -> Decimal:
    if not 0 <= value <= 10_000:
        raise ValueError("must be dollars per million tokens, from 0 to 10000")
    if 0 < value < Decimal("0.001"):  # per token it would be 1000 dollars a million, more than any model asks
        raise ValueError(f"{value} looks like a price per token; write dollars per million tokens")
    return value


def _shaped(pattern: str, told: str) -> AfterValidator:
    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(told)
        return value

    return AfterValidator(check)


Named = Annotated[str, _shaped(r"[^\x00-\x1f\x7f]{1,128}", "must be '*', or 1 to 128 characters as requests write them")]
Rate = Annotated[Decimal, BeforeValidator(_decimal), Field(allow_inf_nan=False), AfterValidator(_per_million)]
Address = Annotated[str, _shaped(r"https?://[^\s/?#]+\S*", "must be http://host:port or https://host, with the path if there is one")]
Variable = Annotated[str, _shaped(r"[A-Za-z_][A-Za-z0-9_]*", "must be the name of an environment variable, never the secret itself")]


class Price(_Part):
    """Dollars per million tokens. A kind left out costs what input costs (cached_input, cache_write)."""

    input: Rate
    output: Rate
    cached_input: Rate | None = None
    """Input tokens read from the provider's prompt cache."""
    cache_write: Rate | None = None
    """Input tokens written to it."""


class Model(_Part):
    """One model as LiteLLM calls it (`provider/name`)."""

    litellm: Annotated[str, _shaped(r"[^/\s]+/\S+", "must be provider/name as LiteLLM writes it, such as openai/gpt-4o-mini")]
    """`provider/name`, as LiteLLM writes it."""
    api_base: Address | None = None
    """Where the model is served; left out: where LiteLLM finds the provider."""
    api_key_env: Variable | None = None
    """The environment variable that holds the key."""
    context: int = Field(gt=0)
    """Tokens of input and output together."""
    price: Price | None = None
    """Left out: LiteLLM's price map."""
    token_margin: float = Field(1.5, ge=1, le=4)
    """Upper estimate of the provider's token count over ours, until enough answers have been billed to learn it."""

    @property
    def provider(self) -> str:
        return self.litellm.partition("/")[0]


class CachePolicy(_Part):
    """Which stored answers may be served, and to whom."""

    semantic: bool = True
    """Also serve the answer to a question that means the same; false: only to the same question."""
    candidate_threshold: float = Field(0.90, ge=0.88, le=0.95)
    """Cosine from which a stored question is a candidate; below `serve_threshold` a verifier must agree."""
    serve_threshold: float = Field(0.95, ge=0.88, le=1)
    """Cosine from which no second check is needed."""
    ttl_s: int = Field(86_400, ge=0)
    """Age in seconds at which an answer is served no more."""
    share: Literal["user", "tenant", "auto"] = "auto"
    """Who may be served an answer: its user, its tenant, or its tenant only where any asker gets the same one."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.serve_threshold < self.candidate_threshold:
            raise ValueError("serve_threshold must not be below candidate_threshold")
        return self


class CompressPolicy(_Part):
    """How much of the background documents is kept."""

    rate: float = Field(0.5, gt=0, le=1)
    """Share of a document's tokens to keep; 1 switches compression off."""


class AuditPolicy(_Part):
    """How many answers are compared with the reference model's. No effect in this version."""

    rate: Ratio = 0.01
    """Share of the requests. No effect in this version."""


def _by_tier(light: int, standard: int, heavy: int) -> dict[Tier, int]:
    return {"light": light, "standard": standard, "heavy": heavy}


class Rules(_Part):
    """How the requests of a feature are treated. `defaults` gives all of it, a feature overrides what it names."""

    max_tokens: dict[Tier, Annotated[int, Field(ge=1)]] = _by_tier(300, 800, 2000)
    """Output tokens of a request that names no limit, by tier."""
    max_tokens_cap: dict[Tier, Annotated[int, Field(ge=1)]] = _by_tier(1000, 4000, 8000)
    """The highest limit a request may name, by tier; above it, this is used."""
    max_attempts: int = Field(6, ge=1, le=50)
    """Provider calls a request, all models and tiers together."""
    cascade: bool = True
    """Ask the next tier up when an answer fails its check."""
    cache: CachePolicy = CachePolicy()
    compress: CompressPolicy = CompressPolicy()
    audit: AuditPolicy = AuditPolicy()
    instruction: str | None = Field(None, max_length=500)
    """Added to the system message, e.g. "Answer in one paragraph or less."."""
    stop: tuple[str, ...] = Field((), max_length=4)
    """Sequences that end an answer, beside the request's own."""

    @model_validator(mode="after")
    def _every_tier(self) -> Self:
        for name in ("max_tokens", "max_tokens_cap"):
            if missing := [t for t in TIERS if t not in getattr(self, name)]:
                raise ValueError(f"{name} must name every tier; missing: {', '.join(missing)}")
        return self


class Budget(_Part):
    """A hard limit. It needs exactly one of `limit_usd` and `limit_tokens`."""

    scope: dict[Literal["tenant", "feature", "user", "experiment"], Named]
    """Whose spending counts, such as `{tenant: acme}`; `*` means each value on its own, `{}` the whole fleet."""
    window: Literal["minute", "hour", "day", "month"]
    """Aligned to the clock of `timezone`."""
    limit_usd: Number | None = Field(None, ge=0)
    """Dollars a window; 0 means none."""
    limit_tokens: int | None = Field(None, ge=0)
    """Input and output tokens a window."""
    degrade_at: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of the limit from which requests go to cheaper tiers."""
    on_exceed: Literal["reject", "wait"] = "reject"
    """wait: in the bulk lane, until the window ends."""

    @field_validator("limit_tokens", mode="before")
    @classmethod
    def _no_yes(cls, value: Any) -> Any:
        if isinstance(value, bool):
            raise ValueError("must be a number, not yes or no")
        return value

    @model_validator(mode="after")
    def _one_limit(self) -> Self:
        if (self.limit_usd is None) == (self.limit_tokens is None):
            raise ValueError("needs exactly one of limit_usd and limit_tokens")
        return self


class Tenant(_Part):
    """What is special about a tenant. To name one lets it in."""

    hmac_env: Variable | None = None
    """The environment variable that holds the key its requests must be signed with."""
    responses_topic: Annotated[str, _shaped(r"[a-zA-Z0-9._-]{1,249}", "must be a topic name of letters, digits, '.', '_', '-'")] | None = (
        None
    )
    """The full name of a topic of its own for its responses."""
    max_in_flight: int | None = Field(None, ge=1)
    """Calls at the same time in one process of `call` and one lane, at most. With and without it, an eighth of the window is kept from
    the tenant while others ask."""


class AlertsPolicy(_Part):
    """When a person is told, on `llm.alerts`. Each once for its scope and window, also when this is edited."""

    budget_shares: tuple[Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)], ...] = (0.8,)
    """Shares of a budget, spent and reserved, at which to tell (`budget_share`): each once a window, or the highest alone if several are
    reached at once. A budget that refuses a request has reached them all. Empty: never."""
    cost_spike: float = Field(2, gt=1, allow_inf_nan=False)
    """A feature that has spent more today than so many times its mean of the last 7 days, or of the days since it was first seen
    (`feature_cost_spike`). Days on which it spent nothing count; one that is first seen today has no mean."""
    unconfirmed_usd: Number = Field(Decimal(0), ge=0)
    """A tenant whose calls were cut off today at a worst case of more dollars than this (`unconfirmed_spend`)."""


class Policy(_Part):
    """The whole file."""

    models: dict[str, Model] = Field(min_length=1)
    """The models by the names that this file, responses and reports call them."""
    tiers: dict[Tier, tuple[str, ...]]
    """The models of each tier: the first choice, then the fallbacks."""
    reference: str
    """The model that `baseline_usd` is priced at."""
    timezone: str = "UTC"
    """Of the windows of budgets, alerts and reports; an IANA name."""
    defaults: Rules = Rules()
    """How requests are treated."""
    features: dict[str, dict[str, Any]] = {}
    """What is different for a feature, by its name."""
    budgets: tuple[Budget, ...] = ()
    """The hard limits. Every one that a request falls under must have room."""
    alerts: AlertsPolicy = AlertsPolicy()
    """When a person is told."""
    tenants: dict[str, Tenant | Literal["allow", "reject"]] = {"unknown": "allow"}
    """The tenants by name. `unknown` (allow or reject) is about all others; left out beside names: reject."""
    _digest: str = ""

    @property
    def digest(self) -> str:
        """SHA-256 of the file."""
        return self._digest

    @field_validator("defaults", mode="before")
    @classmethod
    def _over_the_built_in(cls, value: Any) -> Any:
        return _merge(Rules().model_dump(), value) if isinstance(value, dict) else value

    @field_validator("tenants", mode="before")
    @classmethod
    def _names_or_unknown(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        if value.get("unknown", "allow") not in ("allow", "reject"):
            raise ValueError("unknown: must be allow or reject")
        for name, entry in value.items():
            if isinstance(name, str) and "/" in name:
                raise ValueError(f"{name}: no tenant's name holds '/'")
            if name != "unknown" and not isinstance(entry, dict | Tenant | None):
                raise ValueError(f"{name}: must be a mapping such as {{max_in_flight: 8}}")
        return {name: {} if entry is None else entry for name, entry in value.items()}

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
        raise ValueError(_told(e, "features", feature)) from e


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        inside = merged.get(key)
        merged[key] = _merge(inside, value) if isinstance(inside, dict) and isinstance(value, dict) else value
    return merged


class _Loader(yaml.SafeLoader):
    """YAML as it is, but a key that is given twice is an error: the first one would vanish in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value} is given twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _told(error: ValidationError, *above: str) -> str:
    """The first fault as one line: the key, and what would be right. A key that is unknown is told before one that is missing: it may be
    the missing one, misspelt."""
    faults = error.errors(include_url=False)
    first = next((f for f in faults if f["type"] == "extra_forbidden"), faults[0]) if faults[0]["type"] == "missing" else faults[0]
    where = ".".join([*above, *(str(part) for part in first["loc"] if part not in ("[key]", Tenant.__name__))])
    return f"{where}: {_what(first)}" if where else _what(first)


def _what(fault: ErrorDetails) -> str:
    match fault["type"]:
        case "extra_forbidden":
            name = str(fault["loc"][-1])
            parts: list[type[_Part]] = _Part.__subclasses__()
            known = {field for part in parts for field in part.model_fields}
            close = difflib.get_close_matches(name, known, n=1)
            return "no such key here; " + (f"did you mean {close[0]}?" if close else "see docs/reference/policy.md")
        case "missing":
            return "is missing"
        case "dict_type" | "model_type":
            return "must be a mapping"
        case "tuple_type":
            return "must be a list"
        case "decimal_type" | "decimal_parsing":
            return "must be a number"
        case "too_short":
            return "must not be empty"
    return fault["msg"].removeprefix("Value error, ").replace("Input should be", "must be")


def parse(text: str, source: str) -> Policy:
    """The policy in `text`; `source` names it in errors."""
    try:
        data = yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as e:
        at = f"line {e.problem_mark.line + 1}, column {e.problem_mark.column + 1}: " if e.problem_mark else ""
        raise PolicyError(f"{source}: not YAML: {at}{e.problem}") from e
    except (yaml.YAMLError, ValueError) as e:
        raise PolicyError(f"{source}: not YAML: {' '.join(str(e).split())}") from e
    except RecursionError as e:
        raise PolicyError(f"{source}: nested too deep to be a policy") from e
    if not isinstance(data, dict):
        raise PolicyError(f"{source}: must be a mapping with models, tiers and reference")
    try:
        policy = Policy.model_validate(data)
    except ValidationError as e:
        raise PolicyError(f"{source}: {_told(e)}") from e
    policy._digest = hashlib.sha256(text.encode()).hexdigest()
    return policy


def load(path: Path | None) -> Policy:
    """The policy at `path`, or the one that ships."""
    if path is None:
        return parse(resources.files("workers").joinpath(SHIPPED).read_text(encoding="utf-8"), f"the shipped {SHIPPED}")
    try:
        return parse(path.read_text(encoding="utf-8"), str(path))
    except OSError as e:
        raise PolicyError(f"SCRIMP_POLICY_FILE: {path} cannot be read: {e.strerror}") from e
    except UnicodeDecodeError as e:
        raise PolicyError(f"{path}: not UTF-8 at byte {e.start}") from e


class PolicyFile:
    """The current policy. Call it to get it; `poll` reads the file again when its content has changed. Whoever must look at it further
    before it counts asks `fresh`, and says `take` or `refuse`."""

    def __init__(self, path: Path | None, on_refused: Callable[[PolicyError], None]) -> None:
        self._path = path
        self._on_refused = on_refused
        self._current = load(path)
        self._refused: str | None = None

    def __call__(self) -> Policy:
        return self._current

    def poll(self) -> None:
        """Take the file's new content if it is good; keep the old policy and report once if it is not."""
        if fresh := self.fresh():
            self.take(fresh)

    def fresh(self) -> Policy | None:
        """The file's content if it has changed and is good; what is not good is refused."""
        if self._path is None:
            return None
        try:
            fresh = load(self._path)
        except PolicyError as e:
            self.refuse(e)
            return None
        if fresh.digest == self._current.digest:
            self._refused = None
            return None
        return fresh

    def take(self, policy: Policy) -> None:
        self._current, self._refused = policy, None

    def refuse(self, error: PolicyError) -> None:
        """The old policy stays. Reported once, however often the same is refused."""
        if str(error) != self._refused:
            self._refused = str(error)
            self._on_refused(error)
