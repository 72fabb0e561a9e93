"""Values that are misspelt, of the wrong kind or contradict one another are refused, with a message that names the key. Needs Helm."""

from __future__ import annotations

from typing import Any

import pytest

from tests.deploy.chart import Refused, needed, pods, render
from workers.call.slots import under_way

needed()

POLICY = "models: {m: {litellm: openai/m, context: 9, api_key_env: OPENAI_API_KEY}}\ntiers: {light: [m]}\nreference: m\n"


def lane(stage: str = "call", which: str = "bulk", **values: Any) -> dict[str, Any]:
    return {"stages": {stage: {which: values}}}


def both(stage: str = "call", **values: Any) -> dict[str, Any]:
    return {"stages": {stage: {"interactive": values, "bulk": values}}}


MY_KEY: dict[str, Any] = {"name": "MY_KEY", "valueFrom": {"secretKeyRef": {"name": "mine", "key": "key"}}}
MY_VOLUME: dict[str, Any] = {"name": "mine", "emptyDir": {}}
KEDA: dict[str, Any] = {"autoscaling": {"mode": "keda"}}
SCRAM: dict[str, Any] = {"kafka": {"securityProtocol": "SASL_SSL", "sasl": {"mechanism": "SCRAM-SHA-512", "username": "scrimp"}}}


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"kafak": {}}, ["kafak"]),
        ({"kafka": {"bootstrapServer": "a:1"}}, ["/kafka", "bootstrapServer"]),
        ({"kafka": {"bootstrapServers": "kafka"}}, ["/kafka/bootstrapServers"]),
        ({"kafka": {"bootstrapServers": ""}}, ["/kafka/bootstrapServers"]),
        ({"kafka": {"securityProtocol": "TLS"}}, ["/kafka/securityProtocol"]),
        ({"kafka": {"partitions": "12"}}, ["/kafka/partitions"]),
        ({"kafka": {"topicPrefix": "llm/"}}, ["/kafka/topicPrefix"]),
        ({"existingSecret": ""}, ["/existingSecret"]),
        ({"qdrant": {"url": "qdrant:6333"}}, ["/qdrant/url"]),
        ({"http": {"port": 80}}, ["/http/port"]),
        ({"logLevel": "TRACE"}, ["/logLevel"]),
        ({"autoscaling": {"mode": "vpa"}}, ["/autoscaling/mode"]),
        ({"autoscaling": {"keda": {"metadata": {"excludePersistentLag": True}}}}, ["/autoscaling/keda/metadata/excludePersistentLag"]),
        ({"stages": {"call": {"interactve": {}}}}, ["/stages/call", "interactve"]),
        ({"stages": {"batch": {"bulk": {}}}}, ["/stages", "batch"]),
        ({"stages": {"call": {"bulk": None}}}, ["/stages/call", "bulk"]),
        (lane(replica=3), ["/stages/call/bulk", "replica"]),
        (lane(replicas=-1), ["/stages/call/bulk/replicas"]),
        (lane("redeliver", "both", maxReplicas=3), ["/stages/redeliver/both", "maxReplicas"]),
        (lane(resources={"limit": {}}), ["/stages/call/bulk/resources", "limit"]),
        (lane(env={"SCRIMP_CALL__TIMEOUT_S": 90}), ["/stages/call/bulk/env/SCRIMP_CALL__TIMEOUT_S"]),
        (lane(extraEnv=[{"name": "A", "vale": "b"}]), ["/stages/call/bulk/extraEnv/0", "vale"]),
        ({"defaults": {"maxReplica": 2}}, ["/defaults", "maxReplica"]),
        (lane(kafkaUser={"user": "call"}), ["/stages/call/bulk/kafkaUser", "user"]),
        ({"topics": {"kafkaUser": {"passwordKey": ""}}}, ["/topics/kafkaUser/passwordKey"]),
        ({"monitoring": {"prometheusRule": {"runbookUrl": "https://a/#b"}}}, ["/monitoring/prometheusRule/runbookUrl"]),
        ({"providerKeys": {"names": ["sk-123"]}}, ["/providerKeys/names/0"]),
        ({"image": {"repository": "registry:5000/scrimp:0.1.0"}}, ["/image/repository"]),
        ({"networkPolicy": {"metricsFrom": [{}]}}, ["/networkPolicy/metricsFrom/0"]),
        # What is Kubernetes' own.
        ({"securityContext": {"readOnlyRootFileSystem": True}}, ["/securityContext", "readOnlyRootFileSystem"]),
        ({"securityContext": {"capabilities": {"drops": ["ALL"]}}}, ["/securityContext/capabilities", "drops"]),
        ({"podSecurityContext": {"fsgroup": 1}}, ["/podSecurityContext", "fsgroup"]),
        ({"podSecurityContext": {"seccompProfile": {"typ": "RuntimeDefault"}}}, ["/podSecurityContext/seccompProfile", "typ"]),
        ({"autoscaling": {"behavior": {"scaleUp": {"stabilizationWindow": 9}}}}, ["/autoscaling/behavior/scaleUp", "stabilizationWindow"]),
        (
            {"autoscaling": {"behavior": {"scaleDown": {"policies": [{"type": "Pods", "value": 1, "periodSecond": 60}]}}}},
            ["/autoscaling/behavior/scaleDown/policies/0", "periodSecond"],
        ),
        ({"defaults": {"tolerations": [{"key": "a", "efect": "NoSchedule"}]}}, ["/defaults/tolerations/0", "efect"]),
        (lane(extraVolumes=[{"emptyDir": {}}]), ["/stages/call/bulk/extraVolumes/0", "name"]),
        (lane(topologySpreadConstraints=[{"maxskew": 1}]), ["/stages/call/bulk/topologySpreadConstraints/0", "maxskew"]),
        (lane(extraVolumeMounts=[{"name": "a", "mountpath": "/a"}]), ["/stages/call/bulk/extraVolumeMounts/0", "mountpath"]),
        ({"networkPolicy": {"ledger": {"to": [{"ipBlock": {"cdr": "10.0.0.0/8"}}]}}}, ["/networkPolicy/ledger/to/0/ipBlock", "cdr"]),
        (
            {"networkPolicy": {"kafka": {"to": [{"podSelector": {"matchLabel": {}}}]}}},
            ["/networkPolicy/kafka/to/0/podSelector", "matchLabel"],
        ),
        ({"networkPolicy": {"extraEgress": [{"prots": []}]}}, ["/networkPolicy/extraEgress/0", "prots"]),
        (lane(extraEnv=[{"name": "A", "valueFrom": {"secretRef": {}}}]), ["/stages/call/bulk/extraEnv/0/valueFrom", "secretRef"]),
        (
            lane("redeliver", "both", extraEnv=[{"name": "A", "valueFrom": {"secretKeyRef": {"name": "a", "keys": "b"}}}]),
            ["/stages/redeliver/both/extraEnv/0/valueFrom/secretKeyRef", "keys"],
        ),
        (lane(resources={"limits": {"memry": "1Gi"}}), ["/stages/call/bulk/resources/limits", "memry"]),
        ({"jobs": {"resources": {"requests": {"CPU": 1}}}}, ["/jobs/resources/requests", "CPU"]),
    ],
    ids=str,
)
def test_the_schema_names_the_key(values: dict[str, Any], named: list[str]) -> None:
    with pytest.raises(Refused) as e:
        render(values)
    told = str(e.value)
    assert "values don't meet the specifications of the schema" in told
    for word in named:
        assert word in told or word.replace("/", ".").lstrip(".") in told


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (KEDA | lane(maxReplicas=13), "stages.call.bulk.maxReplicas: 13 is more than the 12 partitions of llm.compressed.bulk"),
        (KEDA | lane(minReplicas=5, maxReplicas=4), "stages.call.bulk.minReplicas: 5 is more than maxReplicas, 4"),
        ({"kafka": {"partitions": 3}, **KEDA}, "maxReplicas: 4 is more than the 3 partitions of llm."),
        (
            {"autoscaling": {"mode": "hpa"}} | lane("cache", maxReplicas=50),
            "stages.cache.bulk.maxReplicas: 50 is more than the 12 partitions",
        ),
        (lane("redeliver", "both", replicas=13), "stages.redeliver.both.replicas: 13 is more than the 12 partitions of llm.retry.10s"),
        (lane(replicas=13), "stages.call.bulk.replicas: 13 is more than the 12 partitions of llm.compressed.bulk"),
        (KEDA | lane(which="interactive", minReplicas=0), "stages.call.interactive.minReplicas: 0 is for the bulk lane"),
        (
            {"autoscaling": {"mode": "hpa"}} | lane(minReplicas=0),
            "stages.call.bulk.minReplicas: 0 is for the bulk lane, with autoscaling.mode keda",
        ),
        (KEDA | lane(lagThreshold=under_way(32)), f"stages.call.bulk.lagThreshold: must be above {under_way(32)}: "),
        (KEDA | lane("cache", lagThreshold=64), "stages.cache.bulk.lagThreshold: must be above 64: "),
        (KEDA | lane(window=400), f"stages.call.bulk.lagThreshold: must be above {under_way(400)}: "),
        (
            {"autoscaling": {"mode": "hpa"}, "defaults": {"resources": {"requests": {"cpu": None}}}},
            "stages.attribute.bulk.resources.requests.cpu: autoscaling.mode hpa is a share of it",
        ),
        (lane(terminationGracePeriodSeconds=70), "stages.call.bulk.terminationGracePeriodSeconds: 70 must be above the drain, 70 s"),
        (
            lane("cache", drainSeconds=30, terminationGracePeriodSeconds=20),
            "stages.cache.bulk.terminationGracePeriodSeconds: 20 must be above the drain, 30 s",
        ),
        (
            {"defaults": {"terminationGracePeriodSeconds": 60}},
            "stages.call.bulk.terminationGracePeriodSeconds: 60 must be above the drain, 70 s",
        ),
        (
            lane(drainSeconds=60),
            "stages.call.bulk.drainSeconds: SCRIMP_CALL__DRAIN_S, 60, must be above 60, as SCRIMP_CALL__TIMEOUT_S is 60: a ",
        ),
        (
            lane(env={"SCRIMP_CALL__TIMEOUT_S": "90"}),
            "stages.call.bulk.drainSeconds: SCRIMP_CALL__DRAIN_S, 70, must be above 90, as SCRIMP_CALL__TIMEOUT_S is 90: a ",
        ),
        (
            lane("cache", env={"SCRIMP_CALL__TIMEOUT_S": "200"}),
            "stages.cache.bulk.env.SCRIMP_CALL__TIMEOUT_S: SCRIMP_HTTP__STALL_S, 180, must be above 200, as SCRIMP_CALL__TIMEOUT_S ",
        ),
        (
            lane(env={"SCRIMP_HTTP__STALL_S": "60"}),
            "stages.call.bulk.env.SCRIMP_HTTP__STALL_S: SCRIMP_HTTP__STALL_S, 60, must be above 60, as SCRIMP_CALL__TIMEOUT_S is 60: a ",
        ),
        # Every process reads the settings of all stages; the Jobs and the test have those of the defaults.
        (
            lane("classify", env={"SCRIMP_CALL__TIMEOUT_S": "100"}),
            "stages.classify.bulk.env.SCRIMP_CALL__TIMEOUT_S: SCRIMP_CALL__DRAIN_S, 70, must be above 100, as SCRIMP_CALL__TIMEOUT_S ",
        ),
        (
            {
                "defaults": {"env": {"SCRIMP_CALL__TIMEOUT_S": "100"}},
                "stages": {"call": {"interactive": {"drainSeconds": 120}, "bulk": {"drainSeconds": 120}}},
            },
            "defaults.env.SCRIMP_CALL__TIMEOUT_S: SCRIMP_CALL__DRAIN_S, 70, must be above 100, as SCRIMP_CALL__TIMEOUT_S is 100: a ",
        ),
        (
            {"defaults": {"extraEnv": [{"name": "SCRIMP_CALL__TIMEOUT_S", "value": "70"}]}},
            "defaults.extraEnv: SCRIMP_CALL__DRAIN_S, 70, must be above 70, as SCRIMP_CALL__TIMEOUT_S is 70: a ",
        ),
        (
            {"defaults": {"env": {"SCRIMP_KAFKA__SESSION_TIMEOUT_MS": "3000"}}},
            "defaults.env.SCRIMP_KAFKA__SESSION_TIMEOUT_MS: SCRIMP_KAFKA__SESSION_TIMEOUT_MS, 3000, must be above 3000, as ",
        ),
        (
            lane(env={"SCRIMP_LEDGER__HEARTBEAT_S": "8"}),
            "stages.call.bulk.env.SCRIMP_LEDGER__HEARTBEAT_S: SCRIMP_LEDGER__STALE_S, 15, must be at least 16, as ",
        ),
        (
            lane(env={"SCRIMP_CLASSIFY__SHORT_CONTEXT_TOKENS": "10001"}),
            "stages.call.bulk.env.SCRIMP_CLASSIFY__SHORT_CONTEXT_TOKENS: SCRIMP_CLASSIFY__LONG_CONTEXT_TOKENS, 10000, must be at least",
        ),
        (
            {"defaults": {"env": {"SCRIMP_HTTP__PORT": "9"}}},
            "defaults.env.SCRIMP_HTTP__PORT: the chart sets SCRIMP_HTTP__PORT: use http.port",
        ),
        (lane(env={"SCRIMP_CALL__TIMEOUT": "9"}), "stages.call.bulk.env.SCRIMP_CALL__TIMEOUT: SCRIMP_CALL__TIMEOUT is not a setting"),
        (
            lane(extraEnv=[{"name": "SCRIMP_CALL__TIMEOUT", "value": "9"}]),
            "stages.call.bulk.extraEnv: SCRIMP_CALL__TIMEOUT is not a setting",
        ),
        (lane(env={"SCRIMP_HTTP__PORT": "9"}), "stages.call.bulk.env.SCRIMP_HTTP__PORT: the chart sets SCRIMP_HTTP__PORT: use http.port"),
        (lane(env={"scrimp_http__port": "9"}), "stages.call.bulk.env.scrimp_http__port: the chart sets scrimp_http__port: use http.port"),
        (
            lane(extraEnv=[{"name": "SCRIMP_HTTP__PORT", "value": "9"}]),
            "stages.call.bulk.extraEnv: the chart sets SCRIMP_HTTP__PORT: use http.port",
        ),
        (
            lane(env={"SCRIMP_CALL__WINDOW": "9"}),
            "stages.call.bulk.env.SCRIMP_CALL__WINDOW: the chart sets SCRIMP_CALL__WINDOW: use stages.call.bulk.window",
        ),
        (lane(env={"OPENAI_API_KEY": "sk"}), "stages.call.bulk.env.OPENAI_API_KEY: OPENAI_API_KEY is a secret, and comes from one"),
        ({"kafka": {"securityProtocol": "SASL_SSL"}}, "kafka.sasl.mechanism: kafka.securityProtocol SASL_SSL needs one of"),
        ({"kafka": {"sasl": {"mechanism": "PLAIN"}}}, "kafka.sasl.mechanism: with kafka.securityProtocol PLAINTEXT nobody signs in"),
        ({"kafka": {"tls": {"caKey": "ca.crt"}}}, "kafka.tls.caKey: kafka.securityProtocol PLAINTEXT has no TLS"),
        (
            {"kafka": {"securityProtocol": "SSL", "tls": {"clientSecret": "scrimp-user"}}},
            "kafka.tls.certKey: is empty, so the client's certificate in scrimp-user (kafka.tls.clientSecret) would not be used",
        ),
        (
            {"kafka": {"securityProtocol": "SSL", "tls": {"certKey": "user.crt"}}},
            "kafka.tls.certKey and kafka.tls.keyKey: the client's certificate and its key go together",
        ),
        (lane(kafkaUser={"existingSecret": "call"}), "stages.call.bulk.kafkaUser: kafka has neither users nor client certificates"),
        (
            lane(kafkaUser={"passwordKey": "p"}),
            "stages.call.bulk.kafkaUser.passwordKey: kafka.sasl.mechanism is empty, so nobody signs in with a name",
        ),
        (
            lane(kafkaUser={"certKey": "c", "keyKey": "k"}),
            "stages.call.bulk.kafkaUser.certKey: kafka.securityProtocol PLAINTEXT has no TLS; use SSL or SASL_SSL",
        ),
        (
            {"kafka": {"securityProtocol": "SSL"}} | lane(kafkaUser={"certKey": "c"}),
            "stages.call.bulk.kafkaUser.certKey and stages.call.bulk.kafkaUser.keyKey: the client's certificate and its key go together",
        ),
        (
            SCRAM | lane(kafkaUser={"username": "u", "usernameKey": "k"}),
            "stages.call.bulk.kafkaUser.username and stages.call.bulk.kafkaUser",
        ),
        (
            SCRAM | lane(kafkaUser={"existingSecret": "call"}),
            "stages.call.bulk.kafkaUser.username: is missing, and kafka.sasl.username, scrimp, is another user; or give usernameKey",
        ),
        ({"topics": {"kafkaUser": {"existingSecret": "t"}}}, "topics.kafkaUser: kafka has neither users nor client certificates"),
        ({"test": {"kafkaUser": {"existingSecret": "t"}}}, "test.kafkaUser: kafka has neither users nor client certificates"),
        ({"policy": {"inline": POLICY, "existingConfigMap": "p"}}, "policy.inline and policy.existingConfigMap: give one of them"),
        ({"policy": {"inline": "models: {"}}, "policy.inline: not YAML"),
        ({"policy": {"inline": "- a list"}}, "policy.inline: not YAML"),
        ({"policy": {"inline": "models: {}"}}, "policy.inline: tiers is missing"),
        ({"policy": {"inline": "x"}}, "policy.inline: not YAML"),
        ({"policy": {"inline": "# only a comment"}}, "policy.inline: models is missing"),
        ({"policy": {"inline": "models: x"}}, "policy.inline: models must be a map"),
        ({"policy": {"inline": "{models: [m], tiers: {}, reference: m}"}}, "policy.inline: models must be a map"),
        ({"policy": {"inline": "{models: {m: openai/m}, tiers: {}, reference: m}"}}, "policy.inline: models.m must be a map"),
        ({"policy": {"inline": "{models: {}, tiers: light, reference: m}"}}, "policy.inline: tiers must be a map"),
        ({"policy": {"inline": POLICY + "tenants: abc"}}, "policy.inline: tenants must be a map"),
        ({"policy": {"inline": POLICY + "tenants: 7"}}, "policy.inline: tenants must be a map"),
        ({"policy": {"inline": POLICY.replace("OPENAI_API_KEY", "7")}}, "providerKeys.names: 7 is missing, which policy.inline names"),
        (
            {"policy": {"inline": POLICY.replace("OPENAI_API_KEY", "MY_KEY")}},
            "providerKeys.names: MY_KEY is missing, which policy.inline names at models.m.api_key_env",
        ),
        # Each lane of `call` must have it, and a lane's own list replaces that of the defaults.
        (
            {"policy": {"inline": POLICY.replace("OPENAI_API_KEY", "MY_KEY")}} | lane(extraEnv=[MY_KEY]),
            "providerKeys.names: MY_KEY is missing, which policy.inline names at models.m.api_key_env",
        ),
        (
            {"policy": {"inline": POLICY.replace("OPENAI_API_KEY", "MY_KEY")}, "defaults": {"extraEnv": [MY_KEY]}} | lane(extraEnv=[]),
            "providerKeys.names: MY_KEY is missing, which policy.inline names at models.m.api_key_env",
        ),
        (
            {"policy": {"inline": POLICY + "tenants: {acme: {hmac_env: MY_KEY}}"}} | both(extraEnv=[MY_KEY]),
            "signingKeys.names: MY_KEY is missing, which policy.inline names at tenants.acme.hmac_env",
        ),
        (
            {"policy": {"inline": POLICY + "tenants: {acme: {hmac_env: ACME_KEY}}"}},
            "signingKeys.names: ACME_KEY is missing, which policy.inline names at tenants.acme.hmac_env",
        ),
        ({"encoder": {"volume": {"emptyDir": {}}}}, "encoder.path: encoder.volume needs the directory"),
        ({"kafka": {"bootstrapServers": "a:9092, b:0"}}, "kafka.bootstrapServers: the port of b:0 must be between 1 and 65535"),
        ({"kafka": {"bootstrapServers": "[::1]:65536"}}, "kafka.bootstrapServers: the port of [::1]:65536 must be between 1 and 65535"),
        ({"qdrant": {"url": "http://qdrant:0"}}, "qdrant.url: the port of http://qdrant:0 must be between 1 and 65535"),
        ({"qdrant": {"url": "https://qdrant:65536/"}}, "qdrant.url: the port of https://qdrant:65536/ must be between 1 and 65535"),
        ({"qdrant": {"url": "http://qdrant:http"}}, "qdrant.url: the port of http://qdrant:http must be between 1 and 65535"),
        # What the chart has there already.
        ({"encoder": {"volume": {"emptyDir": {}}, "path": "/tmp/"}}, "encoder.path: /tmp/ holds something else"),
        (
            {"encoder": {"volume": {"emptyDir": {}}, "path": "/etc/scrimp/policy"}},
            "encoder.path: /etc/scrimp/policy holds something else",
        ),
        (lane(extraVolumes=[{"name": "tmp", "emptyDir": {}}]), "stages.call.bulk.extraVolumes: there is a volume called tmp already"),
        (
            {"policy": {"existingConfigMap": "p"}, "defaults": {"extraVolumes": [{"name": "policy", "emptyDir": {}}]}},
            "extraVolumes: there is a volume called policy already",
        ),
        (lane(extraVolumes=[MY_VOLUME, MY_VOLUME]), "stages.call.bulk.extraVolumes: there is a volume called mine already"),
        (
            lane(extraVolumes=[MY_VOLUME], extraVolumeMounts=[{"name": "mine", "mountPath": "/tmp"}]),
            "stages.call.bulk.extraVolumeMounts: something is mounted at /tmp already",
        ),
        (
            lane(extraVolumes=[MY_VOLUME], extraVolumeMounts=[{"name": "mine", "mountPath": "/tmp/"}]),
            "stages.call.bulk.extraVolumeMounts: something is mounted at /tmp/ already",
        ),
        (
            lane(extraVolumes=[MY_VOLUME], extraVolumeMounts=[{"name": "mine", "mountPath": path} for path in ("/a", "/a")]),
            "stages.call.bulk.extraVolumeMounts: something is mounted at /a already",
        ),
        # What would stand there twice, of which Kubernetes takes one without a word.
        (
            lane(extraEnv=[{"name": "OPENAI_API_KEY", "value": "sk"}]),
            "stages.call.bulk.extraEnv: OPENAI_API_KEY is a secret, and comes from one",
        ),
        (lane(env={"A": "1"}, extraEnv=[{"name": "A", "value": "2"}]), "stages.call.bulk.extraEnv: A is given twice"),
        (lane(extraEnv=[{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]), "stages.call.bulk.extraEnv: A is given twice"),
        (
            lane(env={"SCRIMP_CALL__TIMEOUT_S": "50", "scrimp_call__timeout_s": "40"}),
            "stages.call.bulk.env.scrimp_call__timeout_s: SCRIMP_CALL__TIMEOUT_S is given twice",
        ),
        (
            lane(extraEnv=[{"name": "scrimp_call__timeout_s", "value": "90"}]),
            "stages.call.bulk.drainSeconds: SCRIMP_CALL__DRAIN_S, 70, must be above 90, as SCRIMP_CALL__TIMEOUT_S is 90: a ",
        ),
        (lane(podLabels={"lane": "mine"}), "stages.call.bulk.podLabels.lane: the chart sets it"),
        ({"autoscaling": {"mode": "keda", "keda": {"metadata": {"topic": "t"}}}}, "autoscaling.keda.metadata.topic: the chart sets it"),
        ({"providerKeys": {"names": ["SCRIMP_LEDGER__URL"]}}, "providerKeys.names: SCRIMP_LEDGER__URL is no key of the policy's"),
        ({"signingKeys": {"names": ["OPENAI_API_KEY"]}}, "signingKeys.names: OPENAI_API_KEY is among providerKeys.names, too"),
        # What would not be used.
        ({"kafka": {"sasl": {"existingSecret": "s"}}}, "kafka.sasl.existingSecret: with kafka.securityProtocol PLAINTEXT nobody signs in"),
        ({"kafka": {"sasl": {"username": "u"}}}, "kafka.sasl.username: with kafka.securityProtocol PLAINTEXT nobody signs in"),
        (
            {"kafka": {"securityProtocol": "SSL", "tls": {"caSecret": "cluster-ca"}}},
            "kafka.tls.caKey: is empty, so the CA in cluster-ca (kafka.tls.caSecret) would not be used",
        ),
        ({"qdrant": {"existingSecret": "q"}}, "qdrant.apiKeyKey: is empty, so the API key in q (qdrant.existingSecret) would not be used"),
    ],
    ids=str,
)
def test_what_contradicts_is_told_by_its_key(values: dict[str, Any], told: str) -> None:
    with pytest.raises(Refused) as e:
        render(values)
    assert told in str(e.value)


