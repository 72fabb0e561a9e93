"""Who may ask: tenants the policy knows, with a signature where it demands one. Before anything else is done in a tenant's name.

Whoever can write the topic can claim any tenant, so a rejection here claims no id: an impostor uses up nobody's. A tenant whose key is not
set in this process is refused (what guards the tenant's money fails closed), with a message that says so to its owner.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterable

from workers.classify.intake import Asked
from workers.outcomes import Outcome, end
from workers.policy import Policy

SIGNATURE = "x-signature"
SCHEME = "sha256="


def admit(
    asked: Asked, value: bytes, headers: Iterable[tuple[str, bytes]], policy: Policy, key: Callable[[str], str | None]
) -> Asked | Outcome:
    """`value` is the record's value as it came, which is what is signed: `x-signature: sha256=` and the lower-case hex HMAC-SHA256.

    `key` gives the secret behind a variable's name.
    """
    facts, name = asked.facts, asked.request.tenant
    tenant = policy.tenant(name)
    if tenant is None:
        return end(facts, "rejected", "unknown_tenant", f"tenant: the policy does not know {name!r} and refuses unknown tenants")
    if tenant.hmac_env is None:
        return asked
    secret = key(tenant.hmac_env)
    if not secret:
        # Without the variable's name: users read this, and who wrote the key itself in its place must not find it published.
        told = f"the fleet has no key to check the signatures of {name!r}: who runs it must set the variable that hmac_env names"
        return end(facts, "rejected", "bad_signature", told)
    wanted = SCHEME + hmac.new(secret.encode(), value, hashlib.sha256).hexdigest()
    given = next((v for k, v in headers if k == SIGNATURE), b"")
    if not hmac.compare_digest(given or b"", wanted.encode()):
        return end(facts, "rejected", "bad_signature", f"header {SIGNATURE}: not {SCHEME} and the HMAC-SHA256 of the record value")
    return asked
