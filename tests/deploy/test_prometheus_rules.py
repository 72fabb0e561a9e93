"""When each alert fires, by promtool: with its labels and its words once its cause has stood for its time, not a minute sooner, and never
when the cause is just too small.

A sample is a minute. A rule without a case fails, and so does a case that would not notice another threshold or another time. Needs
promtool.
"""

from __future__ import annotations

import copy
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.deploy.prometheus import needed, program, rules

needed()

Series = Mapping[str, str]
"""Samples from minute 0 by series, in promtool's notation: `0x3 1` is 0 in four minutes, then 1."""

RULES = {rule["alert"]: rule for rule in rules()}
LONGER = 30
"""Minutes that a quiet case is looked at after the last of the others has fired."""


@dataclass(frozen=True)
class Case:
    """Of one rule."""

    labels: Mapping[str, str]
    summary: str
    causes: Sequence[tuple[int, Series]]
    """Series, and the minute in which the rule's expression becomes true."""
    quiet: Sequence[Series]
    since: int = 0
    """The minute from which the quiet ones have to be quiet."""


CALL = {"stage": "call", "lane": "interactive"}
A, B = (f'{{stage="call",lane="interactive",instance="{name}"}}' for name in "ab")
TALK = {"lane": "interactive", "feature": "talk"}
TALKS = '{lane="interactive",feature="talk"}'
UNDECODABLE = '{stage="call",lane="interactive",reason="undecodable"}'


def requests(status: str) -> str:
    return f'scrimp_requests_total{{lane="bulk",feature="talk",status="{status}",tier="light",source="model"}}'


def attempts(outcome: str) -> str:
    return f'scrimp_attempts_total{{model="mini",outcome="{outcome}"}}'


