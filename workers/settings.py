"""Every setting, once: a pydantic-settings tree read from `SCRIMP_*` variables and `.env`, checked before anything starts.

`load()` raises `SettingsError` with one line that names the variable and says what would be right; nothing falls back in silence.
Only this module and the command line read the environment.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from workers.pipeline import STAGES

PREFIX = "SCRIMP_"
NOT_OURS = frozenset(
    {"SCRIMP_BENCH_DATA", "SCRIMP_TEST_KAFKA", "SCRIMP_TEST_POSTGRES", "SCRIMP_TEST_LONG", "SCRIMP_TEST_SEED", "SCRIMP_REQUIRE"}
)
"""Read by the tests and the benchmarks, not by the fleet."""


class SettingsError(ValueError):
    """A setting is wrong or unknown. The text is one line."""


def _empty_is_none(value: Any) -> Any:
    return None if value == "" else value


def _words(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith(("[", "{")):
        raise ValueError("must be words separated by commas")
    return tuple(word.strip() for word in value.split(",") if word.strip())


_BROKER = re.compile(r"(?:\[[0-9a-fA-F:.]+\]|[^\s:/\[\]]+):([0-9]{1,5})")


def _is_port(number: int | str | None) -> bool:
    return number is None or 1 <= int(number) <= 65_535


Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_words)]
OptionalPath = Annotated[Path | None, BeforeValidator(_empty_is_none)]
STAGE_RETENTION_DAYS = max(topic.retention.days for stage in STAGES.values() for topic in stage.reads)
"""The longest that a record may wait to be read by a stage."""


class _Group(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, hide_input_in_errors=True)


class Kafka(_Group):
    bootstrap_servers: str = Field("localhost:9092", min_length=1)
    """`host:port` of one or more brokers, separated by commas."""
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """What the brokers' port speaks; see docs/kafka-security.md."""
    sasl_mechanism: Literal["", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = ""
    """How the user proves who it is, with SASL_SSL or SASL_PLAINTEXT."""
    sasl_username: str = ""
    """Who the process is to the broker."""
    sasl_password: SecretStr = SecretStr("")
    ssl_ca_file: OptionalPath = None
    """PEM file with the CA that signed the certificates of the brokers; empty: the CAs of the system."""
    ssl_cert_file: OptionalPath = None
    """PEM file with the certificate that shows the broker who we are, where it asks for one."""
    ssl_key_file: OptionalPath = None
    """PEM file with its key, without a pass phrase; empty: it stands beside the certificate."""
    topic_prefix: str = Field("llm.", pattern=r"^[a-zA-Z0-9._-]*$")
    """What the name of every topic begins with."""
    group_prefix: str = Field("scrimp.", pattern=r"^[a-zA-Z0-9._-]*$")
    """What the name of every consumer group begins with."""
    partitions: int = Field(12, ge=1)
    """Of a topic that `scrimp topics apply` makes."""
    replication_factor: int = Field(1, ge=1)
    """Of a topic that `scrimp topics apply` makes; 3 in production."""
    idempotence: bool = True
    """Off only for the embedded broker of `scrimp up`, which has no idempotent producer."""
    session_timeout_ms: int = Field(30_000, ge=1_000)
    """A consumer that is silent this long loses its partitions."""
    heartbeat_interval_ms: int = Field(3_000, ge=100)
    """Between two heartbeats of a consumer; at most a third of the session time-out is usual."""
    request_timeout_ms: int = Field(40_000, ge=1_000)
    """Of one request to a broker."""

    @field_validator("bootstrap_servers")
    @classmethod
    def _addresses(cls, value: str) -> str:
        brokers = [broker.strip() for broker in value.split(",")]
        for broker in brokers:
            if not (found := _BROKER.fullmatch(broker)) or not _is_port(found[1]):
                raise ValueError("must be host:port of one or more brokers, separated by commas")
        return ",".join(brokers)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.security_protocol.startswith("SASL") and not (self.sasl_mechanism and self.sasl_username and self.sasl_password):
            raise ValueError("SECURITY_PROTOCOL SASL_* needs SASL_MECHANISM, SASL_USERNAME and SASL_PASSWORD")
        if self.sasl_mechanism and not self.security_protocol.startswith("SASL"):
            raise ValueError("SASL_MECHANISM needs SECURITY_PROTOCOL SASL_SSL or SASL_PLAINTEXT")
        if self.ssl_ca_file and not self.security_protocol.endswith("SSL"):
            raise ValueError("SSL_CA_FILE needs SECURITY_PROTOCOL SSL or SASL_SSL")
        if self.ssl_cert_file and not self.security_protocol.endswith("SSL"):
            raise ValueError("SSL_CERT_FILE needs SECURITY_PROTOCOL SSL or SASL_SSL")
        if self.ssl_key_file and not self.ssl_cert_file:
            raise ValueError("SSL_KEY_FILE needs SSL_CERT_FILE")
        if self.heartbeat_interval_ms >= self.session_timeout_ms:
            raise ValueError("HEARTBEAT_INTERVAL_MS must be below SESSION_TIMEOUT_MS")
        return self


class Qdrant(_Group):
    url: str = Field("", repr=False)
    """Empty: embedded in this process, in memory or at `path`."""
    api_key: SecretStr = SecretStr("")
    path: OptionalPath = None
    """Where the embedded cache is kept; empty: in memory."""
    collection: str = "scrimp-cache"
    """The collection that holds the cache."""
    timeout_ms: int = Field(30, ge=1)
    """Budget of one lookup; past it the request goes on as a miss."""

    @field_validator("url")
    @classmethod
    def _address(cls, value: str) -> str:
        try:
            parts = urlsplit(value)
            fits = parts.scheme in ("http", "https") and bool(parts.hostname) and _is_port(parts.port)
        except ValueError:
            fits = False
        if value and not fits:
            raise ValueError("must be http://host:port or https://host:port")
        return value


_POSTGRES_QUERY = frozenset({"ssl", "target_session_attrs", "passfile", "host", "port", "prepared_statement_cache_size"})
"""What asyncpg takes as text and a ledger has a use for; without prepared statements, which is 0, it stands a pooler of transactions."""
_LISTED = ", ".join(sorted(_POSTGRES_QUERY))
_TLS = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")


class Ledger(_Group):
    url: str = Field("sqlite+aiosqlite:///scrimp.db", repr=False)  # may hold a password
    """A file on one host, or `postgresql+asyncpg://user:password@host/database` for a fleet."""
    heartbeat_s: float = Field(5, gt=0, allow_inf_nan=False)
    """Between two signs of life of a worker."""
    stale_s: float = Field(15, gt=0, allow_inf_nan=False)
    """A worker that is silent this long counts as dead, and its open attempts as unconfirmed."""
    timeout_s: float = Field(30, gt=0, allow_inf_nan=False)
    """Of one transaction, waiting for a connection included; past it the ledger counts as unavailable."""
    keep_days: int = Field(7, ge=1)
    """How long answers and responses are kept; must exceed the retention of every topic that a stage reads."""
    pool_size: int = Field(4, ge=1)
    """Connections to PostgreSQL of one process."""

    @field_validator("url")
    @classmethod
    def _address(cls, value: str) -> str:
        # Imported for a URL that is set: `scrimp --help` must not wait for it.
        from sqlalchemy import make_url
        from sqlalchemy.exc import ArgumentError

        if not value.startswith(("sqlite+aiosqlite:///", "postgresql+asyncpg://")):
            raise ValueError("must begin with sqlite+aiosqlite:/// or postgresql+asyncpg://")
        try:
            url = make_url(value)
            fits = _is_port(url.port)
        except (ArgumentError, ValueError):
            fits = False
        # Without the reason: it would quote what stands where the port should, which may be part of a password.
        if not fits:
            raise ValueError("cannot be read: the port must be a number, and '@' in a password is written %40")
        if url.drivername.startswith("postgresql") and not _POSTGRES_QUERY.issuperset(url.query):
            raise ValueError(f"takes {_LISTED} behind '?' (libpq's sslmode is ssl here), and '?' in a password is written %3F")
        if url.query.get("ssl", _TLS[0]) not in _TLS:
            raise ValueError(f"ssl must be one of {', '.join(_TLS)}")
        return value

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.stale_s < 2 * self.heartbeat_s:
            raise ValueError("STALE_S must be at least twice HEARTBEAT_S")
        if self.keep_days <= STAGE_RETENTION_DAYS:
            raise ValueError(f"KEEP_DAYS must exceed the {STAGE_RETENTION_DAYS} days that the stages' topics keep their records")
        return self


class Encoder(_Group):
    model: str = "sentence-transformers/all-MiniLM-L6-v2"
    """A model of fastembed, downloaded at first use."""
    path: OptionalPath = None
    """A directory with an ONNX model and its tokenizer; nothing is downloaded then."""
    threads: int = Field(1, ge=1)
    """CPU threads of the encoder."""


class Http(_Group):
    host: str = "127.0.0.1"
    """Where `/livez`, `/readyz` and `/metrics` are served."""
    port: int = Field(8080, ge=0, le=65_535)
    """0 takes a free port and logs it."""
    stall_s: float = Field(180, gt=0, allow_inf_nan=False)
    """`/livez` turns 503 when work is under way, nothing is down, and neither it nor a provider call has ended for this long."""


class StageSettings(_Group):
    window: int = Field(500, ge=1)
    """Records a batch."""
    drain_s: float = Field(10, gt=0, allow_inf_nan=False)
    """How long a stop waits for running work."""


class Classify(StageSettings):
    short_words: int = Field(20, ge=0)
    """Last user turns under this many words, with a short context, go to the light tier."""
    short_context_tokens: int = Field(500, ge=0)
    """Tokens of all other text below which a context is short."""
    long_context_tokens: int = Field(10_000, ge=0)
    """Tokens of all other text above which a request goes to the heavy tier."""
    signals: Words = ("explain why", "compare", "design", "analyze", "implement")
    """What in the last user turn asks for the heavy tier, in any case; separated by commas."""

    @model_validator(mode="after")
    def _short_is_not_long(self) -> Self:
        if self.short_context_tokens > self.long_context_tokens:
            raise ValueError("SHORT_CONTEXT_TOKENS must not exceed LONG_CONTEXT_TOKENS")
        return self


class Cache(StageSettings):
    window: int = Field(64, ge=1)
    """Records a batch."""


class Remember(StageSettings):
    window: int = Field(64, ge=1)
    """Records a batch."""


class Compress(StageSettings):
    window: int = Field(64, ge=1)
    """Records a batch."""
    short_tokens: int = Field(150, ge=0)
    """Documents up to this many tokens are left alone."""


class Call(StageSettings):
    window: int = Field(32, ge=1)
    """Calls in flight."""
    drain_s: float = Field(70, gt=0, allow_inf_nan=False)
    """How long a stop waits for running calls."""
    timeout_s: float = Field(60, gt=0, allow_inf_nan=False)
    """Of one HTTP call to a provider."""

    @model_validator(mode="after")
    def _drain_outlasts_a_call(self) -> Self:
        if self.drain_s <= self.timeout_s:
            raise ValueError("DRAIN_S must exceed TIMEOUT_S, or a stop throws paid calls away")
        return self


class Attribute(StageSettings):
    window: int = Field(200, ge=1)
    """Records a batch."""
    sweep_s: float = Field(15, gt=0, allow_inf_nan=False)
    """Between two looks for what dead workers left behind."""


class Redeliver(StageSettings):
    window: int = Field(64, ge=1)
    """Records that wait for their time at once."""


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        env_file=".env",
        extra="ignore",
        frozen=True,
        case_sensitive=False,
        use_attribute_docstrings=True,
        hide_input_in_errors=True,
    )

    kafka: Kafka = Kafka()
    qdrant: Qdrant = Qdrant()
    ledger: Ledger = Ledger()
    encoder: Encoder = Encoder()
    http: Http = Http()
    policy_file: OptionalPath = None
    """The policy; empty: the one that ships."""
    policy_poll_s: float = Field(5, gt=0, allow_inf_nan=False)
    """Between two looks at the policy file."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    classify: Classify = Classify()
    cache: Cache = Cache()
    remember: Remember = Remember()
    compress: Compress = Compress()
    call: Call = Call()
    attribute: Attribute = Attribute()
    redeliver: Redeliver = Redeliver()

    @model_validator(mode="after")
    def _stall_outlasts_a_call(self) -> Self:
        if self.http.stall_s <= self.call.timeout_s:
            raise ValueError("HTTP__STALL_S must exceed CALL__TIMEOUT_S, or a slow provider looks like a hung worker")
        return self

    def stage(self, name: str) -> StageSettings:
        settings: StageSettings = getattr(self, name)
        return settings


def variables(model: type[BaseModel] = Settings, before: str = PREFIX) -> Iterator[tuple[str, FieldInfo]]:
    """Every variable there is, in the order of the tree."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from variables(kind, f"{before}{name.upper()}__")
        else:
            yield before + name.upper(), field


