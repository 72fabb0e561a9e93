"""Apache Kafka that lets in only whom it knows: TLS, users with SCRAM and PLAIN, client certificates, and ACLs that are enforced.

The jars and Java are those of `apache_kafka.py`; the certificates are made by the `openssl` command (3 or newer), for 127.0.0.1 alone.
`why_not()` names what is missing. Three ports:

    sasl     TLS, and a user with SCRAM-SHA-256, SCRAM-SHA-512 or PLAIN
    ssl      TLS, and a client's certificate
    plain    neither; who comes here may do everything (the tests themselves, and the broker)

Users of SCRAM are made when the folder is formatted. Whatever a user may do, it was given by `grant`.
"""

from __future__ import annotations

import base64
import itertools
import re
import shlex
import shutil
import subprocess
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.admin import CreateAclsRequest, DeleteAclsRequest

from tests.servers import apache_kafka
from tests.servers.apache_kafka import LOGGING, ONE_NODE
from tests.servers.kafka import Broker
from tests.servers.kafka_ready import coordinates
from tests.servers.process import NotReady, Process, free_port

SCRAM = ("SCRAM-SHA-256", "SCRAM-SHA-512")
RESOURCES = {"topic": 2, "group": 3}
OPERATIONS = {"Read": 3, "Write": 4, "Create": 5, "Describe": 8, "DescribeConfigs": 10}
LITERAL, ALLOW = 3, 3
"""Kafka's numbers for these."""

Acl = tuple[str, str, str, str]
"""Principal, operation, kind of resource, its name."""


@dataclass(frozen=True)
class Secure:
    sasl: str
    ssl: str
    broker: Broker
    """At the plain port."""
    folder: Path

    @property
    def plain(self) -> str:
        return self.broker.bootstrap

    def file(self, name: str) -> Path:
        """`ca`, `server`, `client` or one of the wrong: `other` (a CA), `stranger` (a client of that CA). Each with its key, in PEM."""
        return self.folder / f"{name}.pem"


def why_not() -> str | None:
    """What this machine lacks for it; None when nothing."""
    if shutil.which("openssl") is None:
        return "no openssl"
    told = subprocess.run(["openssl", "version"], capture_output=True, text=True, check=False).stdout
    if not told.startswith("OpenSSL ") or int(told.split()[1].partition(".")[0]) < 3:
        return f"the certificates need OpenSSL 3, this is {told.strip()}"
    return apache_kafka.why_not()


@contextmanager
def running(folder: Path, passwords: Mapping[str, str], client: str) -> Iterator[Secure]:
    """`folder` is empty; `passwords` are those of the users, by name; `client` is the common name in the client's certificate."""
    _certificates(folder, client)
    ports = {name: f"127.0.0.1:{free_port()}" for name in ("SASL", "TLS", "PLAIN", "CONTROLLER")}
    process = Process(_command(folder, ports, passwords), folder / "server.log", lambda: coordinates(ports["PLAIN"]))
    process.start()
    try:
        yield Secure(ports["SASL"], ports["TLS"], Broker(ports["PLAIN"], "apache", process), folder)
    finally:
        process.stop()


