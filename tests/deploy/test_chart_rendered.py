"""What the chart renders is what Kubernetes, KEDA and the Prometheus operator take, and what the workers understand. Needs Helm."""

from __future__ import annotations

import functools
import importlib
import json
import os
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import typer
import yaml
from typer.core import TyperGroup

from tests.deploy import chart
from tests.deploy.chart import CHART, SCENARIOS, Manifest, containers, environment, needed, of, pods, render, scenario
from workers import policy
from workers.cli.main import app
from workers.pipeline import STAGES
from workers.runtime import health, probes
from workers.settings import Settings, load

needed()
SCHEMAS = Path(__file__).parent / "schemas"
KUBERNETES = "1.33"
NAMES = [path.stem for path in SCENARIOS]
SECRETS = {
    "SCRIMP_LEDGER__URL": "postgresql+asyncpg://scrimp:secret@postgres/scrimp",
    "SCRIMP_KAFKA__SASL_USERNAME": "scrimp",
    "SCRIMP_KAFKA__SASL_PASSWORD": "secret",
}
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())


def test_there_are_at_least_eight_scenarios() -> None:
    assert len(SCENARIOS) >= 8


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_helm_lints_it_strictly(path: Path) -> None:
    done = chart.run("lint", "--strict", str(CHART), "--values", str(path))
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_package_holds_what_the_templates_read_and_nothing_for_developers(tmp_path: Path) -> None:
    done = chart.run("package", str(CHART), "--destination", str(tmp_path))
    assert done.returncode == 0, done.stderr
    (package,) = tmp_path.glob("scrimp-*.tgz")
    with tarfile.open(package) as archive:
        names = {Path(name).relative_to("scrimp").as_posix() for name in archive.getnames()}
    assert {"files/fleet.yaml", "files/alerts.yaml", "values.schema.json", "README.md", "templates/NOTES.txt"} <= names
    assert [name for name in names if name.startswith("ci/") or name.endswith((".py", ".pyc"))] == []


@pytest.fixture(scope="module")
def kubernetes() -> Iterator[Any]:
    """The validator that comes with Helm, made to read each of its megabytes of schemas once."""
    utils = importlib.import_module("kubernetes_validate.utils")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(utils, "schema_contents", functools.cache(utils.schema_contents))
        yield utils


def fault(manifest: Manifest, kubernetes: Any) -> str | None:
    """What is wrong with it: by the schemas of Kubernetes, or by ours for the kinds of KEDA and the Prometheus operator."""
    own = SCHEMAS / f"{manifest['kind']}.json"
    try:
        if own.exists():
            jsonschema.Draft7Validator(json.loads(own.read_text())).validate(manifest)
        else:
            kubernetes.validate(manifest, KUBERNETES, strict=True)
    except (jsonschema.ValidationError, kubernetes.ValidationError) as e:
        return str(e)
    return None


@pytest.mark.parametrize("name", NAMES)
def test_every_manifest_is_valid(name: str, kubernetes: Any) -> None:
    assert [told for manifest in scenario(name) if (told := fault(manifest, kubernetes))] == []


@pytest.mark.parametrize("name", ["hpa", "keda-scram", "locked-down", "policy"])
def test_a_typing_error_in_a_manifest_would_be_seen(name: str, kubernetes: Any) -> None:
    for manifest in scenario(name):
        where = "spec" if "spec" in manifest else "data"
        bad = manifest | {f"{where}s": manifest[where]}
        assert fault(bad, kubernetes), manifest["kind"]
        if where == "spec" and manifest["kind"] != "Pod":
            assert fault(manifest | {"spec": manifest["spec"] | {"replica": 3}}, kubernetes), manifest["kind"]


@pytest.mark.parametrize("name", NAMES)
def test_no_two_manifests_have_one_name(name: str) -> None:
    names = [(m["kind"], m["metadata"]["name"]) for m in scenario(name)]
    assert len(names) == len(set(names))
    assert all(len(n) <= 63 - len("keda-hpa-") for _, n in names)


def test_names_stay_short_enough_for_a_long_release() -> None:
    manifests = render({"fullnameOverride": "a" * 60, "autoscaling": {"mode": "keda"}})
    assert max(len(f"keda-hpa-{n}") for n in of(manifests, "ScaledObject")) <= 63


# What the schema of the values has of Kubernetes.

SCHEMA = json.loads((CHART / "values.schema.json").read_text())


def resolved(part: Any, all_of_them: Any) -> Any:
    return all_of_them[part["$ref"].rpartition("/")[2]] if "$ref" in part else part


