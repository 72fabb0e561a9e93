"""The chart's pods as processes: the commands, the environment and the files that it renders, on a real broker and a real database.

What Kubernetes would do is done here as plainly as can be: Jobs in the order of their weights, a ConfigMap as a folder, each pod as a
process of its own in an empty folder that must stay empty (the root of a pod is read-only), readiness by the probe. Qdrant is away, which
the fleet must bear. Needs Helm.
"""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from tests.deploy.chart import Manifest, containers, environment, needed, of, render
from tests.kafka.fleet import POLICY, SCRIMP, health
from tests.kafka.provider import Provider
from tests.servers.kafka import Broker
from tests.servers.postgres import database
from tests.servers.process import Process, free_port
from workers.encoder.bundled import bundled
from workers.pipeline import STAGES

needed()


class Cluster:
    """As much of one as the pods notice."""

    def __init__(self, manifests: list[Manifest], folder: Path, secrets: Mapping[str, str]) -> None:
        self._folder = folder
        self._secrets = dict(secrets)
        self.root = folder / "root"
        self.root.mkdir()
        self.ports: dict[str, int] = {}
        for name, m in of(manifests, "ConfigMap").items():
            (folder / name).mkdir()
            for key, text in m["data"].items():
                (folder / name / key).write_text(text)

    def run(self, pod: dict[str, Any]) -> list[subprocess.CompletedProcess[str]]:
        """Its containers one after the other, as far as they succeed."""
        done = []
        for container in containers(pod):
            command = [*SCRIMP, *container["args"]]
            env = self._environment(pod, container)
            done.append(subprocess.run(command, cwd=self.root, env=env, capture_output=True, text=True, timeout=120, check=False))
            if done[-1].returncode:
                break
        return done

    def launch(self, name: str, pod: dict[str, Any]) -> Process:
        (container,) = pod["containers"]
        port = self.ports[name] = free_port()  # a pod has an address of its own; here all share one
        env = self._environment(pod, container) | {"SCRIMP_HTTP__HOST": "127.0.0.1", "SCRIMP_HTTP__PORT": str(port)}
        log = self._folder / f"{name}.log"
        process = Process(
            [*SCRIMP, *container["args"]], log, lambda: health(port)[0] == 200, environment=env, folder=self.root, forked=True
        )
        process.launch()
        return process

    def scrape(self, name: str) -> str:
        with urlopen(f"http://127.0.0.1:{self.ports[name]}/metrics", timeout=10) as page:
            text: str = page.read().decode()
            return text

    def _environment(self, pod: dict[str, Any], container: dict[str, Any]) -> dict[str, str]:
        env = environment(container, self._secrets)
        maps = {v["name"]: self._folder / v["configMap"]["name"] for v in pod["volumes"] if "configMap" in v}
        for mount in container["volumeMounts"]:
            if mount["name"] in maps:
                env = {k: v.replace(mount["mountPath"], str(maps[mount["name"]])) for k, v in env.items()}
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "XDG_RUNTIME_DIR") if name in os.environ}
        return kept | env | {"HOME": str(self._folder), "PYTHONPATH": ":".join(filter(None, sys.path))}


@pytest.fixture(scope="module")
def ledger() -> Iterator[str]:
    with database() as url:
        yield url


@pytest.mark.timeout(400)  # seven processes and their imports, on a busy machine
def test_the_jobs_prepare_and_the_pods_answer(ledger: str, kafka: Broker, tmp_path: Path) -> None:
    prefix = f"h{uuid.uuid4().hex[:8]}."
    with ExitStack() as on_exit:
        provider = Provider(tmp_path)
        on_exit.callback(provider.close)
        provider.start()
        off = {"bulk": {"enabled": False}}
        values: dict[str, Any] = {
            "kafka": {
                "bootstrapServers": kafka.bootstrap,
                "topicPrefix": prefix,
                "groupPrefix": prefix,
                "partitions": 2,
                "replicationFactor": 1,
            },
            "qdrant": {"url": "http://127.0.0.1:9"},
            "encoder": {"path": str(bundled())},
            "policy": {"inline": POLICY.format(url=provider.url) + f"tenants: {{acme: {{responses_topic: {prefix}acme}}}}\n"},
            "defaults": {
                "env": {
                    "SCRIMP_KAFKA__HEARTBEAT_INTERVAL_MS": "500",
                    "SCRIMP_KAFKA__SESSION_TIMEOUT_MS": "6000",
                    "SCRIMP_KAFKA__IDEMPOTENCE": str(kafka.idempotence).lower(),
                }
            },
            "stages": dict.fromkeys(("classify", "cache", "remember", "compress", "call", "attribute"), off),
            "test": {"question": "Which colour has the parcel of the chart?", "tenant": "acme"},
        }
        manifests = render(values)
        cluster = Cluster(manifests, tmp_path, {"SCRIMP_LEDGER__URL": ledger})

        jobs = sorted(of(manifests, "Job").values(), key=lambda job: int(job["metadata"]["annotations"]["helm.sh/hook-weight"]))
        said = [done for job in jobs for done in cluster.run(job["spec"]["template"]["spec"])]
        assert [done.returncode for done in said] == [0, 0, 0], [done.stderr for done in said]
        assert f"created {prefix}acme" in said[0].stdout
        assert said[1].stdout == "every topic is as it should be\n"
        assert said[2].stdout.startswith("the ledger is at revision")

        more = of(render(values | {"kafka": values["kafka"] | {"partitions": 3}}), "Job")["scrimp-topics"]["spec"]["template"]["spec"]
        applied, checked = cluster.run(more)
        assert (applied.returncode, checked.returncode) == (0, 1)
        assert f"{prefix}compressed: 2 partitions, 3 wanted (SCRIMP_KAFKA__PARTITIONS)" in checked.stdout.splitlines()

        deployments = of(manifests, "Deployment")
        assert len(deployments) == 7
        processes = [cluster.launch(name, m["spec"]["template"]["spec"]) for name, m in deployments.items()]
        for process in processes:
            on_exit.callback(process.kill)
        for process in processes:
            process.until_ready()
        for name, m in deployments.items():
            stage = m["spec"]["template"]["spec"]["containers"][0]["args"][1]
            for consumer in STAGES[stage].consumers:
                assert f'scrimp_lag_records{{lane="interactive",stage="{consumer}"}}' in cluster.scrape(name)

        (test,) = of(manifests, "Pod").values()
        doctor, ask = containers(test["spec"])
        (told,) = cluster.run(test["spec"] | {"initContainers": [], "containers": [doctor]})
        problems = [line for line in told.stdout.splitlines() if line.startswith("PROBLEM")]
        assert len(problems) == 1, told.stdout
        assert problems[0].startswith("PROBLEM Qdrant: http://127.0.0.1:9")
        (answered,) = cluster.run(test["spec"] | {"initContainers": [], "containers": [ask]})
        assert answered.returncode == 0, answered.stderr
        assert answered.stdout.strip()
        assert len(provider.calls()) == 1

        assert {process.stop(100) for process in processes} == {0}
        assert list(cluster.root.iterdir()) == []
