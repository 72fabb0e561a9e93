from __future__ import annotations

import json

import pytest

from workers.classify.admit import SIGNATURE
from workers.cli.sign import signed
from workers.policy import PolicyError, parse

MODELS = {"models": {"m": {"litellm": "openai/m", "context": 1000}}, "tiers": {"light": ["m"]}, "reference": "m"}
POLICY = parse(json.dumps(MODELS | {"tenants": {"acme": {"hmac_env": "ACME_KEY"}, "unknown": "allow"}}), "test")


def test_a_signature_is_the_hmac_of_the_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACME_KEY", "Jefe")
    # RFC 4231, test case 2
    mac = b"sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    assert signed(POLICY, "acme", b"what do ya want for nothing?") == ((SIGNATURE, mac),)


def test_only_tenants_that_must_sign_do() -> None:
    assert signed(POLICY, "globex", b"x") == ()


def test_a_missing_key_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ACME_KEY", raising=False)
    with pytest.raises(PolicyError, match="set ACME_KEY"):
        signed(POLICY, "acme", b"x")
