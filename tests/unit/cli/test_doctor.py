"""What is a problem, what is a note, and what is said of each."""

from __future__ import annotations

from pathlib import Path

import pytest

from workers import policy
from workers.cli import doctor
from workers.laptop import broker, model
from workers.laptop.process import LaptopError
from workers.runtime import provision
from workers.settings import Kafka, Settings

POLICY = """
models: {m: {litellm: openai/gpt-4o-mini, context: 9000, api_key_env: OF_THIS_TEST}}
tiers: {light: [m]}
reference: m
tenants: {acme: {hmac_env: KEY_OF_ACME, responses_topic: acme.answers}, other: {}, unknown: reject}
"""


@pytest.fixture
def rules(monkeypatch: pytest.MonkeyPatch) -> policy.Policy:
    for name in ("OF_THIS_TEST", "KEY_OF_ACME"):
        monkeypatch.delenv(name, raising=False)
    return policy.parse(POLICY, "test")


@pytest.mark.parametrize("needed", [True, False])
def test_a_missing_key_is_a_problem_where_it_is_needed_and_else_a_note(rules: policy.Policy, needed: bool) -> None:
    (found,) = doctor.models(rules, keys_needed=needed)
    assert (found.about, found.ok, found.mark.strip()) == ("model m", not needed, "PROBLEM" if needed else "note")
    assert "OF_THIS_TEST" in found.advice


def test_openai_itself_is_not_called_without_a_key() -> None:
    (found,) = doctor.models(policy.parse(POLICY.replace(", api_key_env: OF_THIS_TEST", ""), "test"))
    assert (found.about, found.ok, "models.m.api_key_env" in found.advice) == ("model m", False, True)
    own = POLICY.replace("api_key_env: OF_THIS_TEST", "api_base: 'http://127.0.0.1:1/v1', price: {input: 0, output: 0}")
    (found,) = doctor.models(policy.parse(own, "test"))
    assert found.ok


def test_a_tenant_that_signs_needs_its_key_here(rules: policy.Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    (found,) = doctor.tenants(rules)
    assert (found.about, found.ok, found.advice) == ("tenant acme", False, "set KEY_OF_ACME")
    monkeypatch.setenv("KEY_OF_ACME", "s3cret")
    (found,) = doctor.tenants(rules)
    assert (found.ok, found.mark) == (True, "ok     ")
    assert "s3cret" not in repr(found)


def test_the_laptops_parts_are_notes(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise LaptopError("it is not installed: pip install it")

    monkeypatch.setattr(broker, "installed", missing)
    monkeypatch.setattr(model, "weights", missing)
    found = {f.about: f for f in doctor.laptop()}
    assert set(found) == {"laptop broker", "laptop model", "laptop encoder"}
    assert all(f.ok for f in found.values())
    for name in ("laptop broker", "laptop model"):
        assert (found[name].text, found[name].mark) == ("it is not installed", "note   ")
        assert found[name].advice.endswith("pip install it")


async def test_a_tenants_own_topic_must_be_there(rules: policy.Policy, tmp_path: Path) -> None:
    async with broker.embedded_broker(None, tmp_path) as running:
        kafka = Kafka(bootstrap_servers=running.bootstrap, idempotence=False)
        await provision.apply(kafka)
        _, topics = await doctor._kafka(rules, Settings(kafka=kafka))
        assert (topics.ok, topics.text) == (False, "acme.answers: missing; run `scrimp topics apply`")
