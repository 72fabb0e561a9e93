"""Who may do what on the broker: the list follows the map of the fleet, and a refusal names the right that is missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from aiokafka.errors import ClusterAuthorizationFailedError, GroupAuthorizationFailedError, KafkaError, TopicAuthorizationFailedError
from typer.testing import CliRunner

from tests.servers.secure_kafka import acls
from workers import policy
from workers.cli.main import app
from workers.pipeline import STAGES
from workers.policy import Policy
from workers.runtime import refused, rights
from workers.runtime.provision import wanted
from workers.runtime.rights import Right
from workers.settings import Kafka

KAFKA = Kafka(topic_prefix="a.", group_prefix="b.")
SASL = Kafka(security_protocol="SASL_SSL", sasl_mechanism="PLAIN", sasl_username="scrimp", sasl_password="x")


def of(role: str, operation: str, resource: str = "topic") -> set[str]:
    return {right.name for right in rights.roles(KAFKA)[role] if (right.operation, right.resource) == (operation, resource)}


def test_every_stage_reads_its_topics_with_its_groups_in_each_lane() -> None:
    for stage in STAGES.values():
        for role, lane in ((stage.name, "interactive"), *(((f"{stage.name}-bulk", "bulk"),) if stage.lanes else ())):
            assert of(role, "Read") == {"a." + topic.on(lane) for topic in stage.reads}
            assert of(role, "Read", "group") == {stage.group("b.", lane, consumer) for consumer in stage.consumers}


def test_what_a_stage_may_write() -> None:
    assert of("classify", "Write") == {"a.classified", "a.dead", "a.finished"}
    assert of("call-bulk", "Write") == {"a.dead", "a.finished.bulk", "a.retry.10s", "a.retry.300s"}
    assert of("remember", "Write") == {"a.dead"}
    assert of("attribute", "Write") == {"a.responses", "a.costs", "a.alerts", "a.dead"}
    assert of("redeliver", "Write") >= {"a.requests", "a.compressed.bulk", "a.dead"}
    assert not {name for name in of("redeliver", "Write") if "retry" in name}


def test_each_topic_of_the_fleet_has_who_writes_it_and_who_makes_it() -> None:
    written = {right.name for role, its in rights.roles(KAFKA).items() for right in its if right.operation == "Write"}
    assert written == set(wanted(KAFKA))
    assert of("topics", "Create") == of("topics", "Describe") == of("topics", "DescribeConfigs") == set(wanted(KAFKA))


def test_a_tenants_own_topic_is_written_by_one_stage_and_seen_by_all() -> None:
    given = policy.load(None).model_dump()
    theirs = Policy.model_validate(given | {"tenants": {"acme": {"responses_topic": "acme.responses"}}})
    roles = rights.roles(KAFKA, theirs)
    for role in rights.roles(KAFKA):
        its = {right.operation for right in roles[role] if right.name == "acme.responses"}
        stage = STAGES.get(role.removesuffix("-bulk"))  # type: ignore[call-overload]
        if stage is not None:
            assert its == ({"Write"} if stage.name == "attribute" else {"Describe"})
    assert Right("Read", "topic", "acme.responses") in roles["ask"]
    assert Right("Create", "topic", "acme.responses") in roles["topics"]


def scrimp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *words: str, qdrant: str = "http://qdrant:6333") -> str:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCRIMP_KAFKA__TOPIC_PREFIX", "a.")
    monkeypatch.setenv("SCRIMP_KAFKA__GROUP_PREFIX", "b.")
    monkeypatch.setenv("SCRIMP_QDRANT__URL", qdrant)
    done = CliRunner().invoke(app, ["topics", "acls", *words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_commands_add_what_the_list_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = scrimp(tmp_path, monkeypatch).splitlines()
    begin = "kafka-acls.sh --bootstrap-server localhost:9092 --command-config admin.properties --add --allow-principal User:scrimp-"
    assert all(line.startswith(begin) for line in lines)
    assert set(acls(lines)) == {
        (f"User:scrimp-{role}", right.operation, right.resource, right.name) for role, its in rights.roles(KAFKA).items() for right in its
    }


def test_a_cache_without_a_server_remembers_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "b.remember" not in scrimp(tmp_path, monkeypatch, "cache")
    assert "b.remember" in scrimp(tmp_path, monkeypatch, "cache", qdrant="")
    roles = rights.roles(KAFKA, cache_remembers=True)
    assert set(roles["cache-bulk"]) == {*rights.roles(KAFKA)["cache-bulk"], *rights.roles(KAFKA)["remember-bulk"]}
    assert roles["remember"] == rights.roles(KAFKA)["remember"]


def test_one_user_for_all_has_each_right_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = json.loads(scrimp(tmp_path, monkeypatch, "--principal", "User:one", "--json"))
    found = [(one["operation"], one["resource"], one["name"]) for one in told]
    assert {one["principal"] for one in told} == {"User:one"}
    assert len(set(found)) == len(found)
    assert {Right(*one) for one in found} == {right for its in rights.roles(KAFKA).values() for right in its}  # type: ignore[arg-type]


def test_one_role_with_a_certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = scrimp(tmp_path, monkeypatch, "call", "--principal", "User:CN={role} of ours")
    assert set(acls(lines.splitlines())) == {("User:CN=call of ours", r.operation, r.resource, r.name) for r in rights.roles(KAFKA)["call"]}


def test_a_role_that_is_none_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["topics", "acls", "calls"])
    assert (done.exit_code, "call-bulk" in done.output) == (2, True)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (GroupAuthorizationFailedError("scrimp.call"), "User:scrimp lacks the right to Read the group scrimp.call"),
        (TopicAuthorizationFailedError("llm.dead"), "User:scrimp lacks the right to Write the topic llm.dead"),
        (TopicAuthorizationFailedError({"llm.b", "llm.a"}), "User:scrimp lacks the right to Write the topic llm.a, llm.b"),
        (TopicAuthorizationFailedError(), "User:scrimp lacks the right to Write any topic of the fleet"),
        (ClusterAuthorizationFailedError(), "User:scrimp lacks the right to Write any topic of the fleet"),
        (KafkaError(repr(TopicAuthorizationFailedError())), "User:scrimp lacks the right to Write any topic of the fleet"),
    ],
)
def test_a_refusal_names_the_right(error: KafkaError, told: str) -> None:
    assert (refused.lacking(SASL, error, "Write") or "").startswith(told)


def test_what_is_no_refusal() -> None:
    assert refused.lacking(SASL, KafkaError("Unexpected error"), "Read") is None
    assert refused.told(SASL, KafkaError("Unexpected error"), "Read") == "KafkaError"


def test_who_we_are() -> None:
    assert refused.principal(SASL) == "User:scrimp"
    assert refused.principal(Kafka()) == "User:ANONYMOUS"
    assert refused.principal(Kafka(security_protocol="SSL")) == "User:ANONYMOUS"
    assert "SSL_CERT_FILE" in refused.principal(Kafka(security_protocol="SSL", ssl_cert_file=Path("x.pem")))
