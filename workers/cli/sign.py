"""Signatures of the requests that the command line publishes, for tenants whose policy demands one.

A key that is not in the environment: `PolicyError`, which names the variable.
"""

from __future__ import annotations

import hashlib
import hmac

from workers.classify.admit import SCHEME, SIGNATURE
from workers.policy import Policy, PolicyError
from workers.settings import secret

Headers = tuple[tuple[str, bytes], ...]


def signed(policy: Policy, tenant: str, value: bytes) -> Headers:
    """The headers of a request of this tenant whose record value is `value`."""
    entry = policy.tenant(tenant)
    if entry is None or entry.hmac_env is None:
        return ()
    key = secret(entry.hmac_env)
    if not key:
        raise PolicyError(f"requests of tenant {tenant} must be signed: set {entry.hmac_env}")
    return ((SIGNATURE, (SCHEME + hmac.new(key.encode(), value, hashlib.sha256).hexdigest()).encode()),)
