"""A real Prometheus and a real fleet: every series that a rule names is scraped, nothing fires while all is well, causes make alerts fire.

The rules are the chart's, with two times made short: each `for` is `HOLD`, and the two minutes of ScrimpParked are `MOMENT`, so that what
ends is seen to end. Windows and thresholds are as they are. Each test makes one cause and looks at `/api/v1/alerts`. Needs Prometheus.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.deploy.prometheus import JOB, Prometheus, needed, rules
from tests.kafka.asking import question, questions
from tests.kafka.conftest import fleet_of
from tests.kafka.conftest import tenant as tenant
from tests.kafka.conftest import topics as topics
from tests.kafka.fleet import Fleet
from tests.kafka.topics import Topics
from tests.outage.link import Background, Link
from tests.servers.kafka import Broker

needed()
pytestmark = pytest.mark.timeout(300)  # the first one waits for the fleet

STAGES = ("classify", "cache", "compress", "call", "attribute", "redeliver")
CONSUMERS = {"classify", "cache", "remember", "compress", "call", "attribute", "redeliver.retry.10s", "redeliver.retry.300s"}
HOLD, MOMENT = "4s", "5s"
POLICY = """\
models:
  mini:  {{litellm: openai/mini, api_base: "{url}/v1", context: 16000, price: {{input: 1, output: 4}}}}
  large: {{litellm: openai/large, api_base: "{url}/v1", context: 64000, price: {{input: 25, output: 100}}}}
  odd:   {{litellm: openai/odd-and-new, api_base: "{url}/v1", context: 64000}}