def test_a_time_out_of_calls_own_and_settings_at_their_bounds_are_taken() -> None:
    render(lane(env={"SCRIMP_CALL__TIMEOUT_S": "100"}, drainSeconds=120))
    render(lane("classify", env={"SCRIMP_CALL__TIMEOUT_S": "100", "SCRIMP_CALL__DRAIN_S": "100.5"}))
    render(lane(env={"SCRIMP_KAFKA__SESSION_TIMEOUT_MS": " 45_000 "}))
    render(lane(env={"SCRIMP_LEDGER__HEARTBEAT_S": "7.5", "SCRIMP_CLASSIFY__SHORT_CONTEXT_TOKENS": "10000"}))


@pytest.mark.parametrize(
    "values",
    [
        {"defaults": {"extraEnv": [MY_KEY]}},
        both(extraEnv=[MY_KEY]),
        {"stages": {"call": {"interactive": {"enabled": False}, "bulk": {"extraEnv": [MY_KEY]}}}},
    ],
    ids=str,
)
def test_a_key_of_the_policy_may_come_by_extra_env_to_each_lane_that_needs_it(values: dict[str, Any]) -> None:
    render({"policy": {"inline": POLICY.replace("OPENAI_API_KEY", "MY_KEY")}} | values)


def test_a_signing_key_may_come_by_extra_env_too() -> None:
    render({"policy": {"inline": POLICY + "tenants: {acme: {hmac_env: MY_KEY}}"}} | both("classify", extraEnv=[MY_KEY]))


