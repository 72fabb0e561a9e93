from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal

import pytest

from schemas import AttemptRecord, Saved
from tests.unit.cli.endings import hit, record, refused, response, seen
from workers.cli.show import Seen
from workers.cli.summary import Run, checks, figures
from workers.laptop.model import Calls

ENDINGS = (
    seen("short", response("a")),
    seen("ordinary", response("b", attempts=2, tier="standard", model="middle")),
    seen("paraphrase", hit("c")),
    seen("near-trap", response("d")),
    seen("volatile", response("e")),
    seen("personal", response("f")),
    seen("over budget", refused("g", "budget_exceeded")),
    seen("malformed", refused("h", "invalid_request")),
)
RUN = Run(
    asked=8,
    endings=ENDINGS,
    records=[record(s.response) for s in ENDINGS if s.about != "malformed"],
    calls=Calls(completions=6, without_max_tokens=0, errors=1),
    seconds=12.34,
    served_by="a small model",
    priced_by="list prices",
)


def ending(about: str, other: Seen | None) -> Callable[[Run], Run]:
    """The run with another ending, or none, in place of the one that shows `about`."""

    def change(run: Run) -> Run:
        endings = [other if s.about == about else s for s in run.endings]
        return replace(run, endings=[s for s in endings if s is not None])

    return change


def test_a_good_run_passes_every_check() -> None:
    assert [c for c in checks(RUN) if not c.ok] == []


def test_a_call_that_was_never_sent_is_in_the_books_and_counts_nowhere() -> None:
    first, *rest = RUN.records
    never_sent = AttemptRecord(n=2, model="mini", provider="openai", state="abandoned", outcome="not_sent")
    run = replace(RUN, records=[first.model_copy(update={"attempts": (*first.attempts, never_sent)}), *rest])
    assert [c for c in checks(run) if not c.ok] == []


@pytest.mark.parametrize(
    ("change", "failing"),
    [
        (ending("short", None), "every request has ended"),
        (ending("short", seen("short", response("a", saved_usd=Saved(routing=Decimal("0.00004"))))), "the levers add up"),
        (lambda run: replace(run, records=run.records[1:]), "every ending is in the books"),
        (lambda run: replace(run, records=[*run.records[:-1], record(response("g"))]), "every ending is in the books"),
        (ending("volatile", seen("volatile", hit("e"))), "volatile and personal answers never come from the cache"),
        (ending("personal", seen("personal", hit("f", "cache_exact"))), "volatile and personal answers never come from the cache"),
        (ending("paraphrase", seen("paraphrase", response("c"))), "a paraphrase is answered from the cache"),
        (ending("near-trap", seen("near-trap", hit("d"))), "a near-trap is not"),
        (ending("malformed", seen("malformed", response("h"))), "the malformed request is refused"),
        (ending("over budget", seen("over budget", response("g"))), "the request over budget is refused"),
        (lambda run: replace(run, calls=Calls(7, 0, 0)), "the model server's calls equal the attempts"),
        (lambda run: replace(run, calls=Calls(6, 1, 0)), "every call has max_tokens"),
    ],
)
def test_each_check_can_fail(change: Callable[[Run], Run], failing: str) -> None:
    assert failing in [c.name for c in checks(change(RUN)) if not c.ok]


def test_a_provider_tells_no_count_so_none_is_checked() -> None:
    run = replace(RUN, calls=None)
    assert figures(run)["provider_calls"] is None
    assert [c for c in checks(run) if not c.ok or "model server" in c.name] == []


def test_the_figures_are_sums_and_money_is_text() -> None:
    f = figures(RUN)
    assert (f["requests"], f["seconds"], f["attempts"], f["provider_calls"]) == (8, 12.3, 6, 6)
    assert f["by_status"] == {"answered": 6, "rejected": 2}
    assert f["by_source"] == {"cache_semantic": 1, "model": 5}
    assert f["by_tier"] == {"light": 5, "standard": 1}
    assert f["by_model"] == {"mini": 5, "middle": 1}
    assert f["tokens"] == {"before": 500, "after": 300, "input": 50, "output": 20}
    assert (f["cost_usd"], f["baseline_usd"]) == ("0.00001", "0.000312")
    assert f["saved_usd"] == {"routing": "0.0003", "cache": "0.000002", "compression": "0", "batch": "0"}
    assert Decimal(f["baseline_usd"]) - Decimal(f["cost_usd"]) == sum(map(Decimal, f["saved_usd"].values()))
    assert [e["request_id"] for e in f["endings"]] == list("abcdefgh")
