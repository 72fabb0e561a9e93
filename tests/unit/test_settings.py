"""A setting that is wrong or unknown stops the process with one line that names it and says what would be right."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from workers import settings
from workers.pipeline import STAGES
from workers.settings import Settings, SettingsError, load, secret, variables


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.upper().startswith("SCRIMP_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def told(monkeypatch: pytest.MonkeyPatch, **variables: str) -> str:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as e:
        load()
    assert "\n" not in str(e.value)
    return str(e.value)


def test_the_promised_defaults() -> None:
    given = load()
    assert given.kafka.bootstrap_servers == "localhost:9092"
    assert (given.kafka.topic_prefix, given.kafka.group_prefix, given.kafka.partitions, given.kafka.replication_factor) == (
        "llm.",
        "scrimp.",
        12,
        1,
    )
    assert given.kafka.security_protocol == "PLAINTEXT"
    assert given.ledger.url == "sqlite+aiosqlite:///scrimp.db"
    assert (given.http.host, given.http.port) == ("127.0.0.1", 8080)
    assert (given.qdrant.url, given.qdrant.path, given.policy_file, given.encoder.path) == ("", None, None, None)


@pytest.mark.parametrize(
    "name",
    [
        "SCRIMP_KAFKA__BOOTSTRAP_SERVERS",
        "SCRIMP_KAFKA__SECURITY_PROTOCOL",
        "SCRIMP_KAFKA__SASL_MECHANISM",
        "SCRIMP_KAFKA__SASL_USERNAME",
        "SCRIMP_KAFKA__SASL_PASSWORD",
        "SCRIMP_KAFKA__SSL_CA_FILE",
        "SCRIMP_KAFKA__SSL_CERT_FILE",
        "SCRIMP_KAFKA__SSL_KEY_FILE",
        "SCRIMP_KAFKA__TOPIC_PREFIX",
        "SCRIMP_KAFKA__PARTITIONS",
        "SCRIMP_KAFKA__REPLICATION_FACTOR",
        "SCRIMP_KAFKA__GROUP_PREFIX",
        "SCRIMP_QDRANT__URL",
        "SCRIMP_QDRANT__API_KEY",
        "SCRIMP_QDRANT__PATH",
        "SCRIMP_LEDGER__URL",
        "SCRIMP_LEDGER__HEARTBEAT_S",
        "SCRIMP_LEDGER__STALE_S",
        "SCRIMP_POLICY_FILE",
        "SCRIMP_ENCODER__MODEL",
        "SCRIMP_ENCODER__PATH",
        "SCRIMP_HTTP__HOST",
        "SCRIMP_HTTP__PORT",
        *(f"SCRIMP_{stage.upper()}__{name}" for stage in STAGES for name in ("WINDOW", "DRAIN_S")),
    ],
)
def test_the_promised_names(name: str) -> None:
    assert name in dict(variables())


def test_every_variable_says_what_it_is_for_or_says_it_by_its_name() -> None:
    plain = ("SECURITY_PROTOCOL", "SASL_MECHANISM", "SASL_USERNAME", "SASL_PASSWORD", "FILE", "API_KEY", "WINDOW", "DRAIN_S", "LOG_LEVEL")
    assert [name for name, field in variables() if not field.description and not name.endswith(plain)] == []


def test_a_value_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRIMP_KAFKA__PARTITIONS", "3")
    monkeypatch.setenv("scrimp_http__port", "0")
    monkeypatch.setenv("SCRIMP_CLASSIFY__SIGNALS", "prove, derive ,")
    given = load()
    assert (given.kafka.partitions, given.http.port, given.classify.signals) == (3, 0, ("prove", "derive"))


def test_the_environment_wins_over_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("SCRIMP_KAFKA__PARTITIONS=3\nSCRIMP_HTTP__PORT=9\nOPENAI_API_KEY=x\n")
    monkeypatch.setenv("SCRIMP_HTTP__PORT", "10")
    assert (load().kafka.partitions, load().http.port) == (3, 10)


@pytest.mark.parametrize(
    ("name", "close"),
    [
        ("SCRIMP_KAFKA__BOOTSTRAP_SERVER", "SCRIMP_KAFKA__BOOTSTRAP_SERVERS"),
        ("SCRIMP_KAFKA_PARTITIONS", "SCRIMP_KAFKA__PARTITIONS"),
        ("SCRIMP_POLICYFILE", "SCRIMP_POLICY_FILE"),
        ("scrimp_http__prot", "SCRIMP_HTTP__PORT"),
    ],
)
def test_an_unknown_variable_is_named_with_the_one_that_was_meant(monkeypatch: pytest.MonkeyPatch, name: str, close: str) -> None:
    assert told(monkeypatch, **{name: "1"}) == f"{name} is not a setting; did you mean {close}?"


@pytest.mark.parametrize("name", ["SCRIMP_FOO", "SCRIMP_KAFKA", "SCRIMP_"])
def test_an_unknown_variable_like_no_other_points_to_the_list(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    assert told(monkeypatch, **{name: "{}"}) == f"{name} is not a setting; see docs/reference/settings.md"


def test_an_unknown_variable_in_the_file_is_one_too(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("SCRIMP_HTTP__PROT=9\n")
    assert told(monkeypatch) == "SCRIMP_HTTP__PROT is not a setting; did you mean SCRIMP_HTTP__PORT?"


def test_variables_of_the_tests_are_nobodys_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in settings.NOT_OURS:
        monkeypatch.setenv(name, "x")
    load()


@pytest.mark.parametrize(
    ("name", "value", "right"),
    [
        ("SCRIMP_KAFKA__PARTITIONS", "many", "must be a valid integer"),
        ("SCRIMP_KAFKA__PARTITIONS", "", "must be a valid integer"),
        ("SCRIMP_KAFKA__PARTITIONS", "0", "must be greater than or equal to 1"),
        ("SCRIMP_KAFKA__BOOTSTRAP_SERVERS", "", "must not be empty"),
        ("SCRIMP_KAFKA__SECURITY_PROTOCOL", "TLS", "must be 'PLAINTEXT', 'SSL', 'SASL_PLAINTEXT' or 'SASL_SSL'"),
        ("SCRIMP_KAFKA__TOPIC_PREFIX", "my topics", "must match"),
        ("SCRIMP_HTTP__PORT", "70000", "must be less than or equal to 65535"),
        ("SCRIMP_CALL__TIMEOUT_S", "nan", "must be a finite number"),
        ("SCRIMP_CALL__DRAIN_S", "inf", "must be a finite number"),
        ("SCRIMP_LOG_LEVEL", "loud", "must be 'DEBUG', 'INFO', 'WARNING' or 'ERROR'"),
        ("SCRIMP_CLASSIFY__SIGNALS", '["compare"]', "must be words separated by commas"),
    ],
)
def test_a_wrong_value_is_named_with_what_would_be_right(monkeypatch: pytest.MonkeyPatch, name: str, value: str, right: str) -> None:
    assert told(monkeypatch, **{name: value}).startswith(f"{name}: {right}")


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        (
            {"SCRIMP_KAFKA__SECURITY_PROTOCOL": "SASL_SSL"},
            "SCRIMP_KAFKA__SECURITY_PROTOCOL SASL_* needs SASL_MECHANISM, SASL_USERNAME and SASL_PASSWORD",
        ),
        (
            {"SCRIMP_KAFKA__SECURITY_PROTOCOL": "SSL", "SCRIMP_KAFKA__SASL_MECHANISM": "PLAIN"},
            "SCRIMP_KAFKA__SASL_MECHANISM needs SECURITY_PROTOCOL SASL_SSL or SASL_PLAINTEXT",
        ),
        ({"SCRIMP_KAFKA__SSL_CA_FILE": "ca.pem"}, "SCRIMP_KAFKA__SSL_CA_FILE needs SECURITY_PROTOCOL SSL or SASL_SSL"),
        ({"SCRIMP_KAFKA__SSL_CERT_FILE": "user.pem"}, "SCRIMP_KAFKA__SSL_CERT_FILE needs SECURITY_PROTOCOL SSL or SASL_SSL"),
        ({"SCRIMP_KAFKA__SSL_KEY_FILE": "key.pem"}, "SCRIMP_KAFKA__SSL_KEY_FILE needs SSL_CERT_FILE"),
        (
            {"SCRIMP_KAFKA__HEARTBEAT_INTERVAL_MS": "30000"},
            "SCRIMP_KAFKA__HEARTBEAT_INTERVAL_MS must be below SESSION_TIMEOUT_MS",
        ),
        ({"SCRIMP_LEDGER__STALE_S": "9"}, "SCRIMP_LEDGER__STALE_S must be at least twice HEARTBEAT_S"),
        ({"SCRIMP_LEDGER__KEEP_DAYS": "3"}, "SCRIMP_LEDGER__KEEP_DAYS must exceed the 3 days that the stages' topics keep their records"),
        (
            {"SCRIMP_LEDGER__URL": "mysql://u:hunter2@h/db"},
            "SCRIMP_LEDGER__URL: must begin with sqlite+aiosqlite:/// or postgresql+asyncpg://",
        ),
        (
            {"SCRIMP_CLASSIFY__SHORT_CONTEXT_TOKENS": "10001"},
            "SCRIMP_CLASSIFY__SHORT_CONTEXT_TOKENS must not exceed LONG_CONTEXT_TOKENS",
        ),
        ({"SCRIMP_CALL__TIMEOUT_S": "70"}, "SCRIMP_CALL__DRAIN_S must exceed TIMEOUT_S, or a stop throws paid calls away"),
    ],
)
def test_settings_that_contradict_each_other(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], line: str) -> None:
    assert told(monkeypatch, **variables) == line


@pytest.mark.parametrize(
    "value", ["a:b", "localhost", "a:9092,", "a:9092,b", "a:9092;b:9092", "a:0", "a:65536", "kafka://a:9092", "::1:9092", ":9092", "a b:1"]
)
def test_brokers_are_host_and_port(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    line = "SCRIMP_KAFKA__BOOTSTRAP_SERVERS: must be host:port of one or more brokers, separated by commas"
    assert told(monkeypatch, SCRIMP_KAFKA__BOOTSTRAP_SERVERS=value) == line


@pytest.mark.parametrize(
    ("value", "taken"), [("a:1, b-2.example:65535", "a:1,b-2.example:65535"), ("[::1]:9092", "[::1]:9092"), ("127.0.0.1:9092",) * 2]
)
def test_brokers_that_can_be_asked(monkeypatch: pytest.MonkeyPatch, value: str, taken: str) -> None:
    monkeypatch.setenv("SCRIMP_KAFKA__BOOTSTRAP_SERVERS", value)
    assert load().kafka.bootstrap_servers == taken


@pytest.mark.parametrize("query", ["sslmode=require", "ssl=require&sslrootcert=x", "hunter2=x"])
def test_what_the_driver_does_not_take_is_refused_without_being_quoted(monkeypatch: pytest.MonkeyPatch, query: str) -> None:
    line = told(monkeypatch, SCRIMP_LEDGER__URL=f"postgresql+asyncpg://u:p@h/db?{query}")
    assert line == (
        "SCRIMP_LEDGER__URL: takes host, passfile, port, prepared_statement_cache_size, ssl, target_session_attrs behind '?' "
        "(libpq's sslmode is ssl here), and '?' in a password is written %3F"
    )


def test_tls_to_the_ledger(monkeypatch: pytest.MonkeyPatch) -> None:
    line = told(monkeypatch, SCRIMP_LEDGER__URL="postgresql+asyncpg://u:p@h/db?ssl=true")
    assert line == "SCRIMP_LEDGER__URL: ssl must be one of disable, allow, prefer, require, verify-ca, verify-full"
    monkeypatch.setenv("SCRIMP_LEDGER__URL", "postgresql+asyncpg://u:p@h/db?ssl=verify-full&target_session_attrs=read-write")
    assert load().ledger.url.endswith("read-write")


@pytest.mark.parametrize("value", ["u:hunter2@h:port/db", "u:hunter2@h:99999/db", "hunter2:x"])
def test_a_ledger_that_cannot_be_read_is_told_without_its_password(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    line = told(monkeypatch, SCRIMP_LEDGER__URL=f"postgresql+asyncpg://{value}")
    assert line.startswith("SCRIMP_LEDGER__URL: cannot be read: the port must be a number")
    assert "hunter2" not in line


@pytest.mark.parametrize(
    "value",
    [
        "sqlite+aiosqlite:///scrimp.db",
        "sqlite+aiosqlite:////var/lib/l.db",
        "postgresql+asyncpg://u:p%40ss@h:5432/db",
        "postgresql+asyncpg:///db",
    ],
)
def test_a_ledger_that_can_be_read(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("SCRIMP_LEDGER__URL", value)
    assert load().ledger.url == value


@pytest.mark.parametrize("value", ["garbage", "qdrant:6333", "grpc://qdrant:6334", "http://", "http://qdrant:port", "http://qdrant:65536"])
def test_qdrant_is_asked_over_http(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    assert told(monkeypatch, SCRIMP_QDRANT__URL=value) == "SCRIMP_QDRANT__URL: must be http://host:port or https://host:port"


@pytest.mark.parametrize("value", ["", "http://qdrant:6333", "https://x.cloud.example", "http://[::1]:6333/prefix"])
def test_a_qdrant_that_can_be_asked(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("SCRIMP_QDRANT__URL", value)
    assert load().qdrant.url == value


def test_answers_outlast_the_slowest_record() -> None:
    longest = max(topic.retention for stage in STAGES.values() for topic in stage.reads)
    assert Settings().ledger.keep_days > longest.days


@pytest.mark.parametrize("name", ["SCRIMP_POLICY_FILE", "SCRIMP_QDRANT__PATH", "SCRIMP_ENCODER__PATH", "SCRIMP_KAFKA__SSL_CA_FILE"])
def test_an_empty_path_is_none(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "")
    assert load() == Settings()
    assert Path() not in (load().policy_file, load().qdrant.path, load().encoder.path, load().kafka.ssl_ca_file)


def test_a_secret_is_in_no_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRIMP_KAFKA__SASL_PASSWORD", "hunter2")
    monkeypatch.setenv("SCRIMP_QDRANT__API_KEY", "hunter2")
    given = load()
    assert "hunter2" not in repr(given) + str(given) + given.model_dump_json()
    assert "hunter2" not in told(monkeypatch, SCRIMP_KAFKA__SECURITY_PROTOCOL="SASL_SSL")


def test_the_policys_secrets_are_read_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACME_KEY", "k")
    assert (secret("ACME_KEY"), secret("NOT_SET"), secret(None)) == ("k", None, None)


def test_every_stage_has_its_settings() -> None:
    for name in STAGES:
        assert load().stage(name).window >= 1