@pytest.mark.parametrize("where", ["kafka.tls", "defaults.kafkaUser", "topics.kafkaUser", "test.kafkaUser", "stages.call.bulk.kafkaUser"])
def test_whoever_has_a_certificate_uses_the_client_secret(where: str) -> None:
    certificate: dict[str, Any] = {"certKey": "user.crt", "keyKey": "user.key"}
    for key in reversed(where.split(".")):
        certificate = {key: certificate}
    kafka = {"securityProtocol": "SSL", "tls": {"clientSecret": "scrimp-user"} | certificate.pop("kafka", {}).get("tls", {})}
    manifests = render({"kafka": kafka} | certificate)
    projected = [v["projected"]["sources"] for _, pod in pods(manifests) for v in pod["volumes"] if v["name"] == "kafka-tls"]
    assert {source["secret"]["name"] for sources in projected for source in sources} == {"scrimp-user"}


@pytest.mark.parametrize(
    "url", ["http://qdrant", "http://qdrant:1/", "https://me:word@qdrant:65535", "http://[fd00::1]", "http://[fd00::1]:6333"]
)
def test_addresses_with_and_without_a_port_are_taken(url: str) -> None:
    render({"qdrant": {"url": url}, "kafka": {"bootstrapServers": "kafka:1, [fd00::1]:65535"}})


def test_a_volume_beside_those_of_the_chart_is_taken() -> None:
    # Only `cache` and `remember` have the encoder's.
    mounts = [{"name": "encoder", "mountPath": "/tmp/mine"}, {"name": "tmp", "mountPath": "/var/cache", "subPath": "cache"}]
    encoder = {"encoder": {"volume": {"emptyDir": {}}, "path": "/tmp/encoder"}}
    render(encoder | lane(extraVolumes=[{"name": "encoder", "emptyDir": {}}], extraVolumeMounts=mounts))


def test_what_would_contradict_in_another_mode_is_let_be() -> None:
    render(lane(maxReplicas=50, minReplicas=40, lagThreshold=1))
    render(KEDA | lane(replicas=50))


def test_a_lane_that_is_off_is_not_looked_at() -> None:
    render(lane(enabled=False, replicas=50))