def differences(ours: Any, theirs: Any, definitions: Any, path: str) -> Iterator[str]:
    """Keys that only one of the two has, all the way down."""
    ours, theirs = resolved(ours, SCHEMA["definitions"]), resolved(theirs, definitions)
    if "items" in theirs:
        yield from differences(ours["items"], theirs["items"], definitions, f"{path}[]")
    of_ours, of_theirs = ours.get("properties", {}), theirs.get("properties", {})
    yield from (f"{path}.{key}" for key in of_ours.keys() ^ of_theirs.keys())
    for key in of_ours.keys() & of_theirs.keys():
        yield from differences(of_ours[key], of_theirs[key], definitions, f"{path}.{key}")


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("podSecurityContext", "core.v1.PodSecurityContext"),
        ("securityContext", "core.v1.SecurityContext"),
        ("scalingRules", "autoscaling.v2.HPAScalingRules"),
        ("toleration", "core.v1.Toleration"),
        ("topologySpreadConstraint", "core.v1.TopologySpreadConstraint"),
        ("volumeMount", "core.v1.VolumeMount"),
        ("valueFrom", "core.v1.EnvVarSource"),
        ("peer", "networking.v1.NetworkPolicyPeer"),
        ("egressRule", "networking.v1.NetworkPolicyEgressRule"),
    ],
)
def test_the_schema_has_every_key_that_the_newest_kubernetes_has(ours: str, theirs: str, kubernetes: Any) -> None:
    newest = kubernetes.latest_version()
    definitions = kubernetes.schema_contents(f"kubernetes-json-schema/v{newest}-local-strict/_definitions.json", newest)["$defs"]
    found = differences(SCHEMA["definitions"][ours], definitions[f"io.k8s.api.{theirs}"], definitions, ours)
    assert list(found) == []


def test_what_kubernetes_takes_is_taken(kubernetes: Any) -> None:
    quantities = {"cpu": 1, "memory": "1Gi", "ephemeral-storage": "1Gi", "hugepages-2Mi": "4Mi", "nvidia.com/gpu": 1}
    values = {
        # As OpenShift wants it: no users of the chart's.
        "podSecurityContext": {"runAsUser": None, "runAsGroup": None, "fsGroup": None, "sysctls": [{"name": "a", "value": "1"}]},
        "securityContext": {"capabilities": {"add": ["NET_BIND_SERVICE"]}, "seLinuxOptions": {"level": "s0"}},
        "autoscaling": {"mode": "hpa", "behavior": {"scaleUp": {"selectPolicy": "Disabled", "tolerance": "0.05"}}},
        "networkPolicy": {
            "enabled": True,
            "metricsFrom": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}],
            "extraEgress": [
                {"ports": [{"port": "https", "protocol": "TCP"}, {"port": 1, "endPort": 9}], "to": [{"namespaceSelector": {}}]}
            ],
        },
        "defaults": {
            "resources": {"requests": quantities, "limits": quantities},
            "tolerations": [{"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60}],
            "extraEnv": [
                {"name": "A", "valueFrom": {"secretKeyRef": {"name": "a", "key": "a", "optional": True}}},
                {"name": "B", "valueFrom": {"configMapKeyRef": {"name": "a", "key": "a"}}},
                {"name": "C", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "status.podIP"}}},
                {"name": "D", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "containerName": "worker", "divisor": "1m"}}},
            ],
        },
    }
    assert [told for manifest in render(values) if (told := fault(manifest, kubernetes))] == []


# What the workers make of it.