CASES = {
    "ScrimpLag": Case(
        CALL,
        "call (interactive) falls behind: 1001 records wait, and they do not become fewer",
        [(10, {f"scrimp_lag_records{A}": "600x60", f"scrimp_lag_records{B}": "401x60"})],
        [
            {f"scrimp_lag_records{A}": "600x60", f"scrimp_lag_records{B}": "400x60"},
            {f"scrimp_lag_records{A}": "5000-10x60"},
            {f"scrimp_lag_records{A}": "0x5 5000-10x60"},  # published at once, and worked off
            {'scrimp_lag_records{stage="redeliver.retry.300s",lane="interactive"}': "5000x60"},
        ],
    ),
    "ScrimpStageAbsent": Case(
        CALL,
        "no process runs call (interactive) any more, or none gets past its start",
        [(11, {f"scrimp_running{A}": "0x10 stale", 'scrimp_running{stage="cache",lane="interactive"}': "0x60"})],
        [
            {f"scrimp_running{A}": "0x10 stale", f"scrimp_running{B}": "0x60"},
            {f"scrimp_running{A}": "0x10 stale _x4 0x60"},
            {'scrimp_running{stage="call",lane="bulk"}': "0x10 stale"},
        ],
    ),
    "ScrimpBulkAbsent": Case(
        {"stage": "call"},
        "no process runs call (bulk) any more, or none gets past its start",
        [(11, {'scrimp_running{stage="call",lane="bulk"}': "0x10 stale", f"scrimp_running{A}": "0x60"})],
        [
            {
                'scrimp_running{stage="call",lane="bulk",instance="a"}': "0x10 stale",
                'scrimp_running{stage="call",lane="bulk",instance="b"}': "0x60",
            },
            {'scrimp_running{stage="call",lane="bulk"}': "0x10 stale _x9 0x60"},
            {f"scrimp_running{A}": "0x10 stale"},
        ],
    ),
    "ScrimpTargetDown": Case(
        {"job": "scrimp", "instance": "a"},
        "a (scrimp) does not answer Prometheus",
        [(6, {'up{job="scrimp",instance="a"}': "1x5 0x60", 'scrimp_running{job="scrimp",instance="a"}': "0x5 stale"})],
        [
            {'up{job="scrimp",instance="a"}': "1x5 0x4 1x60", 'scrimp_running{job="scrimp",instance="a"}': "0x5 stale _x4 0x60"},
            {'up{job="another",instance="a"}': "0x60", 'scrimp_running{job="scrimp",instance="b"}': "0x60"},
        ],
    ),
    "ScrimpParked": Case(
        CALL | {"dependency": "ledger"},
        "call (interactive) waits for ledger, which is down",
        [
            (4, {'scrimp_parked{stage="call",lane="interactive",dependency="ledger"}': "0x3 1x60"}),
            (4, {'scrimp_parked{stage="call",lane="interactive",dependency="ledger"}': "0x3 1 0 1 0 1 0 1 0 1 0 1 0"}),
        ],
        [{'scrimp_parked{stage="call",lane="interactive",dependency="ledger"}': "0x3 1x2 0x60"}],
    ),
    "ScrimpDependencyDown": Case(
        {"dependency": "kafka"},
        "kafka does not answer at least one process",
        [(4, {'scrimp_up{dependency="kafka",instance="a"}': "1x3 0x60", 'scrimp_up{dependency="kafka",instance="b"}': "1x60"})],
        [{'scrimp_up{dependency="kafka",instance="a"}': "1x3 0x4 1x60"}, {'scrimp_up{dependency="provider",instance="a"}': "0x60"}],
    ),
    "ScrimpRightMissing": Case(
        CALL,
        "the broker does not let call (interactive) read: it lacks a right",
        [(4, {f"scrimp_right_missing{A}": "0x3 1x60", f"scrimp_right_missing{B}": "0x60"})],
        [{f"scrimp_right_missing{A}": "0x3 1 0x60"}],
    ),
    "ScrimpStandstill": Case(
        CALL,
        "call (interactive) takes no records although there are some",
        [
            (4, {f"scrimp_standstill{A}": "0x3 1x60"}),
            (6, {f"scrimp_renewals_total{A}": "0x5 2x60", f"scrimp_renewals_total{B}": "0x5 2x60"}),
        ],
        [{f"scrimp_standstill{A}": "0x3 1 0x60"}, {f"scrimp_renewals_total{A}": "0x5 3x120"}],
    ),
    "ScrimpCommitFailures": Case(
        CALL,
        "call (interactive) cannot commit what it has done, and will read it again",
        [(4, {f"scrimp_commit_failures_total{A}": "0x3 6x60"})],
        [{f"scrimp_commit_failures_total{A}": "0x3 5x60"}],
    ),
    "ScrimpDeadLetters": Case(
        CALL | {"reason": "undecodable"},
        "call (interactive) could not process records at all: undecodable",
        [
            (31, {f"scrimp_dead_letters_total{UNDECODABLE}": "0x30 1x60"}),
            (4, {f"scrimp_dead_letters_total{UNDECODABLE}": "_x4 1x60"}),
        ],
        [
            {f"scrimp_dead_letters_total{UNDECODABLE}": "_x20 0x90"},
            {f"scrimp_dead_letters_total{UNDECODABLE}": "7x90"},
            {f"scrimp_dead_letters_total{UNDECODABLE}": "7x30 _x20 7x60"},
        ],
        since=16,  # until then they are as new as Prometheus is
    ),
    "ScrimpUnanswered": Case(
        {"lane": "bulk"},
        "11.11% of the requests of the bulk lane fail or expire",
        [
            (6, {requests("failed"): "0+1x60", requests("answered"): "0+8x60"}),
            (6, {requests("expired"): "0+1x60", requests("rejected"): "0+8x60"}),
        ],
        [
            {requests("failed"): "0+1x60", requests("answered"): "0+9x60"},
            {requests("failed"): "0x3 5x60"},
            {requests("rejected"): "0+10x60"},
        ],
    ),
    "ScrimpProviderFailing": Case(
        {"model": "mini"},
        "66.67% of the calls of model mini fail",
        [(4, {attempts("timeout"): "0x3 4x60", attempts("ok"): "0x3 2x60"})],
        [
            {attempts("timeout"): "0+3x60", attempts("ok"): "0+3x60"},
            {attempts("unreachable"): "0x3 5x60"},
            {attempts("bad_request"): "0+10x60"},
        ],
    ),
    "ScrimpUnconfirmedMoney": Case(
        TALK,
        "calls of talk (interactive) were cut off: up to 0.25 dollars may be on the invoice and are not in the books",
        [(71, {f"scrimp_unconfirmed_usd_total{TALKS}": "0x70 0.25x60"}), (4, {f"scrimp_unconfirmed_usd_total{TALKS}": "_x4 0.25x60"})],
        [{f"scrimp_unconfirmed_usd_total{TALKS}": "_x65 0x60"}, {f"scrimp_unconfirmed_usd_total{TALKS}": "0.25x120"}],
        since=61,
    ),
    "ScrimpPriceUnknown": Case(
        {"model": "mini"},
        "nobody knows what mini costs: its calls are in the books with 0 dollars",
        [(71, {'scrimp_price_unknown_total{model="mini"}': "0x70 1x60"}), (4, {'scrimp_price_unknown_total{model="mini"}': "_x4 1x60"})],
        [{'scrimp_price_unknown_total{model="mini"}': "_x65 0x60"}, {'scrimp_price_unknown_total{model="mini"}': "3x120"}],
        since=61,
    ),
    "ScrimpSettlementsRefused": Case(
        {},
        "answers that were paid are not in the books: the ledger refused their settlements",
        [(4, {f"scrimp_settlements_refused_total{A}": "0x3 1x60"})],
        [{f"scrimp_settlements_refused_total{A}": "3x60"}],
    ),
    "ScrimpRoundsRefused": Case(
        {"what": "sweep"},
        "the broker refuses what `attribute` writes of its own accord: sweep",
        [(4, {'scrimp_rounds_refused_total{what="sweep"}': "0x3 1x60"})],
        [{'scrimp_rounds_refused_total{what="sweep"}': "3x60", 'scrimp_rounds_refused_total{what="alerts"}': "0x60"}],
    ),
    "ScrimpPolicyRefused": Case(
        {},
        "the policy file was changed to one that does not work; the fleet goes on with the old one",
        [(4, {f"scrimp_policy_refused_total{A}": "0x3 1x60"})],
        [{f"scrimp_policy_refused_total{A}": "3x60"}],
    ),
}


