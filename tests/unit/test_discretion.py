"""Secrets and prompts stand in no repr and no error text: whatever is logged one day by a careless line, it tells nothing."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError
from typer.testing import CliRunner

from schemas import (
    CacheKey,
    CachePlan,
    Compressed,
    Document,
    Facts,
    Finished,
    Message,
    Params,
    Plan,
    Prompt,
    Request,
    Response,
    Saved,
    TokensAround,
    Usage,
)
from workers import outcomes, policy, topics
from workers.classify.intake import Asked, read
from workers.cli.main import app
from workers.ledger.types import Answer, Settlement, Statement, Stored
from workers.outcomes import Dead, Emit
from workers.runtime.client import Record
from workers.runtime.producer import Outgoing
from workers.settings import SettingsError, load

MARK = "heliotrope-7"
"""What must not be seen."""
NOW = datetime.now(UTC)
METADATA = {"note": MARK, MARK: 1}
TOOL = {"type": "function", "function": {"name": MARK}}

REQUEST: dict[str, Any] = {
    "request_id": "r-1",
    "tenant": "acme",
    "feature": "bot",
    "messages": [{"role": "system", "content": MARK}, {"role": "user", "content": [{"type": "text", "text": MARK}], "name": MARK}],
    "documents": [{"id": "kb", "text": MARK}],
    "params": {
        "stop": [MARK],
        "tools": [TOOL],
        "tool_choice": TOOL,
        "response_format": {"type": "json_schema", "json_schema": {"x": MARK}},
    },
    "metadata": METADATA,
    "surprise": MARK,
}
FACTS = Facts(
    request_id="r-1", tenant="acme", feature="bot", user=None, experiment=None, lane="interactive", body_hash="00", created_at=NOW,
    deadline_at=NOW, trace_id="t", metadata=METADATA, surprise=MARK,  # type: ignore[call-arg]
)  # fmt: skip
CACHE = CachePlan(
    verdict="cacheable", read=True, write=True, semantic=True, share="tenant", candidate_threshold=0.9, serve_threshold=0.95, ttl_s=60
)
PLAN = Plan(
    tier="light", tier_why="test", forced=False, cascade=True, models={}, max_tokens={}, max_attempts=1, compress_rate=None, cache=CACHE
)
PROMPT = Prompt(messages=(Message(role="user", content=MARK),), documents=(Document(text=MARK),), params=Params(stop=MARK))
KEY = CacheKey(point_id="p", scope="s", text=MARK, vector=MARK)
ANSWER = Answer(MARK, (TOOL,), "stop")
FINISHED = Finished(facts=FACTS, status="answered", content=MARK, tool_calls=(TOOL,), cache_key=KEY, surprise=MARK)  # type: ignore[call-arg]
BYTES = MARK.encode()

THINGS: dict[str, object] = {
    "request": Request.model_validate_json(json.dumps(REQUEST)),
    "asked": Asked(FACTS, Request.model_validate_json(json.dumps(REQUEST))),
    "compressed": Compressed(facts=FACTS, prompt=PROMPT, plan=PLAN, cache_key=KEY, tokens=TokensAround(before=1, after=1)),
    "finished": FINISHED,
    "response": Response(
        request_id="r", tenant="acme", feature=None, user=None, experiment=None, lane="bulk", status="answered", content=MARK,
        tool_calls=(TOOL,), created_at=NOW, finished_at=NOW, trace_id="t", metadata=METADATA,
    ),
    "settlement": Settlement("acme", "r", 1, Usage(), Decimal(0), "accepted", "accepted", ANSWER),
    "statement": Statement(BYTES, b"{}", Decimal(0), Decimal(0), Decimal(0), Saved()),
    "stored": Stored(BYTES, b"{}", True),
    "emit": Emit((outcomes.Message(topics.RESPONSES, "k", BYTES), outcomes.Message(topics.FINISHED, "k", FINISHED))),
    "end": outcomes.End(FINISHED),
    "outgoing": Outgoing("t", b"k", BYTES, (("x-signature", BYTES),)),
    "record": Record("t", 0, 0, "k", BYTES, (("x-signature", BYTES),), NOW),
}  # fmt: skip


@pytest.mark.parametrize("name", THINGS)
def test_a_repr_tells_whose_it_is_and_not_what_it_says(name: str) -> None:
    thing = THINGS[name]
    assert MARK in json.dumps(list(_leaves(thing)), default=str), "the test must have something to find"
    assert MARK not in repr(thing)
    assert MARK not in str(thing)
    assert MARK not in f"{[thing]}"


BROKEN: dict[str, Callable[[], object]] = {
    "a role": lambda: Request.model_validate(REQUEST | {"messages": [{"role": MARK, "content": MARK}]}),
    "a part": lambda: Request.model_validate_json(json.dumps(REQUEST | {"messages": [{"role": "user", "content": [{"text": MARK}]}]})),
    "a parameter": lambda: Request.model_validate(REQUEST | {"params": {"temperature": MARK}}),
    "no JSON": lambda: Request.model_validate_json(f'{{"messages": "{MARK}'),
    "an event": lambda: Compressed.model_validate({"facts": MARK, "prompt": {"messages": MARK}}),
    "an ending": lambda: Finished.model_validate_json(json.dumps({"facts": {"metadata": MARK}, "content": [MARK]})),
    "a message": lambda: Message.model_validate({"role": "user", "content": {"x": MARK}}),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_does_not_fit_is_not_quoted(what: str) -> None:
    with pytest.raises(ValidationError) as caught:
        BROKEN[what]()
    assert MARK not in str(caught.value)


@pytest.mark.parametrize(
    "value",
    [
        f'{{"request_id": "{MARK}'.encode(),
        f'{{"tenant": "{MARK}", "messages": "{MARK}"}}'.encode(),
        f'["{MARK}"]'.encode(),
        MARK.encode() + b"\xff",
        json.dumps(REQUEST | {"messages": [{"role": "user", "content": {"x": MARK}}], "tier": MARK}).encode(),
        json.dumps(REQUEST | {"params": {"temperature": MARK, "top_p": MARK}}).encode(),
    ],
)
def test_what_users_are_told_of_a_bad_request_does_not_quote_it(value: bytes) -> None:
    outcome = read(value, lane="interactive", timestamp_ms=None, now=NOW, trace_id="t")
    told = outcome.error if isinstance(outcome, Dead) else outcome.finished.reason.message  # type: ignore[union-attr]
    assert MARK not in told


ENVIRONMENT = {
    "SCRIMP_KAFKA__SECURITY_PROTOCOL": "SASL_SSL",
    "SCRIMP_KAFKA__SASL_MECHANISM": "PLAIN",
    "SCRIMP_KAFKA__SASL_USERNAME": "scrimp",
    "SCRIMP_KAFKA__SASL_PASSWORD": MARK,
    "SCRIMP_LEDGER__URL": f"postgresql+asyncpg://scrimp:{MARK}@127.0.0.1:1/scrimp",
    "SCRIMP_QDRANT__URL": f"http://scrimp:{MARK}@127.0.0.1:1",
    "SCRIMP_QDRANT__API_KEY": MARK,
}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> pytest.MonkeyPatch:
    monkeypatch.chdir(tmp_path)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_settings_tell_no_password(environment: pytest.MonkeyPatch) -> None:
    settings = load()
    assert settings.kafka.sasl_password.get_secret_value() == MARK
    for told in (repr(settings), str(settings), repr(settings.kafka), repr(settings.ledger), repr(settings.qdrant)):
        assert MARK not in told


@pytest.mark.parametrize("command", ["ledger upgrade", "ledger verify", "report", "topics check", "dead list"])
def test_a_command_that_reaches_nothing_tells_no_password(environment: pytest.MonkeyPatch, command: str) -> None:
    environment.setenv("SCRIMP_KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:1")
    environment.setenv("SCRIMP_KAFKA__REQUEST_TIMEOUT_MS", "1000")
    done = CliRunner().invoke(app, command.split())
    assert done.exit_code == 1
    told = [done.output, *(repr(error) for error in _chain(done.exception))]
    assert "127.0.0.1" in str(told) or "Errno" in str(told), "the test must have reached for it"
    assert MARK not in str(told)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SCRIMP_LEDGER__URL", f"postgres://scrimp:{MARK}@db/scrimp"),
        ("SCRIMP_LEDGER__URL", f"postgresql+asyncpg://scrimp:{MARK}@@db:x/scrimp"),
        ("SCRIMP_QDRANT__URL", f"scrimp:{MARK}@qdrant"),
        ("SCRIMP_KAFKA__SASL_MECHANISM", MARK),
        ("SCRIMP_KAFKA__BOOTSTRAP_SERVERS", f"scrimp:{MARK}@broker"),
        ("SCRIMP_KAFKA__SASL_PASWORD", MARK),
    ],
)
def test_a_setting_that_is_wrong_is_not_quoted(environment: pytest.MonkeyPatch, name: str, value: str) -> None:
    environment.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        load()
    for error in _chain(caught.value):
        assert MARK not in str(error)


@pytest.mark.parametrize(
    "more",
    [
        f"tenants: {{acme: {{hmac_env: '{MARK}'}}}}",
        f"tenants: {{acme: {{hmac_key: '{MARK}'}}}}",
        f"defaults: {{stop: '{MARK}'}}",
        f"timezone: ['{MARK}']",
    ],
)
def test_a_policy_that_is_wrong_is_not_quoted(more: str) -> None:
    """Whoever writes the key where its variable's name should stand must not find it in the log."""
    models = "models: {mini: {litellm: openai/mini, context: 8000, api_key_env: OPENAI_API_KEY}}\ntiers: {light: [mini]}\nreference: mini\n"
    with pytest.raises(policy.PolicyError) as caught:
        policy.parse(models + more, "test")
    for error in _chain(caught.value):
        assert MARK not in str(error)


def test_the_logger_of_a_stage_tells_where_and_not_what(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("scrimp").error("%s %r", THINGS["finished"], THINGS["outgoing"])
    assert MARK not in caplog.text


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _leaves(thing: object) -> Iterator[object]:
    if isinstance(thing, BaseModel):
        yield thing.model_dump()
    elif is_dataclass(thing):
        for field in fields(thing):
            yield from _leaves(getattr(thing, field.name))
    elif isinstance(thing, tuple | list):
        for inner in thing:
            yield from _leaves(inner)
    elif isinstance(thing, Mapping | str | bytes):
        yield str(thing)