def _command(folder: Path, ports: Mapping[str, str], passwords: Mapping[str, str]) -> list[str]:
    module = "org.apache.kafka.common.security"
    users = " ".join(f'user_{name}="{password}"' for name, password in passwords.items())
    tls = {
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": f"{folder}/server.pem",
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": f"{folder}/ca.pem",
    }
    properties = ONE_NODE | {
        "listeners": ",".join(f"{name}://{address}" for name, address in ports.items()),
        "advertised.listeners": ",".join(f"{name}://{address}" for name, address in ports.items() if name != "CONTROLLER"),
        "listener.security.protocol.map": "SASL:SASL_SSL,TLS:SSL,PLAIN:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "PLAIN",
        "controller.quorum.voters": f"1@{ports['CONTROLLER']}",
        "log.dirs": f"{folder}/records",
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
        **{f"listener.name.{name}.{key}": value for name in ("sasl", "tls") for key, value in tls.items()},
        "listener.name.tls.ssl.client.auth": "required",
        "listener.name.sasl.sasl.enabled.mechanisms": ",".join(("PLAIN", *SCRAM)),
        "listener.name.sasl.plain.sasl.jaas.config": f"{module}.plain.PlainLoginModule required {users};",
        **{f"listener.name.sasl.{name.lower()}.sasl.jaas.config": f"{module}.scram.ScramLoginModule required;" for name in SCRAM},
    }
    config, logging = folder / "server.properties", folder / "log4j2.properties"
    config.write_text("".join(f"{name}={value}\n" for name, value in properties.items()))
    logging.write_text(LOGGING)
    java = apache_kafka.java(apache_kafka.jars(), logging)
    cluster = base64.urlsafe_b64encode(b"\0" + uuid.uuid4().bytes[1:]).decode().rstrip("=")
    scram = [
        part
        for mechanism in SCRAM
        for name, password in passwords.items()
        for part in ("--add-scram", f"{mechanism}=[name={name},password={password}]")
    ]
    tool = [*java, "-Xmx64m", "kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(config), *scram]
    done = subprocess.run(tool, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotReady(f"Kafka could not format {folder}:\n{(done.stdout + done.stderr)[-2000:]}")
    return [*java, "-Xmx256m", "kafka.Kafka", str(config)]


def change_password(secure: Secure, user: str, password: str) -> None:
    """Of one who comes in with PLAIN; the broker is restarted for it, and everybody has to come in again."""
    config = secure.folder / "server.properties"
    config.write_text(re.sub(f'user_{user}="[^"]*"', f'user_{user}="{password}"', config.read_text()))
    secure.broker.restart()


def _certificates(folder: Path, client: str) -> None:
    """Each file holds a certificate and its key. The CAs' keys are of no use to anybody after this."""
    authority = ("basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign")
    _certificate(folder, "ca", "scrimp tests", None, *authority)
    _certificate(folder, "other", "somebody else", None, *authority)
    _certificate(folder, "server", "broker", "ca", "subjectAltName=IP:127.0.0.1", "extendedKeyUsage=serverAuth")
    _certificate(folder, "client", client, "ca", "extendedKeyUsage=clientAuth")
    _certificate(folder, "stranger", client, "other", "extendedKeyUsage=clientAuth")


def _certificate(folder: Path, name: str, subject: str, signer: str | None, *extensions: str) -> None:
    made, key = folder / f"{name}.crt", folder / f"{name}.key"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc", "-days", "2"]
    command += ["-subj", f"/CN={subject}", "-keyout", str(key), "-out", str(made)]
    command += [part for extension in extensions for part in ("-addext", extension)]
    if signer:
        command += ["-CA", str(folder / f"{signer}.crt"), "-CAkey", str(folder / f"{signer}.key"), "-addext", "basicConstraints=CA:FALSE"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotReady(f"openssl made no certificate:\n{done.stderr[-2000:]}")
    ours = made.read_text()
    (folder / f"{name}.pem").write_text(ours + key.read_text() if signer else ours)


def acls(commands: Iterable[str]) -> list[Acl]:
    """What these commands of `kafka-acls.sh` would add, as its options say."""
    found: list[Acl] = []
    for command in commands:
        words = shlex.split(command)
        given = list(itertools.pairwise(words))
        (principal,) = [value for option, value in given if option == "--allow-principal"]
        operations = [value for option, value in given if option == "--operation"]
        resources = [(option[2:], value) for option, value in given if option in ("--topic", "--group")]
        found += [(principal, operation, kind, name) for operation in operations for kind, name in resources]
    return found


async def grant(secure: Secure, *wanted: Acl) -> None:
    await _each(secure, CreateAclsRequest, wanted)


async def revoke(secure: Secure, *wanted: Acl) -> None:
    await _each(secure, DeleteAclsRequest, wanted)


async def _each(secure: Secure, request: type, wanted: Iterable[Acl]) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=secure.plain)
    await admin.start()
    try:
        for principal, operation, kind, name in wanted:
            asked = request(RESOURCES[kind], name, LITERAL, principal, "*", OPERATIONS[operation], ALLOW)
            answer = await admin._send_to_controller(asked)
            (done,) = answer.creation_responses if request is CreateAclsRequest else answer.filter_responses
            assert done[0] == 0, done[1]
            assert request is CreateAclsRequest or len(done[2]) == 1, f"there was no {(principal, operation, kind, name)}"
    finally:
        await admin.close()
