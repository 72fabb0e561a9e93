"""Who may ask: known tenants, and signatures where the policy demands them."""

from __future__ import annotations

import hashlib
import hmac
import json
from datetime import UTC, datetime

import pytest

from workers.classify.admit import admit
from workers.classify.intake import Asked, read
from workers.outcomes import End, Outcome
from workers.policy import parse

POLICY = parse(
    """
models: {m: {litellm: openai/m, context: 8000}}
tiers: {light: [m]}
reference: m
tenants: {acme: {hmac_env: ACME_KEY}, plain: {}, keyless: {hmac_env: NOT_SET}}
""",
    "test",
)
KEYS = {"ACME_KEY": "s3cret"}


def value(tenant: str) -> bytes:
    return json.dumps({"request_id": "r-1", "tenant": tenant, "feature": "f", "messages": [{"role": "user", "content": "Hello?"}]}).encode()


def ask(tenant: str, *signatures: bytes, body: bytes | None = None) -> Asked | Outcome:
    raw = value(tenant)
    asked = read(raw, lane="interactive", timestamp_ms=None, now=datetime.now(UTC), trace_id="t")
    assert isinstance(asked, Asked)
    return admit(asked, body or raw, [("x-lane", b"bulk"), *(("x-signature", s) for s in signatures)], POLICY, KEYS.get)


def sign(body: bytes, key: str = "s3cret") -> bytes:
    return b"sha256=" + hmac.new(key.encode(), body, hashlib.sha256).hexdigest().encode()


def code(outcome: Asked | Outcome) -> str:
    assert isinstance(outcome, End), outcome
    assert outcome.finished.status == "rejected"
    assert outcome.finished.reason is not None
    assert "s3cret" not in outcome.finished.reason.message
    return outcome.finished.reason.code


def test_a_right_signature_and_a_tenant_without_one_are_let_in() -> None:
    assert isinstance(ask("acme", sign(value("acme"))), Asked)
    assert isinstance(ask("plain"), Asked)
    assert isinstance(ask("plain", b"whatever"), Asked)


@pytest.mark.parametrize(
    "signatures",
    [
        (),
        (b"",),
        (b"sha256=",),
        (sign(value("acme"), "other"),),
        (sign(value("plain")),),
        (sign(value("acme")).upper(),),
        (sign(value("acme"))[7:],),
        (b"\xff\xfe",),
        (b"nonsense", sign(value("acme"))),
    ],
)
def test_anything_else_is_a_bad_signature(signatures: tuple[bytes, ...]) -> None:
    assert code(ask("acme", *signatures)) == "bad_signature"


def test_one_changed_byte_is_a_bad_signature() -> None:
    assert code(ask("acme", sign(value("acme")), body=value("acme") + b" ")) == "bad_signature"


def test_a_key_that_is_not_set_lets_nobody_in_and_names_no_variable() -> None:
    outcome = ask("keyless", sign(value("keyless"), ""))
    assert code(outcome) == "bad_signature"
    assert isinstance(outcome, End)
    message = outcome.finished.reason.message  # type: ignore[union-attr]
    assert "the variable that hmac_env names" in message
    assert "NOT_SET" not in message


def test_an_unknown_tenant_is_rejected_by_name() -> None:
    outcome = ask("stranger")
    assert code(outcome) == "unknown_tenant"
    assert isinstance(outcome, End)
    assert "stranger" in outcome.finished.reason.message  # type: ignore[union-attr]
