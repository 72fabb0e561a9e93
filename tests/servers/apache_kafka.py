"""Apache Kafka without a container engine: the published jars on the Java that is there, one KRaft node on loopback.

`why_not()` names what is missing. `jars()` asks Maven once and keeps the folder; with the folder there, no network is needed. A download
that fails raises `NotReady` with Maven's words. `python -m tests.servers.apache_kafka` does that beforehand, and lets one broker leave its
classes as Java reads them fastest: each start after that costs half the CPU. Tests need neither to have been done.
"""

from __future__ import annotations

import base64
import fcntl
import os
import re
import shutil
import subprocess
import tempfile
import uuid
from pathlib import Path

from tests.servers.kafka_ready import coordinates
from tests.servers.process import NotReady, Process, free_port

VERSION = "4.4.0"
JAVA_NEEDED = 17
POM = Path(__file__).parent / "kafka_jars" / "pom.xml"

# A broker that lives for a minute: compiling well and collecting in parallel cost more than they give.
JVM = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData", "-XX:+ExitOnOutOfMemoryError", "-Djava.awt.headless=true")

CLASSES = "classes.jsa"

ONE_NODE = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "inter.broker.listener.name": "PLAINTEXT",
    "auto.create.topics.enable": "false",
    "default.replication.factor": "1",
    "min.insync.replicas": "1",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "1",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    # After SIGKILL the controller refuses the node until its old session is over (9 s by default); much less than 3 s fences a busy one.
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    "controller.quorum.election.timeout.ms": "100",
    "controller.quorum.election.backoff.max.ms": "100",
    "controlled.shutdown.enable": "false",
    "num.network.threads": "1",
    "num.io.threads": "2",
    "background.threads": "1",
    "log.segment.bytes": str(16 << 20),
    "log.index.size.max.bytes": str(256 << 10),
    "log.cleaner.dedupe.buffer.size": str(2 << 20),
}
"""Server properties of a small single node, whoever runs it."""

LOGGING = """\
status = error
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{HH:mm:ss.SSS} %-5p %c{1} %m%n%ex{short}
rootLogger.level = WARN
rootLogger.appenderRef.out.ref = out
"""


def why_not() -> str | None:
    """What this machine lacks for it; None when nothing."""
    for tool in ("java", "mvn"):
        if shutil.which(tool) is None:
            return f"no {tool}"
    told = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False).stderr
    found = re.search(r'version "(\d+)', told)
    if found is None or int(found[1]) < JAVA_NEEDED:
        return f"Kafka needs Java {JAVA_NEEDED}, this is {found[1] if found else 'none'}"
    return None


def jars() -> Path:
    """The folder with Kafka's jars (about 45 files, 43 MB); Maven fills it the first time."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "scrimp" / "kafka-jars"
    folder = cache / VERSION
    if folder.is_dir():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:  # Maven's own folder is not made for several at once
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            _download(cache, folder)
    return folder


def _download(cache: Path, folder: Path) -> None:
    # Filled beside its place and moved there whole: a download that was cut off is never taken for the real thing.
    with tempfile.TemporaryDirectory(dir=cache) as fresh:
        command = ["mvn", "-B", "-q", "-f", str(POM), f"-Dkafka.version={VERSION}", f"-DoutputDirectory={fresh}/jars"]
        done = subprocess.run(
            [*command, "dependency:copy-dependencies"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise NotReady(f"mvn could not fetch Apache Kafka {VERSION}:\n{(done.stdout + done.stderr)[-2000:]}")
        (Path(fresh) / "jars").rename(folder)


def java(jars: Path, logging: Path) -> list[str]:
    """How each of Kafka's programs begins. Classes that another Java has left are passed over in silence."""
    classes = jars / CLASSES
    left = [f"-XX:SharedArchiveFile={classes}", "-Xlog:disable"] if classes.exists() else []
    return ["java", *JVM, *left, f"-Dlog4j2.configurationFile={logging}", "-cp", f"{jars}/*"]


def _leave_classes(jars: Path) -> None:
    with tempfile.TemporaryDirectory(dir=jars) as folder:
        port = free_port()
        name, *arguments = command(jars, Path(folder), port)
        leaving = [name, f"-XX:ArchiveClassesAtExit={folder}/{CLASSES}", *arguments]
        broker = Process(leaving, Path(folder) / "server.log", lambda: coordinates(f"127.0.0.1:{port}"))
        broker.start()
        broker.stop(60)
        (Path(folder) / CLASSES).rename(jars / CLASSES)


def command(jars: Path, data: Path, port: int) -> list[str]:
    """Format `data` as the records' folder of a broker on 127.0.0.1:`port`; the command line that runs it, now and after every stop.

    Raises:
        NotReady: the folder cannot be formatted.
    """
    controller = free_port()
    properties = ONE_NODE | {
        "controller.quorum.voters": f"1@127.0.0.1:{controller}",
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "log.dirs": str(data / "records"),
    }
    config = data / "server.properties"
    config.write_text("".join(f"{name}={value}\n" for name, value in properties.items()))
    logging = data / "log4j2.properties"
    logging.write_text(LOGGING)
    begin = java(jars, logging)

    # The first byte is zero, so that the id never begins with "-", which the tool would read as an option.
    cluster = base64.urlsafe_b64encode(b"\0" + uuid.uuid4().bytes[1:]).decode().rstrip("=")
    tool = [*begin, "-Xmx64m", "kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(config)]
    done = subprocess.run(tool, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotReady(f"Kafka could not format {data}:\n{(done.stdout + done.stderr)[-2000:]}")
    return [*begin, "-Xmx256m", "kafka.Kafka", str(config)]


def prepare() -> str | None:
    """What tests would do or do without: get the jars, and the classes that one broker leaves. Why it could not, or None."""
    if missing := why_not():
        return missing
    try:
        if not (jars() / CLASSES).exists():
            _leave_classes(jars())
    except NotReady as e:
        return str(e)
    return None


if __name__ == "__main__":
    if why := prepare():
        print(f"no Apache Kafka from Maven Central for the tests: {why}")  # noqa: T201  for who installs
