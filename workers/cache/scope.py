"""Who may share an answer, and which answer is the very same: the cache's keys. Pure functions.

`scope` is the security boundary. It hashes everything but the wording of the last turn that can change an answer or who may see it, as
canonical JSON, so that no two different sets of facts read alike. Entries of another scope are never looked at.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
import uuid
from typing import Any

from schemas import Facts, Message, Plan, Prompt

SCHEMA = 1
"""Raise it when entries or keys change their meaning: what was stored before is then never found again."""

_NAMESPACE = uuid.UUID("5f6f2a1e-8d0b-5b7e-9a57-3a1f7c0d9e21")
_LITERAL = re.compile(r"[\n\"'`“”‘’«»\\]")


def scope(facts: Facts, prompt: Prompt, plan: Plan, encoder: str) -> str:
    """SHA-256, hex. `encoder` is the encoder's name: vectors of two encoders must not be compared.

    ValueError where nobody could be named as the owner: no tenant, or `share` is user and there is no user.
    """
    if facts.tenant is None:
        raise ValueError("an answer without a tenant belongs to nobody")
    if plan.cache.share == "user" and facts.user is None:
        raise ValueError("an answer shared with its user alone needs the user")
    params = prompt.params
    return _digest(
        {
            "schema": SCHEMA,
            "encoder": encoder,
            "tenant": facts.tenant,
            "user": facts.user if plan.cache.share == "user" else None,
            "share": plan.cache.share,
            # System and developer messages stand among them, with their places.
            "earlier": [_plain(message) for message in prompt.messages[:-1]],
            "instruction": plan.instruction,
            "documents": [_plain(document) for document in prompt.documents],
            "last": _without_text(prompt.messages[-1]),
            # A field of a newer version may change the answer: unknown means other.
            "unknown": prompt.model_extra,
            "tier": plan.tier if plan.forced else "auto",
            "stop": [*plan.stop],
            # The output limit is no part of it: whoever serves an entry checks that it fits.
            "params": params.model_dump(mode="json", exclude={"max_tokens", "max_completion_tokens"}),
        }
    )


def point_id(scope: str, text: str) -> str:
    """UUIDv5 of the exact prompt: one scope, one wording. Written twice, it is one entry."""
    return str(uuid.uuid5(_NAMESPACE, scope + same(text)))


def form_id(scope: str, form: str) -> str:
    """SHA-256, hex, of what the wordings of one question have in common (`guard.form`), in one scope."""
    return hashlib.sha256(f"{scope}/{form}".encode()).hexdigest()


def same(text: str) -> str:
    """The wording, without what cannot change an answer.

    An exact hit is served unguarded, so this folds little. Not case ("us" and "US", `foo` and `Foo`), nor compatibility forms (NFKC
    makes "5²" the number 52), nor whitespace in what may be quoted or code. What differs in these alone has nearly the same vector,
    and the semantic search finds it, with the guard.
    """
    composed = unicodedata.normalize("NFC", text).replace("\r\n", "\n").strip()
    return composed if _LITERAL.search(composed) else " ".join(composed.split())


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json")


def _without_text(message: Message) -> Any:
    """The last message but for its wording: role, names and parts such as images, in their places."""
    whole = message.model_dump(mode="json")
    if isinstance(whole["content"], str):
        return whole | {"content": "text"}
    parts = whole["content"] or []
    return whole | {"content": [{k: v for k, v in part.items() if k != "text" or not isinstance(v, str)} for part in parts]}


def _digest(material: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(material, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