tiers: {{light: [mini], standard: [large], heavy: [odd]}}
reference: large
"""
CAUSED = {
    "scrimp_parked": "test_a_ledger_that_is_away",
    "scrimp_dead_letters_total": "test_the_first_record_that_cannot_be_read",
    "scrimp_price_unknown_total": "test_a_model_without_a_price",
}
"""Series that are not there before their cause, and who makes it."""


def shortened() -> list[dict[str, Any]]:
    short = [rule | {"expr": rule["expr"].replace("[2m]", f"[{MOMENT}]")} | ({"for": HOLD} if "for" in rule else {}) for rule in rules()]
    assert [rule["alert"] for rule, real in zip(short, rules(), strict=True) if rule["expr"] != real["expr"]] == ["ScrimpParked"]
    return short


@pytest.fixture(scope="module")
def _wired(kafka: Broker, pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Fleet, Link | None]]:
    with ExitStack() as on_exit:
        fleet = on_exit.enter_context(fleet_of(kafka, pytestconfig, tmp_path_factory.mktemp("fleet"), ()))
        fleet.policy.write_text(POLICY.format(url=fleet.provider.url))
        at, link = urlsplit(fleet.ledger_url), None
        if at.hostname and at.port:
            background = Background()
            on_exit.callback(background.close)
            link = Link(background, at.hostname, at.port)
            on_exit.callback(link.close)
            fleet.ledger_url = fleet.ledger_url.replace(f"{at.hostname}:{at.port}", f"127.0.0.1:{link.port}")
        fleet.start(*STAGES, ledger__timeout_s=2)
        yield fleet, link


@pytest.fixture(scope="module")
def fleet(_wired: tuple[Fleet, Link | None]) -> Fleet:
    return _wired[0]


@pytest.fixture(scope="module")
def ledger(_wired: tuple[Fleet, Link | None]) -> Link:
    if _wired[1] is None:
        pytest.skip("a file cannot be away")
    return _wired[1]


@pytest.fixture(scope="module")
def prometheus(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    groups = [{"name": "scrimp", "rules": shortened()}]
    prometheus = Prometheus(tmp_path_factory.mktemp("prometheus"), fleet.ports, groups)
    try:
        prometheus.start()
        yield prometheus
    finally:
        prometheus.close()


async def until(prometheus: Prometheus, condition: Callable[[], bool], otherwise: str) -> None:
    await asyncio.to_thread(prometheus.until, condition, lambda: f"{otherwise}: {prometheus.alerts()}")


async def fires(prometheus: Prometheus, name: str, **labels: str) -> dict[str, str]:
    """Wait until this alert fires with these labels; all that it has."""

    def those() -> list[dict[str, str]]:
        return [told for told in prometheus.firing(name) if labels.items() <= told.items()]

    await until(prometheus, lambda: bool(those()), f"{name} {labels} does not fire")
    return those()[0]


async def test_every_stage_is_up_every_series_is_there_and_nothing_fires(
    fleet: Fleet, topics: Topics, tenant: str, prometheus: Prometheus
) -> None:
    await until(prometheus, lambda: prometheus.targets() == dict.fromkeys(STAGES, "up"), "a target is not up")
    asked = question(tenant, "well")
    await topics.ask(asked)
    assert (await topics.answers([asked]))["well"]["status"] == "answered"

    named = {name for rule in rules() for name in re.findall(r"\bscrimp_[a-z_]+", rule["expr"])}
    assert named >= CAUSED.keys()
    assert {test for test in CAUSED.values() if test not in globals()} == set()
    # The lag is told after the first ten seconds, money and requests once a request has ended.
    await until(prometheus, lambda: named - CAUSED.keys() <= prometheus.names(), f"not all of {sorted(named)} are scraped")
    assert not CAUSED.keys() & prometheus.names(), "a cause is not needed for these"
    for name in ("scrimp_lag_records", "scrimp_running", "scrimp_right_missing", "scrimp_renewals_total", "scrimp_commit_failures_total"):
        assert {labels["stage"] for labels, _ in prometheus.query(name)} == CONSUMERS, name
    assert {labels["pod"] for labels, up in prometheus.query('scrimp_up{dependency="kafka"}') if up} == set(STAGES)

    await until(prometheus, lambda: len(prometheus.health()) == len(rules()), "rules are missing")
    await until(prometheus, lambda: set(prometheus.health().values()) == {("ok", "")}, f"rules fail: {prometheus.health()}")
    # On a busy machine a page may come too late for a scrape; that is pending at most.
    assert [alert for alert in prometheus.alerts() if alert["state"] == "firing"] == []


def test_prometheus_can_compute_what_the_guide_suggests(prometheus: Prometheus) -> None:
    page = (Path(__file__).parents[2] / "docs" / "operate.md").read_text()
    lines = [line.strip() for block in re.findall(r"^ *```promql\n(.*?)^ *```", page, re.S | re.M) for line in block.splitlines()]
    assert len(lines) >= 4
    for line in lines:
        prometheus.query(line)


async def test_the_first_record_that_cannot_be_read(topics: Topics, prometheus: Prometheus) -> None:
    """The first there ever was: the counter comes with it, and never rises again."""
    await topics.publish("requests", b"{not json", key=b"torn")
    labels = await fires(prometheus, "ScrimpDeadLetters")
    assert labels == {
        "alertname": "ScrimpDeadLetters",
        "stage": "classify",
        "lane": "interactive",
        "reason": "invalid_json",
        "severity": "warning",
    }
    assert [value for _, value in prometheus.query("scrimp_dead_letters_total")] == [1]


async def test_a_model_without_a_price(topics: Topics, tenant: str, prometheus: Prometheus) -> None:
    asked = question(tenant, "odd", tier="heavy")
    await topics.ask(asked)
    await topics.answers([asked])
    assert (await fires(prometheus, "ScrimpPriceUnknown"))["model"] == "odd"


async def test_a_call_that_is_cut_off(fleet: Fleet, topics: Topics, tenant: str, prometheus: Prometheus) -> None:
    fleet.provider.fault("truncated", model="mini")
    asked = question(tenant, "cut")
    await topics.ask(asked)
    assert (await topics.answers([asked]))["cut"]["status"] == "answered"
    labels = await fires(prometheus, "ScrimpUnconfirmedMoney")
    assert (labels["lane"], labels["feature"]) == ("interactive", "other")


async def test_a_ledger_that_is_away(fleet: Fleet, ledger: Link, topics: Topics, tenant: str, prometheus: Prometheus) -> None:
    asked = question(tenant, "patient")
    ledger.fail("refuse")
    try:
        await topics.ask(asked)
        labels = await fires(prometheus, "ScrimpParked", stage="call")
        assert labels == {
            "alertname": "ScrimpParked",
            "stage": "call",
            "lane": "interactive",
            "dependency": "ledger",
            "severity": "critical",
        }
        await fires(prometheus, "ScrimpDependencyDown", dependency="ledger")
    finally:
        ledger.mend()
    assert (await topics.answers([asked]))["patient"]["status"] == "answered"
    await until(
        prometheus, lambda: not prometheus.firing("ScrimpParked") + prometheus.firing("ScrimpDependencyDown"), "the alerts do not end"
    )


async def test_a_model_that_refuses_the_key(fleet: Fleet, topics: Topics, tenant: str, prometheus: Prometheus) -> None:
    fleet.provider.fault("unauthorized", model="mini", times=None)
    asked = questions(tenant, 12)
    await topics.ask(*asked)
    answers = await topics.answers(asked)
    fleet.provider.mend()
    assert {answer["status"] for answer in answers.values()} == {"answered"}
    assert (await fires(prometheus, "ScrimpProviderFailing"))["model"] == "mini"


async def test_a_stage_that_nobody_runs(fleet: Fleet, prometheus: Prometheus) -> None:
    port = fleet.ports["compress"]
    assert await asyncio.to_thread(fleet.stop, "compress") == 0
    labels = await fires(prometheus, "ScrimpStageAbsent")
    assert (labels["stage"], labels["lane"]) == ("compress", "interactive")
    labels = await fires(prometheus, "ScrimpTargetDown")
    assert (labels["instance"], labels["job"], labels["pod"]) == (f"127.0.0.1:{port}", JOB, "compress")


async def test_no_other_alert_has_fired(prometheus: Prometheus) -> None:
    """All that these causes make fire, for as long as the module ran."""
    fired = prometheus.query('present_over_time(ALERTS{alertstate="firing"}[1h])')
    assert {labels["alertname"] for labels, _ in fired} == {
        "ScrimpDeadLetters",
        "ScrimpPriceUnknown",
        "ScrimpUnconfirmedMoney",
        "ScrimpParked",
        "ScrimpDependencyDown",
        "ScrimpProviderFailing",
        "ScrimpStageAbsent",
        "ScrimpTargetDown",
    }
