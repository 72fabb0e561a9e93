"""Events between stages. The topics that carry them belong to the fleet; users neither write nor read them.

Prompts travel only as far as they are needed: `Classified`, `Missed` and `Compressed` hold one, `Finished` holds none, except the
text of the last user turn inside a cache entry that is to be stored.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from schemas.request import Document, Message, Params
from schemas.response import Reason, Usage
from schemas.types import Flag, Internal, Lane, Purpose, Source, Status, Tier, Time

Share = Literal["user", "tenant"]
CacheVerdict = Literal["cacheable", "volatile", "personal", "deictic", "off", "no_user", "sampling", "uncacheable"]


class Facts(Internal):
    """Who asked, when, and under which key: what every ending needs and what never changes on the way."""

    request_id: str
    tenant: str | None
    feature: str | None
    user: str | None
    experiment: str | None
    lane: Lane
    purpose: Purpose = "request"
    body_hash: str
    """SHA-256, hex, of the parsed record (sorted keys, no spaces) and the lane."""
    created_at: Time
    """Arrival: the Kafka record's timestamp, or the time of first reading."""
    deadline_at: Time
    trace_id: str
    metadata: dict[str, Any] | None = Field(default_factory=dict, repr=False)

    @property
    def key(self) -> str:
        return f"{self.tenant or ''}/{self.request_id}"


class Prompt(Internal):
    messages: tuple[Message, ...]
    documents: tuple[Document, ...] = ()
    params: Params = Params()


class CachePlan(Internal):
    """May this request be answered from the cache, may its answer be stored, and whose are the entries."""

    verdict: CacheVerdict
    read: bool
    write: bool
    semantic: bool
    share: Share
    candidate_threshold: float
    serve_threshold: float
    ttl_s: int


class Plan(Internal):
    """What classify decided, once, so that later stages do not decide it again."""

    tier: Tier
    tier_why: str
    forced: bool
    """The user named the tier: the request stays in it."""
    cascade: bool
    models: dict[Tier, tuple[str, ...]]
    """The policy's model names by tier: first choice, then fallbacks."""
    max_tokens: dict[Tier, int]
    """The output limit by tier: asked or default, never above the cap."""
    max_attempts: int
    instruction: str | None = None
    """A sentence the policy adds to the system message."""
    stop: tuple[str, ...] = ()
    compress_rate: float | None
    """Share of the documents' tokens to keep; None: leave them alone."""
    cache: CachePlan
    flags: tuple[Flag, ...] = ()


class CacheKey(Internal):
    """Where an answer lives in the cache: made by `cache`, used by `remember` once the answer is accepted."""

    point_id: str
    """UUID of the exact prompt inside its scope."""
    scope: str
    """Hex digest; entries of another scope are never looked at."""
    text: str = Field(repr=False)
    """The last user turn, which the guard compares."""
    form: str | None = None
    """Hex digest of the scope and of what all wordings of the question have in common; None: the answer is for this wording alone."""
    encoder: str | None = None
    """Name of the encoder that the scope is of."""
    vector: str | None = Field(None, repr=False)
    """Base64 of little-endian float32, of the wording, where `cache` has made one; else `remember` does when it stores the answer."""


class TokensAround(Internal):
    """The prompt's tokens around compression, by our own count."""

    before: int
    after: int


class CachedFrom(Internal):
    """What the stored answer cost when it was made: the measure of what the hit saved."""

    usage: Usage
    tokens: TokensAround
    similarity: float


class Classified(Internal):
    facts: Facts
    prompt: Prompt
    plan: Plan


class Missed(Classified):
    cache_key: CacheKey | None = None


class Compressed(Missed):
    tokens: TokensAround


class Finished(Internal):
    """An ending, whoever made it. `attribute` prices it, stores it and answers the user; `remember` stores the answer."""

    facts: Facts
    status: Status
    reason: Reason | None = None
    content: str | None = Field(None, repr=False)
    tool_calls: tuple[dict[str, Any], ...] | None = Field(None, repr=False)
    finish_reason: str | None = None
    source: Source | None = None
    tier: Tier | None = None
    model: str | None = None
    flags: tuple[Flag, ...] = ()
    tokens: TokensAround | None = None
    """Set where the prompt got as far as `compress`, or came from the cache entry."""
    cached_from: CachedFrom | None = None
    accepted: bool = False
    """The answer passed its quality check: only such answers may be remembered."""
    usage: Usage | None = None
    """Of the attempt that gave the answer; stored with the cache entry."""
    cache_plan: CachePlan | None = None
    cache_key: CacheKey | None = None