def settings_of(container: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Settings:
    """As the container's process would load them."""
    with monkeypatch.context() as patched:
        patched.chdir(tmp_path)  # no .env
        for variable in [*os.environ]:
            if variable.startswith("SCRIMP_"):
                patched.delenv(variable)
        for variable, value in environment(container, SECRETS).items():
            patched.setenv(variable, value)
        return load()


@pytest.mark.parametrize("name", NAMES)
def test_the_workers_take_every_pods_environment(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for where, pod in pods(scenario(name)):
        for container in containers(pod):
            settings = settings_of(container, monkeypatch, tmp_path)
            if container["name"] != "worker":
                continue
            assert settings.http.host in ("0.0.0.0", "::"), where
            assert settings.http.port == container["ports"][0]["containerPort"], where
            stage = container["args"][1]
            assert settings.stage(stage).drain_s < pod["terminationGracePeriodSeconds"], where


def test_the_settings_are_what_the_values_say(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def worker(name: str, deployment: str) -> Settings:
        pod = of(scenario(name), "Deployment")[deployment]["spec"]["template"]["spec"]
        return settings_of(pod["containers"][0], monkeypatch, tmp_path)

    call = worker("keda-scram", "scrimp-call")
    assert call.kafka.bootstrap_servers == "kafka-0.kafka:9093,kafka-1.kafka:9093,kafka-2.kafka:9095"
    assert (call.kafka.topic_prefix, call.kafka.group_prefix) == ("prod.llm.", "prod.scrimp.")
    assert (call.kafka.security_protocol, call.kafka.sasl_mechanism, call.kafka.sasl_username) == ("SASL_SSL", "SCRAM-SHA-512", "scrimp")
    assert call.kafka.sasl_password.get_secret_value() == SECRETS["SCRIMP_KAFKA__SASL_PASSWORD"]
    assert call.ledger.url == SECRETS["SCRIMP_LEDGER__URL"]
    assert (call.call.window, call.call.drain_s) == (40, 70)
    assert worker("keda-scram", "scrimp-call-bulk").call.drain_s == 90.5
    mtls = worker("keda-mtls", "scrimp-classify").kafka
    assert [path and path.name for path in (mtls.ssl_ca_file, mtls.ssl_cert_file, mtls.ssl_key_file)] == [
        "ca.crt",
        "client.crt",
        "client.key",
    ]
    cache = worker("policy-of-yours", "scrimp-cache")
    assert (cache.qdrant.url, cache.qdrant.collection) == ("https://qdrant.example.com", "scrimp-cache")
    assert cache.qdrant.api_key.get_secret_value() == "secret"
    assert cache.encoder.path == Path("/models/minilm")
    bulk = worker("everything", "scrimp-answers-call-bulk")
    assert (bulk.log_level, bulk.call.timeout_s, bulk.http.stall_s, bulk.ledger.timeout_s, bulk.ledger.pool_size) == (
        "WARNING",
        100,
        300,
        20,
        4,
    )
    assert worker("everything", "scrimp-answers-redeliver").redeliver.window == 128


@pytest.mark.parametrize("name", NAMES)
def test_every_variable_that_the_chart_sets_is_one_that_env_cannot_set(name: str) -> None:
    """Otherwise a variable could be there twice, and Kubernetes takes the last without a word."""
    text = (CHART / "templates" / "_check.tpl").read_text()
    owned = {line.partition(":")[0] for line in text.partition('"scrimp.owned" -}}')[2].splitlines()}
    stages = {f"SCRIMP_{stage.upper()}__{what}" for stage in STAGES for what in ("WINDOW", "DRAIN_S")}
    values = yaml.safe_load((CHART / "ci" / f"{name}.yaml").read_text())
    given = {*values.get("providerKeys", VALUES["providerKeys"])["names"], *values.get("signingKeys", {}).get("names", ())}
    for place in (values.get("defaults", {}), values.get("stages", {}).get("call", {}).get("bulk", {})):
        given |= {*place.get("env", ()), *(entry["name"] for entry in place.get("extraEnv", ()))}
    set_here = {entry["name"] for _, pod in pods(scenario(name)) for c in containers(pod) for entry in c["env"]}
    assert set_here - given <= owned | stages


def test_what_the_owned_variables_point_to_is_a_value() -> None:
    text = (CHART / "templates" / "_check.tpl").read_text().partition('"scrimp.owned" -}}')[2]
    for line in text.splitlines():
        if ": " in line and "{{" not in line:
            value: Any = VALUES
            for key in line.partition(": ")[2].partition(";")[0].split("."):
                value = value[key]


@pytest.mark.parametrize("name", NAMES)
def test_every_command_is_one(name: str) -> None:
    commands = typer.main.get_command(app)
    assert isinstance(commands, TyperGroup)
    for _, pod in pods(scenario(name)):
        for container in containers(pod):
            assert container["command"] == ["scrimp"]
            command: Any = commands
            args = list(container["args"])
            while isinstance(command, TyperGroup):
                command = command.commands[args.pop(0)]
            command.make_context(command.name, args)  # raises for an option or an argument that is none


def test_a_deployment_for_each_lane_of_each_stage() -> None:
    ran = [m["spec"]["template"]["spec"]["containers"][0]["args"] for m in of(scenario("defaults"), "Deployment").values()]
    expected = [
        args
        for stage in STAGES.values()
        for args in ([["run", stage.name, "--lane", lane] for lane in ("interactive", "bulk")] if stage.lanes else [["run", stage.name]])
    ]
    assert sorted(ran) == sorted(expected)


def test_the_lag_that_scales_is_that_of_the_stages_groups() -> None:
    """Of every lane: each consumer group of the map, on the topic it reads, with the prefixes of the settings."""
    found = {
        (t["metadata"]["consumerGroup"], t["metadata"]["topic"])
        for m in of(scenario("keda-scram"), "ScaledObject").values()
        for t in m["spec"]["triggers"]
    }
    expected = {
        (stage.group("prod.scrimp.", lane, consumer), f"prod.llm.{topic.on(lane)}")
        for stage in STAGES.values()
        if stage.name != "redeliver"  # its lag is what waits for its time
        for lane in ("interactive", "bulk")
        for consumer, topics in stage.consumers.items()
        for topic in topics
    }
    assert found == expected
    servers = {
        t["metadata"]["bootstrapServers"] for m in of(scenario("keda-scram"), "ScaledObject").values() for t in m["spec"]["triggers"]
    }
    assert servers == {"kafka-0.kafka:9093,kafka-1.kafka:9093,kafka-2.kafka:9095"}  # without the blanks that KEDA would take for names


def test_probes_and_scrapes_go_where_the_workers_listen() -> None:
    served = {route.resource.canonical for route in health.application({}, {}, 1).router.routes() if route.resource}
    for _, pod in pods([*of(scenario("defaults"), "Deployment").values()]):
        container = pod["containers"][0]
        asked = {kind: container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")}
        assert {ask["path"] for ask in asked.values()} <= served
        assert asked["liveness"]["path"] == asked["startup"]["path"] == "/livez"  # never what depends on Kafka
        assert asked["readiness"]["path"] == "/readyz"
        assert {ask["port"] for ask in asked.values()} == {container["ports"][0]["name"]} == {"http"}
        assert container["readinessProbe"]["timeoutSeconds"] > probes.PROBE_S
    (monitor,) = of(scenario("locked-down"), "PodMonitor").values()
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert endpoint["path"] in served
    assert endpoint["port"] == "http"


# Scaling.


@pytest.mark.parametrize("name", NAMES)
def test_nothing_else_sets_the_number_of_pods_that_something_scales(name: str) -> None:
    manifests = scenario(name)
    scaled = {
        m["spec"]["scaleTargetRef"]["name"] for kind in ("ScaledObject", "HorizontalPodAutoscaler") for m in of(manifests, kind).values()
    }
    for deployment, m in of(manifests, "Deployment").items():
        assert ("replicas" in m["spec"]) == (deployment not in scaled)
    assert scaled <= set(of(manifests, "Deployment"))


def test_what_is_off_or_zero_is_so_though_the_defaults_say_otherwise() -> None:
    assert set(of(scenario("one-lane"), "Deployment")) == {f"llm-{s}" for s in STAGES if s != "redeliver"}
    scaled = of(scenario("keda-scram"), "ScaledObject")
    assert scaled["scrimp-compress-bulk"]["spec"]["minReplicaCount"] == 0
    assert scaled["scrimp-compress"]["spec"]["minReplicaCount"] == 1


def test_a_lane_has_its_own_values_and_no_others() -> None:
    deployments = of(scenario("everything"), "Deployment")
    bulk, other = (deployments[n]["spec"]["template"]["spec"] for n in ("scrimp-answers-call-bulk", "scrimp-answers-call"))
    assert bulk["nodeSelector"] == {"kubernetes.io/arch": "amd64", "spot": "true"}
    assert other["nodeSelector"] == {"kubernetes.io/arch": "amd64"}
    assert bulk["terminationGracePeriodSeconds"] == 130
    assert other["terminationGracePeriodSeconds"] == 90
    assert environment(bulk["containers"][0], {})["SCRIMP_CALL__DRAIN_S"] == "110"
    assert "SCRIMP_CALL__DRAIN_S" not in environment(other["containers"][0], {})


def test_a_budget_for_disruptions_only_where_there_are_two_pods() -> None:
    assert of(scenario("defaults"), "PodDisruptionBudget") == {}
    assert set(of(scenario("keda-scram"), "PodDisruptionBudget")) == {"scrimp-call"}
    assert len(of(scenario("hpa"), "PodDisruptionBudget")) == 12
    assert len(of(scenario("one-lane"), "PodDisruptionBudget")) == 6


# Security.


@pytest.mark.parametrize("name", NAMES)
def test_every_pod_is_locked(name: str) -> None:
    for where, pod in pods(scenario(name)):
        assert pod["automountServiceAccountToken"] is False, where
        assert pod["enableServiceLinks"] is False, where  # else a Service called scrimp sets SCRIMP_* variables
        assert pod["securityContext"]["runAsNonRoot"] is True, where
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, where
        writable = {v["name"] for v in pod["volumes"] if "emptyDir" in v}
        for container in containers(pod):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, where
            assert {m["mountPath"] for m in container["volumeMounts"] if m["name"] in writable} == {"/tmp"}, where
            assert container["resources"]["limits"]["memory"], where
        mounted = {m["name"] for c in containers(pod) for m in c["volumeMounts"]}
        assert mounted == {v["name"] for v in pod["volumes"]}, where


def secrets_of(container: dict[str, Any]) -> set[tuple[str, str]]:
    return {(e["name"], e["valueFrom"]["secretKeyRef"]["name"]) for e in container["env"] if "secretKeyRef" in e.get("valueFrom", {})}


def test_each_pod_gets_the_secrets_it_needs_and_no_others() -> None:
    held = {where: set().union(*map(secrets_of, containers(pod))) for where, pod in pods(scenario("policy"))}
    ledger, models, tenants = ("SCRIMP_LEDGER__URL", "scrimp"), ("MODELS_KEY", "models"), ("ACME_KEY", "tenants")
    for where, found in held.items():
        expected = {
            "Deployment/scrimp-call": {ledger, models},
            "Deployment/scrimp-attribute": {ledger},
            "Deployment/scrimp-classify": {tenants},
            "Job/scrimp-ledger": {ledger},
            "Pod/scrimp-test": {ledger, models, tenants},
        }.get(where.removesuffix("-bulk"), set())
        assert found == expected, where


@pytest.mark.parametrize("name", NAMES)
def test_no_pod_starts_without_a_secret_that_it_names(name: str) -> None:
    """The kubelet does not create its container, and says which Secret or key is missing, unless it is `optional`."""
    named = 0
    for where, pod in pods(scenario(name)):
        refs = [e["valueFrom"]["secretKeyRef"] for c in containers(pod) for e in c["env"] if "secretKeyRef" in e.get("valueFrom", {})]
        refs += [source["secret"] for v in pod["volumes"] for source in v.get("projected", {}).get("sources", [])]
        assert not [ref for ref in refs if ref.get("optional") or not ref["name"]], where
        named += len(refs)
    assert named > 0


def test_secrets_of_ones_own_names_and_keys_are_found() -> None:
    pod = of(scenario("policy-of-yours"), "Deployment")["scrimp-attribute"]["spec"]["template"]["spec"]
    (ref,) = [e["valueFrom"]["secretKeyRef"] for e in pod["containers"][0]["env"] if e["name"] == "SCRIMP_LEDGER__URL"]
    assert ref == {"name": "ledger", "key": "uri"}
    pod = of(scenario("policy-of-yours"), "Deployment")["scrimp-cache"]["spec"]["template"]["spec"]
    (ref,) = [e["valueFrom"]["secretKeyRef"] for e in pod["containers"][0]["env"] if e["name"] == "SCRIMP_QDRANT__API_KEY"]
    assert ref == {"name": "qdrant", "key": "key"}


@pytest.mark.parametrize(("name", "files"), [("keda-scram", {"ca.crt"}), ("keda-mtls", {"ca.crt", "client.crt", "client.key"})])
def test_tls_comes_as_files_to_whoever_talks_to_kafka(name: str, files: set[str]) -> None:
    for where, pod in pods(scenario(name)):
        for container in containers(pod):
            env = environment(container, {})
            named = {Path(value) for variable, value in env.items() if variable.startswith("SCRIMP_KAFKA__SSL_")}
            if where == "Job/scrimp-ledger":
                assert named == set()
                continue
            assert {path.name for path in named} == files
            (mount,) = [m for m in container["volumeMounts"] if m["name"] == "kafka-tls"]
            assert {str(path.parent) for path in named} == {mount["mountPath"]}
        if where != "Job/scrimp-ledger":
            (volume,) = [v["projected"] for v in pod["volumes"] if v["name"] == "kafka-tls"]
            assert {item["path"] for source in volume["sources"] for item in source["secret"]["items"]} == files


def test_keda_signs_in_as_the_workers_do() -> None:
    (scram,) = of(scenario("keda-scram"), "TriggerAuthentication").values()
    assert scram["spec"]["env"] == [{"parameter": "username", "name": "SCRIMP_KAFKA__SASL_USERNAME", "containerName": "worker"}]
    assert {r["parameter"]: (r["name"], r["key"]) for r in scram["spec"]["secretTargetRef"]} == {
        "password": ("scrimp-user", "password"),
        "ca": ("cluster-ca-cert", "ca.crt"),
    }
    (mtls,) = of(scenario("keda-mtls"), "TriggerAuthentication").values()
    assert {r["parameter"]: (r["name"], r["key"]) for r in mtls["spec"]["secretTargetRef"]} == {
        "ca": ("scrimp", "ca.crt"),
        "cert": ("scrimp-user", "user.crt"),
        "key": ("scrimp-user", "user.key"),
    }
    for name in ("keda-scram", "keda-mtls"):
        (auth,) = of(scenario(name), "TriggerAuthentication")
        for scaled in of(scenario(name), "ScaledObject").values():
            assert {t["authenticationRef"]["name"] for t in scaled["spec"]["triggers"]} == {auth}
    assert of(render({"autoscaling": {"mode": "keda"}}), "TriggerAuthentication") == {}


PAGE = (CHART.parent / "docs" / "deploy-helm.md").read_text()


@pytest.mark.parametrize("values", re.findall(r"^```yaml\n(.*?)^```", PAGE, re.S | re.M))
def test_the_values_that_the_page_shows_are_taken(values: str) -> None:
    assert len(of(render(yaml.safe_load(values)), "Deployment")) == 13


def kafka_user(container: dict[str, Any]) -> dict[str, Any]:
    """The name and the password that it has, and where those come from that are in a Secret."""
    return {
        e["name"].rpartition("__")[2]: e.get("value") or tuple(e["valueFrom"]["secretKeyRef"].values())
        for e in container["env"]
        if e["name"] in ("SCRIMP_KAFKA__SASL_USERNAME", "SCRIMP_KAFKA__SASL_PASSWORD")
    }


def test_a_kafka_user_of_a_lanes_own() -> None:
    found = {where: [kafka_user(c) for c in containers(pod)] for where, pod in pods(scenario("keda-users"))}
    own = {
        "Deployment/scrimp-call": {"SASL_USERNAME": "scrimp-call", "SASL_PASSWORD": ("scrimp-call", "password")},
        "Deployment/scrimp-call-bulk": {"SASL_USERNAME": ("scrimp-call-bulk", "name"), "SASL_PASSWORD": ("scrimp-call-bulk", "word")},
        "Deployment/scrimp-attribute": {"SASL_USERNAME": "scrimp-attribute", "SASL_PASSWORD": ("scrimp-attribute", "password")},
        "Job/scrimp-topics": {"SASL_USERNAME": "scrimp-topics", "SASL_PASSWORD": ("scrimp-topics", "password")},
        "Job/scrimp-ledger": {},
    }
    of_all = {"SASL_USERNAME": "scrimp", "SASL_PASSWORD": ("scrimp-user", "password")}
    assert own.keys() <= found.keys()
    for where, users in found.items():
        assert users == [own.get(where, of_all)] * len(users), where


def test_a_certificate_of_a_lanes_own() -> None:
    for where, pod in pods(scenario("keda-users")):
        files = {
            item["path"]: (source["secret"]["name"], item["key"])
            for volume in pod["volumes"]
            if volume["name"] == "kafka-tls"
            for source in volume["projected"]["sources"]
            for item in source["secret"]["items"]
        }
        client = {name: place for name, place in files.items() if name.startswith("client")}
        named = {"SCRIMP_KAFKA__SSL_CERT_FILE", "SCRIMP_KAFKA__SSL_KEY_FILE"} & set(environment(containers(pod)[0], {}))
        if where == "Deployment/scrimp-attribute":
            assert client == {"client.crt": ("scrimp-attribute", "user.crt"), "client.key": ("scrimp-attribute", "user.key")}
            assert files["ca.crt"] == ("cluster-ca-cert", "ca.crt")
            assert len(named) == 2
        else:
            assert (client, named) == ({}, set()), where


def test_keda_looks_at_a_lane_as_that_lanes_user() -> None:
    auths = of(scenario("keda-users"), "TriggerAuthentication")
    own = {"scrimp-call", "scrimp-call-bulk", "scrimp-attribute"}
    assert set(auths) == {"scrimp-kafka"} | {f"{name}-kafka" for name in own}
    for name, scaled in of(scenario("keda-users"), "ScaledObject").items():
        (used,) = {trigger["authenticationRef"]["name"] for trigger in scaled["spec"]["triggers"]}
        assert used == (f"{name}-kafka" if name in own else "scrimp-kafka")
    taken = {name: {r["parameter"]: (r["name"], r["key"]) for r in auth["spec"]["secretTargetRef"]} for name, auth in auths.items()}
    ca = {"ca": ("cluster-ca-cert", "ca.crt")}
    assert taken["scrimp-kafka"] == ca | {"password": ("scrimp-user", "password")}
    assert taken["scrimp-call-bulk-kafka"] == ca | {"username": ("scrimp-call-bulk", "name"), "password": ("scrimp-call-bulk", "word")}
    assert taken["scrimp-attribute-kafka"] == ca | {
        "password": ("scrimp-attribute", "password"),
        "cert": ("scrimp-attribute", "user.crt"),
        "key": ("scrimp-attribute", "user.key"),
    }


def test_a_network_policy_for_every_pod_with_what_its_stage_needs() -> None:
    manifests = scenario("locked-down")
    policies = of(manifests, "NetworkPolicy")
    assert {f"scrimp-{stage}" for stage in STAGES} <= set(policies)
    for m in manifests:
        labels = (
            m["metadata"].get("labels", {})
            if m["kind"] == "Pod"
            else m["spec"]["template"]["metadata"]["labels"]
            if "template" in m.get("spec", {})
            else None
        )
        if labels is not None:
            chosen = [p for p in policies.values() if p["spec"]["podSelector"]["matchLabels"].items() <= labels.items()]
            assert len(chosen) == 1, m["metadata"]["name"]
    reached = {name: {port["port"] for rule in p["spec"]["egress"] for port in rule["ports"]} - {53, 4317} for name, p in policies.items()}
    kafka = {9092, 9093}
    assert reached == {
        "scrimp-classify": kafka,
        "scrimp-cache": kafka | {6333},
        "scrimp-remember": kafka | {6333},
        "scrimp-compress": kafka,
        "scrimp-call": kafka | {5432, 443, 8000},
        "scrimp-attribute": kafka | {5432},
        "scrimp-redeliver": kafka,
        "scrimp-topics": kafka,
        "scrimp-ledger": {5432},
        "scrimp-test": kafka | {5432, 6333},
    }


def test_the_ports_of_a_network_policy_follow_the_addresses() -> None:
    values = {
        "networkPolicy": {"enabled": True},
        "kafka": {"bootstrapServers": "a:9094, b:09094,[::1]:9095"},
        "qdrant": {"url": "https://q"},
    }
    cache = of(render(values), "NetworkPolicy")["scrimp-cache"]["spec"]["egress"]
    assert [port["port"] for rule in cache for port in rule["ports"]] == [53, 53, 9094, 9095, 443]


# Policy, hooks, test.


def test_the_policy_is_mounted_as_a_directory_and_restarts_nothing() -> None:
    inline = yaml.safe_load((CHART / "ci" / "policy.yaml").read_text())["policy"]["inline"]
    maps = of(scenario("policy"), "ConfigMap")
    assert maps["scrimp-policy"]["data"]["policy.yaml"].strip() == inline.strip()
    policy.parse(maps["scrimp-policy"]["data"]["policy.yaml"], "chart")
    changed = render(
        {**yaml.safe_load((CHART / "ci" / "policy.yaml").read_text()), "policy": {"inline": inline + "timezone: Europe/Berlin\n"}}
    )
    for name, m in of(changed, "Deployment").items():
        assert m == of(scenario("policy"), "Deployment")[name]
        pod = m["spec"]["template"]["spec"]
        (mount,) = [mount for mount in pod["containers"][0]["volumeMounts"] if mount["name"] == "policy"]
        assert "subPath" not in mount
        assert Path(environment(pod["containers"][0], {})["SCRIMP_POLICY_FILE"]).parent == Path(mount["mountPath"])
    yours = of(scenario("policy-of-yours"), "Deployment")["scrimp-call"]["spec"]["template"]["spec"]
    assert environment(yours["containers"][0], {})["SCRIMP_POLICY_FILE"] == "/etc/scrimp/policy/prod.yaml"
    assert [v["configMap"]["name"] for v in yours["volumes"] if v["name"] == "policy"] == ["llm-policy"]


@pytest.mark.parametrize("name", NAMES)
def test_what_runs_before_the_release_stands_on_nothing_of_the_release(name: str) -> None:
    manifests = scenario(name)

    def weight(m: dict[str, Any]) -> int | None:
        hooks = m["metadata"].get("annotations", {})
        return int(hooks["helm.sh/hook-weight"]) if hooks.get("helm.sh/hook") == "pre-install,pre-upgrade" else None

    own = of(manifests, "ConfigMap")
    values = yaml.safe_load((CHART / "ci" / f"{name}.yaml").read_text())
    yours = values.get("policy", {}).get("existingConfigMap")
    for job in of(manifests, "Job").values():
        at = weight(job)
        assert at is not None
        pod = job["spec"]["template"]["spec"]
        assert pod.get("serviceAccountName") == values.get("serviceAccountName")
        for volume in pod["volumes"]:
            needed = volume.get("configMap", {}).get("name")
            if needed is not None and needed != yours:
                earlier = weight(own[needed])
                assert earlier is not None
                assert earlier < at


def test_topics_then_ledger_before_the_release() -> None:
    jobs = of(scenario("defaults"), "Job")
    run = {
        name: ([c["args"] for c in containers(job["spec"]["template"]["spec"])], int(job["metadata"]["annotations"]["helm.sh/hook-weight"]))
        for name, job in jobs.items()
    }
    assert run == {"scrimp-topics": ([["topics", "apply"], ["topics", "check"]], -5), "scrimp-ledger": ([["ledger", "upgrade"]], -4)}
    assert of(scenario("policy-of-yours"), "Job") == {}
    (topics,) = of(render({"topics": {"apply": False}, "ledger": {"migrate": False}}), "Job").values()
    assert [c["args"] for c in containers(topics["spec"]["template"]["spec"])] == [["topics", "check"]]
    env = environment(containers(topics["spec"]["template"]["spec"])[0], {})
    assert (env["SCRIMP_KAFKA__PARTITIONS"], env["SCRIMP_KAFKA__REPLICATION_FACTOR"]) == ("12", "3")


def test_helm_test_spends_nothing_unless_told_to_ask() -> None:
    (pod,) = of(scenario("defaults"), "Pod").values()
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    assert [c["args"] for c in containers(pod["spec"])] == [["doctor"]]
    (pod,) = of(scenario("policy"), "Pod").values()
    assert [c["args"] for c in containers(pod["spec"])] == [
        ["doctor"],
        ["ask", "What is 2 + 3? Say {{ nothing }} else.", "--tenant", "acme", "--timeout", "60"],
    ]


def test_the_rule_holds_the_alerts_as_they_are() -> None:
    (rule,) = of(scenario("locked-down"), "PrometheusRule").values()
    assert rule["spec"] == yaml.safe_load((CHART / "files" / "alerts.yaml").read_text())
    assert rule["metadata"]["labels"]["release"] == "prometheus"


def alerts_of(values: dict[str, Any]) -> dict[str, dict[str, Any]]:
    (rule,) = of(render({"monitoring": {"prometheusRule": {"enabled": True}}} | values), "PrometheusRule").values()
    return {alert["alert"]: alert for group in rule["spec"]["groups"] for alert in group["rules"]}


def test_alerts_lead_to_the_copy_of_the_page_that_is_named() -> None:
    (rule,) = of(scenario("keda-users"), "PrometheusRule").values()
    named = [(alert["alert"], alert["annotations"]["runbook_url"]) for group in rule["spec"]["groups"] for alert in group["rules"]]
    assert len(named) > 10
    assert named == [(alert, f"https://docs.example.com/scrimp/operate/#{alert.lower()}") for alert, _ in named]


@pytest.mark.parametrize(
    ("values", "left_out"),
    [
        ({}, ""),
        ({"stages": {"call": {"bulk": {"minReplicas": 0}}}}, ""),  # nothing scales it
        ({"stages": {"call": {"bulk": {"replicas": 0}}}}, "call"),
        ({"autoscaling": {"mode": "keda"}, "stages": {"call": {"bulk": {"replicas": 0}}}}, ""),
        ({"autoscaling": {"mode": "keda"}, "stages": {s: {"bulk": {"minReplicas": 0}} for s in ("compress", "call")}}, "call|compress"),
    ],
    ids=str,
)
def test_a_bulk_lane_that_may_be_scaled_to_none_is_never_absent(values: dict[str, Any], left_out: str) -> None:
    given, ours = yaml.safe_load((CHART / "files" / "alerts.yaml").read_text()), alerts_of(values)
    (absent,) = [rule for rule in given["groups"][0]["rules"] if rule["alert"] == "ScrimpBulkAbsent"]
    assert ours.pop("ScrimpBulkAbsent")["expr"] == absent["expr"].replace('stage!~""', f'stage!~"{left_out}"')
    assert list(ours.values()) == [rule for rule in given["groups"][0]["rules"] if rule is not absent]
