"""The stage `classify`: from a request to its plan, decided once so that later stages do not decide it again.

Ends no request, retries nothing and parks on nothing: it needs the policy and the tokenizer, which are in memory. Who may ask is
decided before (`admit`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from schemas import Classified, Plan, Prompt
from schemas.types import TIERS, Tier
from workers.classify.cache_plan import cache_plan
from workers.classify.intake import Asked
from workers.classify.route import MoreThan, Thresholds, route
from workers.offload import offload
from workers.outcomes import Outcome, emit
from workers.policy import Policy, Rules
from workers.topics import CLASSIFIED

Classify = Callable[[Sequence[Asked]], Awaitable[list[Outcome]]]


def make_classify(*, policy: Callable[[], Policy], thresholds: Thresholds, more_than: MoreThan) -> Classify:
    """`policy` gives the current policy; a batch is decided by one policy, even if the file changes meanwhile."""

    async def classify(events: Sequence[Asked]) -> list[Outcome]:
        current = policy()
        # Rules and tokenizer are CPU alone: a batch of long prompts must not hold the event loop.
        prompts = [_prompt(asked) for asked in events]
        return await offload(
            lambda: [_decide(asked, prompt, current, thresholds, more_than) for asked, prompt in zip(events, prompts, strict=True)], prompts
        )

    return classify


def _prompt(asked: Asked) -> Prompt:
    request = asked.request
    return Prompt(messages=request.messages, documents=request.documents, params=request.params)


def _decide(asked: Asked, prompt: Prompt, policy: Policy, thresholds: Thresholds, more_than: MoreThan) -> Outcome:
    facts, request = asked.facts, asked.request
    rules = policy.rules(request.feature)
    if request.tier == "auto":
        tier, why = route(request.messages, request.documents, thresholds, more_than)
    else:
        tier, why = request.tier, "forced"
    asked_tokens = request.params.asked_tokens
    plan = Plan(
        tier=tier,
        tier_why=why,
        forced=request.tier != "auto",
        cascade=rules.cascade,
        models={t: policy.tiers.get(t, ()) for t in TIERS},
        max_tokens={t: _limit(asked_tokens, rules, t) for t in TIERS},
        max_attempts=rules.max_attempts,
        instruction=rules.instruction,
        stop=rules.stop,
        compress_rate=rules.compress.rate if request.compress == "auto" and rules.compress.rate < 1 else None,
        cache=cache_plan(request, rules.cache),
        flags=("max_tokens_capped",) if asked_tokens is not None and asked_tokens > rules.max_tokens_cap[tier] else (),
    )
    return emit(CLASSIFIED, Classified(facts=facts, prompt=prompt, plan=plan), facts.key)


def _limit(asked: int | None, rules: Rules, tier: Tier) -> int:
    return min(rules.max_tokens[tier] if asked is None else asked, rules.max_tokens_cap[tier])
