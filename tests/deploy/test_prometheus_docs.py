"""Whoever is called by an alert finds its section: what it means, where to look first, what to do. And what alerts and pages name is there.

Needs no Prometheus.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from tests.deploy.prometheus import rules
from workers.call.failures import _BEFORE_SENDING, _STATUS, TRANSIENT
from workers.pipeline import STAGES
from workers.runtime import metrics

ROOT = Path(__file__).parents[2]
PAGE = "docs/operate.md"
OPERATE = (ROOT / PAGE).read_text()
RULES = {rule["alert"]: rule for rule in rules()}
EXPRESSIONS = re.findall(r"^ *```promql\n(.*?)^ *```", OPERATE, re.S | re.M)
OF_PROMETHEUS = {"up", "job", "instance", "le"}


def sections() -> dict[str, str]:
    return dict(re.findall(r"^### (Scrimp\w+)\n(.*?)(?=^##)", OPERATE, re.S | re.M))


def named(text: str) -> set[str]:
    return set(re.findall(r"\bscrimp_[a-z_]+", text))


def labels() -> dict[str, set[str]]:
    """The labels of each series that the workers may expose, by the name of the series."""
    found = {}
    for metric in vars(metrics).values():
        names = set(getattr(metric, "_labelnames", ()))
        for series in REGISTRY._get_names(metric) if hasattr(metric, "_labelnames") else ():
            found[series] = names | ({"le"} if series.endswith("_bucket") else set())
    return {series: names for series, names in found.items() if series.startswith("scrimp_")}


def test_every_alert_has_its_section_and_leads_there() -> None:
    assert list(sections()) == list(RULES)
    for alert, text in sections().items():
        assert re.findall(r"^- \*\*(.+?)\*\*: ", text, re.M) == ["Meaning", "First look", "Fix"], alert
        assert RULES[alert]["annotations"]["runbook_url"] == f"{PAGE}#{alert.lower()}"


def test_the_table_says_what_the_rules_say() -> None:
    rows = [
        f"| [{alert}](#{alert.lower()}) | {rule['labels']['severity']} | {rule.get('for', 'at once')} | "
        + ", ".join(f"`{name}`" for name in sorted(named(rule["expr"]) | ({"up"} if rule["expr"].startswith("up ") else set())))
        + " |"
        for alert, rule in RULES.items()
    ]
    assert re.findall(r"^\| \[Scrimp.*$", OPERATE, re.M) == rows


def test_every_first_look_has_something_to_look_at() -> None:
    for alert, text in sections().items():
        look = text.partition("**First look**")[2].partition("- **Fix**")[0]
        assert re.search(r"`(/readyz|/livez|scrimp [a-z]+|kubectl [a-z]+|[^`]*\.\.\.)|```promql|\blog\b|SCRIMP_", look), alert


def asked() -> Iterator[tuple[str, str]]:
    yield from ((alert, rule["expr"]) for alert, rule in RULES.items())
    yield from ((f"{PAGE} {n}", text) for n, text in enumerate(EXPRESSIONS))


def test_series_and_labels_that_expressions_ask_for_are_exposed() -> None:
    assert len(EXPRESSIONS) >= 4
    exposed = labels()
    for where, expression in asked():
        series = named(expression)
        assert series, where
        assert series <= exposed.keys(), where
        theirs = set().union(*(exposed[name] for name in series))
        for grouped in re.findall(r"\b(?:by|on) \(([^)]*)\)", expression):
            assert {name.strip() for name in grouped.split(",")} <= theirs | OF_PROMETHEUS, where
        for name, matchers in re.findall(r"\b(scrimp_[a-z_]+)\{([^}]*)\}", expression):
            assert set(re.findall(r"(\w+)[=!]~?\"", matchers)) <= exposed[name], where


def test_metrics_that_the_page_names_are_exposed() -> None:
    names = {name for line in re.sub(r"_(bucket|sum|count)\b", "", OPERATE).splitlines() for name in named(line)}
    assert len(names) > 20
    families = {re.sub(r"_(bucket|sum|count|created)$", "", name) for name in labels()}
    assert names <= families


@pytest.mark.parametrize("text", ["scrimp_lagg_records", "scrimp_parked_total"])
def test_a_metric_that_is_misspelt_would_be_seen(text: str) -> None:
    assert named(text)
    assert not named(text) & labels().keys()


def test_failures_that_are_the_provider_s_are_all_among_those_that_count() -> None:
    (pattern,) = set(re.findall(r'outcome=~"([^"]*)"', RULES["ScrimpProviderFailing"]["expr"]))
    counted = pattern.split("|")
    assert counted == sorted(counted)
    assert set(counted) >= TRANSIENT
    known = TRANSIENT | set(_STATUS.values()) | set(_BEFORE_SENDING.values()) | {"no_credit"}
    assert known - set(counted) == {"unsupported", "image_unreachable"}, "these are the request's own"
    assert set(counted) <= known


def test_the_stage_whose_lag_waits_for_its_time_is_the_one_that_is_left_out() -> None:
    (pattern,) = re.findall(r'stage!~"([^"]*)"', RULES["ScrimpLag"]["expr"])
    left_out = {stage.name for stage in STAGES.values() for consumer in stage.consumers if re.fullmatch(pattern, consumer)}
    assert left_out == {"redeliver"}
