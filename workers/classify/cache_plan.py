"""May this request be answered from the cache, may its answer be stored, and with whom is it shared. Pure; cannot fail.

The customer's MUST: an answer whose correctness depends on time or on the asker's own state is never stored and never served, not
even to the same person. What is only unsure is shared with nobody but its user.
"""

from __future__ import annotations

from schemas import CachePlan, Request
from schemas.internal import CacheVerdict, Share
from workers.classify.cacheable import same_for_all, verdict
from workers.policy import CachePolicy

MAX_TEMPERATURE = 0.3
"""Above it, asked for explicitly, the user wants answers to differ."""


def cache_plan(request: Request, policy: CachePolicy) -> CachePlan:
    """The first rule that says no gives the verdict: off, uncacheable, sampling, personal, volatile, deictic, no_user."""
    ttl_s = policy.ttl_s if request.cache.ttl_s is None else min(request.cache.ttl_s, policy.ttl_s)
    said = _verdict(request, ttl_s)
    share: Share = "tenant"
    if said == "cacheable":
        share = policy.share if policy.share != "auto" else "tenant" if same_for_all(request.messages[-1].text) else "user"
        if share == "user" and request.user is None:
            said = "no_user"
    write = said == "cacheable"
    return CachePlan(
        verdict=said,
        read=write and request.cache.mode != "refresh",
        write=write,
        semantic=policy.semantic,
        share=share,
        candidate_threshold=policy.candidate_threshold,
        serve_threshold=policy.serve_threshold,
        ttl_s=ttl_s,
    )


def _verdict(request: Request, ttl_s: int) -> CacheVerdict:
    if request.cache.mode == "off" or ttl_s == 0:
        return "off"
    if not _text_only(request):
        return "uncacheable"
    if (request.params.temperature or 0) > MAX_TEMPERATURE:
        return "sampling"
    turns = [m.text for m in request.messages if m.role == "user"]
    return verdict(turns[-1], earlier=turns[:-1], documents=any(d.text.strip() for d in request.documents))


def _text_only(request: Request) -> bool:
    """Neither tools (their answers are the state of the world) nor images and other parts that the cache's key cannot hold."""
    if request.params.tools:
        return False
    return all(m.role != "tool" and not (m.model_extra or {}).get("tool_calls") and _plain(m.content) for m in request.messages) and bool(
        request.messages[-1].text.strip()
    )


def _plain(content: object) -> bool:
    return not isinstance(content, tuple) or all(isinstance(p.get("text"), str) and p.get("type") == "text" for p in content)