def unknown(given: Iterable[str]) -> str | None:
    """One line about the first variable that begins with our prefix and means nothing; None when there is none."""
    known = {name for name, _ in variables()}
    for name in sorted(given):
        if name.upper().startswith(PREFIX) and name.upper() not in known | NOT_OURS:
            close = difflib.get_close_matches(name.upper(), known, n=1, cutoff=0.75)
            return f"{name} is not a setting" + (f"; did you mean {close[0]}?" if close else "; see docs/reference/settings.md")
    return None


def load() -> Settings:
    """The settings of this process.

    Raises:
        SettingsError: a variable is unknown or its value does not fit.
    """
    if told := unknown([*os.environ, *dotenv_values(".env")]):
        raise SettingsError(told)
    try:
        return Settings()
    except ValidationError as e:
        raise SettingsError(_told(e.errors(include_input=False)[0])) from e


def _told(fault: ErrorDetails) -> str:
    """The variable, and what would be right. Never its value: it may be a secret."""
    name = PREFIX + "__".join(str(part).upper() for part in fault["loc"])
    match fault["type"]:
        case "value_error":
            what = fault["msg"].removeprefix("Value error, ")
            # What concerns several variables of a group begins with the name of the first.
            return f"{name}: {what}" if name in dict(variables()) else f"{name}__{what}" if fault["loc"] else name + what
        case "string_pattern_mismatch":
            return f"{name}: must match {fault['ctx']['pattern']}"
        case "string_too_short":
            return f"{name}: must not be empty"
    return f"{name}: {fault['msg'].replace('Input should be', 'must be')}"


def secret(name: str | None) -> str | None:
    """The value of a secret that the policy names by its variable (`api_key_env`, `hmac_env`); None when it is not set."""
    return os.environ.get(name) if name else None
