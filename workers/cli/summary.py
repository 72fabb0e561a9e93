"""What a run of the demo comes to: the figures of `scrimp demo --json`, and the checks that must hold. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from schemas import UNCLAIMED, CostRecord, Response
from schemas.types import usd
from workers.cli.show import Seen
from workers.laptop.model import Calls


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    ok: bool
    found: str


@dataclass(frozen=True, slots=True)
class Run:
    """One run, as it was read back through Kafka and told by the model server."""

    asked: int
    endings: Sequence[Seen]
    records: Sequence[CostRecord]
    calls: Calls | None
    """None: a provider served, which does not tell us its count."""
    seconds: float
    served_by: str
    priced_by: str


def figures(run: Run) -> dict[str, Any]:
    """The document that `--json` prints. Money is decimal strings of dollars; tokens `before` and `after` are those of the prompts that
    got as far as compression, `input` and `output` what was billed."""
    responses = [seen.response for seen in run.endings]
    around = [seen.tokens for seen in run.endings if seen.tokens is not None]
    return {
        "requests": run.asked,
        "by_status": _counted(r.status for r in responses),
        "by_source": _counted(r.source for r in responses),
        "by_tier": _counted(r.tier for r in responses),
        "by_model": _counted(r.model for r in responses),
        "tokens": {
            "before": sum(t.before for t in around),
            "after": sum(t.after for t in around),
            "input": sum(r.usage.input_tokens for r in responses),
            "output": sum(r.usage.output_tokens for r in responses),
        },
        "cost_usd": usd(_total(r.cost_usd for r in responses)),
        "baseline_usd": usd(_total(r.baseline_usd for r in responses)),
        "saved_usd": {
            lever: usd(_total(getattr(r.saved_usd, lever) for r in responses)) for lever in ("routing", "cache", "compression", "batch")
        },
        "seconds": round(run.seconds, 1),
        "served_by": run.served_by,
        "priced_by": run.priced_by,
        "provider_calls": run.calls.completions if run.calls else None,
        "attempts": sum(r.attempts for r in responses),
        "checks": [{"name": c.name, "ok": c.ok, "found": c.found} for c in checks(run)],
        "endings": [_ending(seen) for seen in run.endings],
    }


def checks(run: Run) -> list[Check]:
    """What must hold of every run of the demo's requests."""
    responses = [seen.response for seen in run.endings]
    attempts = sum(r.attempts for r in responses)
    # A call that was granted and never sent stands in the record, and is none of the response's.
    booked = sum(attempt.state != "abandoned" for record in run.records for attempt in record.attempts)
    wrong_sums = [r.request_id for r in responses if r.baseline_usd - r.cost_usd != r.saved_usd.total]
    unbooked = _ids(responses, UNCLAIMED) ^ {(record.tenant, record.request_id) for record in run.records}
    made = [
        Check("every request has ended", len(responses) == run.asked, f"{len(responses)} of {run.asked}"),
        Check("the levers add up", not wrong_sums, ", ".join(wrong_sums) or "baseline - cost = saved in every response"),
        Check("every ending is in the books", not unbooked and booked == attempts, f"{len(run.records)} cost records, {booked} attempts"),
        _sources(run, "volatile and personal answers never come from the cache", ("volatile", "personal"), all, cached=False),
        _sources(run, "a paraphrase is answered from the cache", ("paraphrase",), any, cached=True),
        _sources(run, "a near-trap is not", ("near-trap",), all, cached=False),
        _refused(run, "the malformed request is refused", "malformed", "invalid_request"),
        _refused(run, "the request over budget is refused", "over budget", "budget_exceeded"),
    ]
    if run.calls is not None:
        n = run.calls.completions
        made += [
            Check("the model server's calls equal the attempts", n == attempts, f"{n} calls, {attempts} attempts"),
            Check("every call has max_tokens", run.calls.without_max_tokens == 0, f"{run.calls.without_max_tokens} calls without"),
        ]
    return made


def _sources(run: Run, name: str, kinds: tuple[str, ...], every: Any, *, cached: bool) -> Check:
    found = [seen.response for seen in run.endings if seen.about in kinds]
    as_wanted = [(r.source or "").startswith("cache") == cached for r in found]
    return Check(name, bool(found) and every(as_wanted), ", ".join(f"{r.request_id}: {r.source or r.status}" for r in found))


def _refused(run: Run, name: str, about: str, code: str) -> Check:
    found = [seen.response.reason.code if seen.response.reason else seen.response.status for seen in run.endings if seen.about == about]
    return Check(name, found == [code], ", ".join(found))


def _ids(responses: Iterable[Response], without: frozenset[str]) -> set[tuple[str | None, str]]:
    return {(r.tenant, r.request_id) for r in responses if r.reason is None or r.reason.code not in without}


def _ending(seen: Seen) -> dict[str, Any]:
    r = seen.response
    return {
        "tenant": r.tenant,
        "request_id": r.request_id,
        "about": seen.about,
        "status": r.status,
        "reason": r.reason.code if r.reason else None,
        "source": r.source,
        "tier": r.tier,
        "model": r.model,
        "attempts": r.attempts,
        "flags": list(r.flags),
        "tokens": seen.tokens.model_dump() if seen.tokens else None,
        "cost_usd": usd(r.cost_usd),
        "baseline_usd": usd(r.baseline_usd),
        "saved_usd": r.saved_usd.model_dump(mode="json"),
    }


def _counted(values: Iterable[str | None]) -> dict[str, int]:
    return dict(sorted(Counter(v for v in values if v is not None).items()))


def _total(amounts: Iterable[Decimal]) -> Decimal:
    return sum(amounts, Decimal(0))
