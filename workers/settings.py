"""Every setting, once: a pydantic-settings tree read from `SCRIMP_*` variables and `.env`, checked before anything starts.

`load()` raises `SettingsError` with one line that names the variable and says what would be right; nothing falls back in silence.
Only this module and the command line read the environment.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, Self

from dotenv import dotenv_values
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX = "SCRIMP_"
NOT_OURS = frozenset({"SCRIMP_BENCH_DATA", "SCRIMP_TEST_KAFKA", "SCRIMP_TEST_POSTGRES", "SCRIMP_REQUIRE"})
"""Read by the tests and the benchmarks, not by the fleet."""


class SettingsError(ValueError):
    """A setting is wrong or unknown. The text is one line."""


class _Group(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Kafka(_Group):
    bootstrap_servers: str = "localhost:9092"
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = ""
    sasl_username: str = ""
    sasl_password: SecretStr = SecretStr("")
    ssl_ca_file: Path | None = None
    ssl_cert_file: Path | None = None
    ssl_key_file: Path | None = None
    topic_prefix: str = Field("llm.", pattern=r"^[a-zA-Z0-9._-]*$")
    group_prefix: str = Field("scrimp.", pattern=r"^[a-zA-Z0-9._-]*$")
    partitions: int = Field(12, ge=1)
    replication_factor: int = Field(1, ge=1)
    idempotence: bool = True
    """Off only for the embedded broker of `scrimp up`, which has no idempotent producer."""
    session_timeout_ms: int = Field(30_000, ge=1_000)
    heartbeat_interval_ms: int = Field(3_000, ge=100)
    request_timeout_ms: int = Field(40_000, ge=1_000)

    @model_validator(mode="after")
    def _sasl_is_whole(self) -> Self:
        if self.security_protocol.startswith("SASL") and not (self.sasl_mechanism and self.sasl_username):
            raise ValueError("security_protocol SASL_* needs sasl_mechanism and sasl_username")
        return self


class Qdrant(_Group):
    url: str = ""
    """Empty: embedded in this process, in memory or at `path`."""
    api_key: SecretStr = SecretStr("")
    path: Path | None = None
    collection: str = "scrimp-cache"
    timeout_ms: int = Field(30, ge=1)
    """Budget of one lookup; past it the request goes on as a miss."""


class Ledger(_Group):
    url: str = "sqlite+aiosqlite:///scrimp.db"
    heartbeat_s: float = Field(5, gt=0)
    stale_s: float = Field(15, gt=0)
    keep_days: int = Field(7, ge=1)
    """How long answers and responses are kept; must exceed the stage topics' retention of 3 days."""
    pool_size: int = Field(4, ge=1)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.stale_s < 2 * self.heartbeat_s:
            raise ValueError("stale_s must be at least twice heartbeat_s")
        if self.keep_days <= 3:
            raise ValueError("keep_days must exceed the 3 days that the stage topics keep their records")
        if not self.url.startswith(("sqlite+aiosqlite:///", "postgresql+asyncpg://")):
            raise ValueError("url must begin with sqlite+aiosqlite:/// or postgresql+asyncpg://")
        return self


class Encoder(_Group):
    model: str = "sentence-transformers/all-MiniLM-L6-v2"
    path: Path | None = None
    """A directory with an ONNX model and its tokenizer; nothing is downloaded then."""
    threads: int = Field(1, ge=1)


class Http(_Group):
    host: str = "127.0.0.1"
    port: int = Field(8080, ge=0, le=65_535)


class StageSettings(_Group):
    window: int = Field(500, ge=1)
    """batch stages: records a batch; `call`: calls in flight."""
    drain_s: float = Field(10, gt=0)


class Classify(StageSettings):
    short_words: int = Field(20, ge=0)
    short_context_tokens: int = Field(500, ge=0)
    long_context_tokens: int = Field(10_000, ge=0)
    signals: tuple[str, ...] = ("explain why", "compare", "design", "analyze", "implement")


class Cache(StageSettings):
    window: int = Field(64, ge=1)


class Remember(StageSettings):
    window: int = Field(64, ge=1)


class Compress(StageSettings):
    window: int = Field(64, ge=1)
    short_tokens: int = Field(150, ge=0)
    """Documents up to this many tokens are left alone."""


class Call(StageSettings):
    window: int = Field(32, ge=1)
    drain_s: float = Field(70, gt=0)
    timeout_s: float = Field(60, gt=0)
    """Of one HTTP call to a provider."""

    @model_validator(mode="after")
    def _drain_outlasts_a_call(self) -> Self:
        if self.drain_s <= self.timeout_s:
            raise ValueError("drain_s must exceed timeout_s, or a stop throws paid calls away")
        return self


class Attribute(StageSettings):
    window: int = Field(200, ge=1)
    sweep_s: float = Field(15, gt=0)


class Redeliver(StageSettings):
    window: int = Field(64, ge=1)


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", env_file=".env", extra="ignore", frozen=True, case_sensitive=False
    )

    kafka: Kafka = Kafka()
    qdrant: Qdrant = Qdrant()
    ledger: Ledger = Ledger()
    encoder: Encoder = Encoder()
    http: Http = Http()
    policy_file: Path | None = None
    policy_poll_s: float = Field(5, gt=0)
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    classify: Classify = Classify()
    cache: Cache = Cache()
    remember: Remember = Remember()
    compress: Compress = Compress()
    call: Call = Call()
    attribute: Attribute = Attribute()
    redeliver: Redeliver = Redeliver()

    def stage(self, name: str) -> StageSettings:
        settings: StageSettings = getattr(self, name)
        return settings


def names(model: type[BaseModel] = Settings, before: str = PREFIX) -> Iterator[str]:
    """Every variable there is, in the order of the tree."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from names(kind, f"{before}{name.upper()}__")
        else:
            yield before + name.upper()


def unknown(given: Iterable[str]) -> str | None:
    """One line about the first variable that begins with our prefix and means nothing; None when there is none."""
    known = set(names()) | NOT_OURS
    for name in sorted(given):
        if name.upper().startswith(PREFIX) and name.upper() not in known:
            close = difflib.get_close_matches(name.upper(), known, n=1, cutoff=0.6)
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
        first = e.errors()[0]
        name = PREFIX + "__".join(str(part).upper() for part in first["loc"])
        raise SettingsError(f"{name}: {first['msg'].removeprefix('Value error, ')}") from e


def secret(name: str | None) -> str | None:
    """The value of a secret that the policy names by its variable (`api_key_env`, `hmac_env`); None when it is not set."""
    return os.environ.get(name) if name else None