def stands(rule: Mapping[str, Any]) -> int:
    """The minutes of its `for`."""
    minutes = re.fullmatch(r"(\d+)m", rule.get("for", "0m"))
    assert minutes, f"{rule['alert']}: its `for` is not in minutes"
    return int(minutes[1])


def groups(alert: str, case: Case) -> Iterator[dict[str, Any]]:
    """What promtool is to look at. The times are those of the rule as it is, also where another one is looked at."""
    rule = RULES[alert]
    told = {
        "exp_labels": {**case.labels, **rule["labels"]},
        "exp_annotations": {"summary": case.summary, "runbook_url": rule["annotations"]["runbook_url"]},
    }
    wait = stands(rule)

    def looks(series: Series, expected: Mapping[int, list[Any]]) -> dict[str, Any]:
        return {
            "interval": "1m",
            "input_series": [{"series": name, "values": values} for name, values in series.items()],
            "alert_rule_test": [{"eval_time": f"{m}m", "alertname": alert, "exp_alerts": alerts} for m, alerts in expected.items()],
        }

    for minute, series in case.causes:
        yield looks(series, {minute + wait - 1: [], minute + wait: [told]})
    end = max(minute for minute, _ in case.causes) + wait + LONGER
    for series in case.quiet:
        yield looks(series, {m: [] for m in range(case.since, end + 1)})


def noticed(folder: Path, forms: Sequence[Mapping[str, Any]]) -> list[str]:
    """By form of a rule what its case has against it; nothing: that is as it should be."""
    for n, rule in enumerate(forms):
        (folder / f"rules-{n}.yml").write_text(yaml.safe_dump({"groups": [{"name": "scrimp", "rules": [rule]}]}))
        tests = list(groups(rule["alert"], CASES[rule["alert"]]))
        if rule.get("for") != RULES[rule["alert"]].get("for"):
            tests = tests[:1]  # the first cause tells
        case = {"rule_files": [f"rules-{n}.yml"], "evaluation_interval": "1m", "tests": tests}
        (folder / f"{n}.yml").write_text(yaml.safe_dump(case))
    names = [f"{n}.yml" for n in range(len(forms))]
    command = [program("promtool"), "test", "rules", *names]
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    parts = re.split(r"^Unit Testing: +(\d+)\.yml$", done.stdout, flags=re.M)
    verdicts = dict(zip(map(int, parts[1::2]), parts[2::2], strict=True))
    assert sorted(verdicts) == list(range(len(forms))), done.stdout
    assert all(("SUCCESS" in verdict) != ("FAILED" in verdict) for verdict in verdicts.values()), done.stdout
    return ["" if "SUCCESS" in verdicts[n] else verdicts[n] for n in range(len(forms))]


def test_every_rule_has_a_cause_that_makes_it_fire_and_one_that_does_not() -> None:
    assert CASES.keys() == RULES.keys()
    assert [alert for alert, case in CASES.items() if not case.causes or not case.quiet] == []


def test_the_rules_are_well_formed() -> None:
    path = Path(__file__).parents[2] / "helm" / "files" / "alerts.yaml"
    done = subprocess.run([program("promtool"), "check", "rules", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(RULES)} rules found" in done.stdout


def test_each_alert_fires_for_its_cause_and_for_nothing_less(tmp_path: Path) -> None:
    against = dict(zip(RULES, noticed(tmp_path, list(RULES.values())), strict=True))
    assert {alert: told for alert, told in against.items() if told} == {}


def others(rule: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Forms of a rule that are a little wrong: a time or a threshold that is another one."""
    for minutes in {stands(rule) - 1, stands(rule) + 1} - {-1}:
        yield f"for {minutes}m", rule | {"for": f"{minutes}m"}
    expression = rule["expr"]
    for found in re.finditer(r"(>=?|==) (\d+(?:\.\d+)?)", expression):
        sign, number = found.groups()
        more = f"{int(number) + 1}" if number.isdigit() else f"{float(number) * 1.5}"
        for other in [f"!= {number}"] if sign == "==" else [f">= {number}", f"> {more}"]:
            changed = copy.deepcopy(rule)
            changed["expr"] = expression[: found.start()] + other + expression[found.end() :]
            yield f"{found[0]} -> {other} at {found.start()}", changed


def test_another_time_or_threshold_would_be_noticed(tmp_path: Path) -> None:
    wrong = [(alert, name, rule) for alert in RULES for name, rule in others(RULES[alert])]
    assert len(wrong) > 3 * len(RULES)
    against = noticed(tmp_path, [rule for _, _, rule in wrong])
    assert [f"{alert}: {name}" for (alert, name, _), told in zip(wrong, against, strict=True) if not told] == []
