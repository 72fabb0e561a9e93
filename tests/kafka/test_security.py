"""A broker with TLS, users and ACLs: what is set wrong is one line, and the rights that `scrimp topics acls` prints are enough.

The broker is Apache Kafka and belongs to this module. Each stage is a user of its own, and each comes in by another way.
"""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from aiokafka.admin import AIOKafkaAdminClient

from tests.conftest import SERVERS
from tests.kafka.asking import question
from tests.kafka.commands import scrimp
from tests.kafka.conftest import fleet_of
from tests.kafka.fleet import SCRIMP, Fleet, health
from tests.kafka.topics import Topics, eventually, key
from tests.servers import nursery, secure_kafka
from tests.servers.apache_kafka import VERSION
from tests.servers.process import Process, free_port, listens
from tests.servers.required import long, required
from tests.servers.secure_kafka import Acl, Secure, acls, change_password, grant, revoke

MECHANISMS = {
    "classify": "SCRAM-SHA-256",
    "cache": "PLAIN",
    "remember": "SCRAM-SHA-256",
    "compress": "SCRAM-SHA-512",
    "attribute": "SCRAM-SHA-512",
    "classify-bulk": "SCRAM-SHA-512",
    "cache-bulk": "SCRAM-SHA-256",
    "compress-bulk": "SCRAM-SHA-256",
    "call-bulk": "SCRAM-SHA-512",
    "attribute-bulk": "SCRAM-SHA-256",
    "redeliver": "SCRAM-SHA-512",
    "topics": "SCRAM-SHA-512",
    "ask": "PLAIN",
    "dead": "SCRAM-SHA-256",
}
"""Of the roles that are users; `call` has a certificate."""
STAGES = ("classify", "cache", "remember", "compress", "call", "attribute")
BULK = ("classify-bulk", "cache-bulk", "compress-bulk", "call-bulk", "attribute-bulk")
PASSWORDS = {f"scrimp-{role}": f"Geheim-{role}" for role in MECHANISMS}
PRINCIPALS = {role: f"User:scrimp-{role}" for role in MECHANISMS} | {"call": "User:CN=scrimp-call"}
PATIENCE_S = 90
ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.kafka, long("a minute of processes, and a broker of its own")]


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Secure]:
    if why := secure_kafka.why_not():
        if required("kafka"):
            pytest.fail(f"SCRIMP_REQUIRE names kafka: {why}")
        pytest.skip(f"a broker with users cannot be had: {why}")
    nursery.prepare()
    with secure_kafka.running(tmp_path_factory.mktemp("secure"), PASSWORDS, "scrimp-call") as secure:
        pytestconfig.stash[SERVERS].append(f"kafka with users: Apache Kafka {VERSION} from Maven Central at {secure.sasl}")
        yield secure


def way_in(secure: Secure, role: str) -> dict[str, Any]:
    """The settings of a process that has this role."""
    if role == "call":
        return {
            "kafka__bootstrap_servers": secure.ssl,
            "kafka__security_protocol": "SSL",
            "kafka__ssl_ca_file": secure.file("ca"),
            "kafka__ssl_cert_file": secure.file("client"),
        }
    return {
        "kafka__bootstrap_servers": secure.sasl,
        "kafka__security_protocol": "SASL_SSL",
        "kafka__ssl_ca_file": secure.file("ca"),
        "kafka__sasl_mechanism": MECHANISMS[role],
        "kafka__sasl_username": f"scrimp-{role}",
        "kafka__sasl_password": PASSWORDS[f"scrimp-{role}"],
    }


def run(folder: Path, settings: Mapping[str, Any], command: str) -> tuple[int, str]:
    """A command by itself, with these settings alone: how it ends, and all that it says."""
    environment = {f"SCRIMP_{name.upper()}": str(value) for name, value in settings.items() if value is not None}
    log = folder / "said.log"
    process = Process(
        [*SCRIMP, *shlex.split(command)], log, lambda: False, environment={"HOME": str(folder)} | environment, folder=folder, forked=True
    )
    process.launch()
    code = process.ended(PATIENCE_S)
    return code, log.read_text()


# -- what is set wrong ------------------------------------------------------------------------------------------------------

WRONG: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "a wrong password": (
        "classify",
        {"sasl_password": "falsch"},
        "SASL_PASSWORD",
        "does not take user 'scrimp-classify' with this password by SCRAM",
    ),
    "a wrong password, plain": (
        "cache",
        {"sasl_password": "falsch"},
        "SASL_PASSWORD",
        "does not take user 'scrimp-cache' with this password by PLAIN",
    ),
    "an unknown user": ("compress", {"sasl_username": "nobody"}, "SASL_PASSWORD", "SCRIMP_KAFKA__SASL_USERNAME or .* may be the wrong one"),
    "a wrong CA": ("classify", {"ssl_ca_file": "{other}"}, "SSL_CA_FILE", "does not hold against the CAs in .*other.pem"),
    "no CA": ("classify", {"ssl_ca_file": None}, "SSL_CA_FILE", "does not hold against the CAs of this system"),
    "another name": ("classify", {"bootstrap_servers": "{localhost}"}, "BOOTSTRAP_SERVERS", "is for other names"),
    "users, no TLS": (
        "classify",
        {"security_protocol": "SASL_PLAINTEXT", "ssl_ca_file": None},
        "SECURITY_PROTOCOL",
        "speaks TLS, .*: SASL_SSL is",
    ),
    "neither": (
        "call",
        {"security_protocol": "PLAINTEXT", "ssl_ca_file": None, "ssl_cert_file": None},
        "SECURITY_PROTOCOL",
        "speaks TLS, this is PLAINTEXT: SSL is needed",
    ),
    "TLS at a plain port": (
        "classify",
        {"bootstrap_servers": "{plain}"},
        "SECURITY_PROTOCOL",
        "speaks no TLS, .*: SASL_PLAINTEXT is needed",
    ),
    "no user": (
        "classify",
        {"security_protocol": "SSL", "sasl_mechanism": None},
        "SECURITY_PROTOCOL",
        "asks for a user, .*: SASL_SSL is needed, with SCRIMP_KAFKA__SASL_MECHANISM one of .*SCRAM-SHA-512",
    ),
    "a user who is not asked for": (
        "classify",
        {"bootstrap_servers": "{ssl}", "ssl_cert_file": "{client}"},
        "SECURITY_PROTOCOL",
        "asks for no user, .*: SSL is needed",
    ),
    "no certificate": ("call", {"ssl_cert_file": None}, "SSL_CERT_FILE", "asks for the certificate of a client, and none is set"),
    "a stranger's certificate": ("call", {"ssl_cert_file": "{stranger}"}, "SSL_CERT_FILE", "refuses this certificate"),
    "a certificate without its key": ("call", {"ssl_cert_file": "{ca}"}, "SSL_CERT_FILE", "cannot be used: "),
    "a file that is not there": ("call", {"ssl_ca_file": "/nowhere/ca.pem"}, "SSL_CA_FILE", "/nowhere/ca.pem cannot be used: No such file"),
}


def wrong(secure: Secure, case: str) -> dict[str, Any]:
    role, changed, _, _ = WRONG[case]
    places = {name: str(secure.file(name)) for name in ("ca", "other", "client", "stranger")}
    places |= {"plain": secure.plain, "ssl": secure.ssl, "localhost": secure.sasl.replace("127.0.0.1", "localhost")}
    new = {f"kafka__{name}": value.format(**places) if isinstance(value, str) else value for name, value in changed.items()}
    return way_in(secure, role) | {"log_level": "INFO", "http__port": 0} | new


@pytest.mark.parametrize("case", WRONG)
def test_what_is_set_wrong_is_one_line(secure: Secure, tmp_path: Path, case: str) -> None:
    _, _, setting, told = WRONG[case]
    code, said = run(tmp_path, wrong(secure, case), "topics check")
    assert (code, len(said.splitlines())) == (2, 1), said
    assert re.search(rf"^scrimp: SCRIMP_KAFKA__{setting}.*: .*{told}", said), said
    assert not any(secret in said for secret in ("falsch", *PASSWORDS.values()))


@pytest.mark.parametrize("case", ["a wrong password", "a wrong CA", "neither"])
def test_a_stage_ends_with_that_line(secure: Secure, tmp_path: Path, case: str) -> None:
    code, said = run(tmp_path, wrong(secure, case), "run classify")
    assert code == 2, said
    *before, line = said.splitlines()
    assert re.search(rf"^scrimp: SCRIMP_KAFKA__{WRONG[case][2]}: .*{WRONG[case][3]}", line), said
    assert [other for other in before if " INFO " not in other] == []


async def test_doctor_names_it_too(secure: Secure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, said = await asyncio.to_thread(run, tmp_path, wrong(secure, "a wrong password"), "doctor --json")
    assert code == 1
    found = next(f for f in json.loads(said) if f["about"] == "Kafka")
    assert not found["ok"]
    assert found["text"].startswith("SCRIMP_KAFKA__SASL_PASSWORD: ")
    assert found["advice"]


def test_a_broker_that_is_away_is_another_matter(secure: Secure, tmp_path: Path) -> None:
    settings = way_in(secure, "classify") | {"kafka__bootstrap_servers": f"127.0.0.1:{free_port()}"}
    code, said = run(tmp_path, settings, "topics check")
    assert (code, len(said.splitlines())) == (1, 1), said
    assert re.search(r"^scrimp: kafka: 127\.0\.0\.1:\d+: nobody listens there", said), said


# -- rights -----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fleet(secure: Secure, pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Six stages, each with the rights that are printed for it. One partition: whoever comes back must go on where it was refused."""
    folder, port = tmp_path_factory.mktemp("fleet"), free_port()
    qdrant = Process(
        [sys.executable, "-m", "tests.servers.qdrant", str(port)], folder / "qdrant.txt", lambda: listens(f"127.0.0.1:{port}"), folder=ROOT
    )
    with ExitStack() as on_exit:
        on_exit.callback(qdrant.kill)
        qdrant.start()
        server = {"qdrant__url": f"http://127.0.0.1:{port}"}
        fleet = on_exit.enter_context(fleet_of(secure.broker, pytestconfig, folder, (), partitions=1, settings=server))
        given = [acl for role in PRINCIPALS if role not in (*BULK, "redeliver") for acl in asyncio.run(printed(fleet, role))]
        asyncio.run(grant(secure, *given))
        for name in STAGES:
            fleet.launch(name, **way_in(secure, name))
        for name in STAGES:
            fleet.processes[name].until_ready()
        yield fleet


async def printed(fleet: Fleet, role: str) -> list[Acl]:
    return acls((await scrimp(fleet, "topics", "acls", role, "--principal", PRINCIPALS[role])).splitlines())


def as_role(fleet: Fleet, secure: Secure, role: str, command: str) -> tuple[int, str]:
    settings = {name.removeprefix("SCRIMP_").lower(): value for name, value in fleet._environment({}).items() if name.startswith("SCRIMP_")}
    (folder := fleet.folder / f"{role}-{free_port()}").mkdir()
    return run(folder, settings | way_in(secure, role), command)


async def test_a_fleet_with_just_these_rights_answers(fleet: Fleet, secure: Secure, tenant: str) -> None:
    code, said = await asyncio.to_thread(
        as_role, fleet, secure, "ask", f"ask 'Which colour has the parcel {tenant}?' --tenant {tenant} --json"
    )
    assert code == 0, said
    response = json.loads(said[said.index("{") : said.rindex("}") + 1])  # beside it stands the line for people, before or after
    assert (response["status"], response["source"], response["tenant"]) == ("answered", "model", tenant)


async def test_what_is_remembered_with_just_these_rights_is_found(fleet: Fleet, secure: Secure, topics: Topics, tenant: str) -> None:
    """`cache` and `remember` are two users, with a Qdrant server between them."""
    asked = [question(tenant, "first", "What is a lighthouse?", cache={"mode": "auto"})]
    await topics.ask(asked[0])
    assert (await topics.answers(asked))["first"]["source"] == "model"

    async def found() -> bool:
        asked.append(asked[0] | {"request_id": f"again-{len(asked)}"})
        await topics.ask(asked[-1])
        answer = (await topics.answers(asked))[asked[-1]["request_id"]]
        return bool(answer["source"] == "cache_exact")

    await eventually(found, lambda: fleet.logs()["remember.log"], PATIENCE_S)


async def test_who_makes_the_topics_needs_no_more_either(fleet: Fleet, secure: Secure) -> None:
    name = fleet.prefix + "dead.replayed"
    admin = AIOKafkaAdminClient(bootstrap_servers=secure.plain)
    await admin.start()
    try:
        await admin.delete_topics([name])
    finally:
        await admin.close()
    for command, told in (
        ("topics apply", f"created {name}"),
        ("topics check", "every topic is as it should be"),
        ("dead list", "0  in all"),
    ):
        code, said = await asyncio.to_thread(as_role, fleet, secure, command.split()[0], command)
        assert (code, told in said) == (0, True), said


@pytest.mark.parametrize(
    ("command", "without"),
    [
        ("topics check", ("DescribeConfigs",)),
        ("topics check", ("Describe",)),
        ("topics apply", ("Create", "Describe")),  # what it sees it would not make
    ],
    ids=lambda given: given if isinstance(given, str) else "-".join(given),
)
async def test_a_command_says_which_right_it_lacks(fleet: Fleet, secure: Secure, command: str, without: tuple[str, ...]) -> None:
    name = fleet.prefix + "alerts"
    lost = [acl for acl in await printed(fleet, "topics") if acl[3] == name and acl[1] in without]
    assert len(lost) == len(without)
    await revoke(secure, *lost)
    try:
        code, said = await asyncio.to_thread(as_role, fleet, secure, "topics", command)
    finally:
        await grant(secure, *lost)
    assert (code, len(said.splitlines())) == (1, 1), said
    assert name in said
    assert re.search(rf"User:scrimp-topics lacks the right to {without[0]} (it|the topic {re.escape(name)})", said), said


def says(fleet: Fleet, name: str, told: str) -> bool:
    """On its health page, in the log, and nothing with a traceback."""
    log = (fleet.folder / f"{name}.log").read_text()
    return told in log and told in str(health(fleet.ports[name])[1]) and "Traceback" not in log


def right_missing(fleet: Fleet, name: str) -> dict[str, float]:
    """What the metrics of a process say of each of its consumers."""
    with urlopen(f"http://127.0.0.1:{fleet.ports[name]}/metrics", timeout=10) as page:
        told = re.findall(r"^scrimp_right_missing\{.*stage=\"(\w+)\"\} (\S+)$", page.read().decode(), re.M)
    return {consumer: float(value) for consumer, value in told}


async def test_a_right_that_is_taken_is_named_and_waited_for(fleet: Fleet, secure: Secure, topics: Topics, tenant: str) -> None:
    p = fleet.prefix
    taken: dict[str, Acl] = {
        "classify": (PRINCIPALS["classify"], "Write", "topic", f"{p}classified"),
        "cache": (PRINCIPALS["cache"], "Read", "topic", f"{p}classified"),
        "compress": (PRINCIPALS["compress"], "Read", "group", f"{p}compress"),
        "call": (PRINCIPALS["call"], "Write", "topic", f"{p}finished"),
    }
    lines = {
        name: f"{'the user of SCRIMP_KAFKA__SSL_CERT_FILE' if name == 'call' else who} lacks the right to {operation} the {kind} {which}"
        for name, (who, operation, kind, which) in taken.items()
    }
    for name, acl in taken.items():
        assert acl in await printed(fleet, name)
    await topics.ask(question(tenant, "before"))
    await topics.answers([question(tenant, "before")])
    dead = len(topics.seen("dead"))

    await revoke(secure, *taken.values())
    await topics.ask(question(tenant, "after"))
    for name, line in lines.items():  # in the order in which the request meets them

        async def said(name: str = name, line: str = line) -> bool:
            return says(fleet, name, line)

        await eventually(said, lambda name=name, line=line: f"{name} does not say: {line}\n{fleet.logs()[f'{name}.log']}", PATIENCE_S)
        if taken[name][1] == "Read":  # a right to write is missed by the work, which parks
            assert right_missing(fleet, name)[name] == 1
        await grant(secure, taken[name])
    answers = await topics.answers([question(tenant, "after")])
    assert answers["after"]["status"] == "answered"
    assert len(topics.responses(key(question(tenant, "after")))) == 1
    assert len(topics.seen("dead")) == dead, "nothing dies of a right that is missing"
    assert all(fleet.running(name) for name in STAGES)

    async def ready() -> bool:
        return all(health(fleet.ports[name])[0] == 200 for name in STAGES)

    await eventually(ready, lambda: str({name: health(fleet.ports[name])[1]["wrong"] for name in STAGES}), PATIENCE_S)
    assert [sum(right_missing(fleet, name).values()) for name in STAGES] == [0] * len(STAGES)


async def test_a_start_without_rights_waits_for_them(fleet: Fleet, secure: Secure) -> None:
    name = "compress-bulk"
    fleet.launch(name, lane="bulk", **way_in(secure, name))
    given = {
        kind: [acl for acl in await printed(fleet, name) if acl[1:3] == kind]
        for kind in (("Write", "topic"), ("Read", "topic"), ("Read", "group"))
    }
    for (operation, kind), its in given.items():
        # Of what is written, no topic in particular: it is the producer that is refused.
        which = f"any {kind} of the fleet" if operation == "Write" else f"the {kind} {its[0][3]}"
        line = f"User:scrimp-{name} lacks the right to {operation} {which}"

        async def said(line: str = line) -> bool:
            return says(fleet, name, line)

        await eventually(said, lambda line=line: f"{line}\n{fleet.logs()[f'{name}.log']}", PATIENCE_S)
        await grant(secure, *its)
    fleet.processes[name].until_ready()


async def test_the_bulk_lane_with_just_these_rights_answers_after_a_delay(
    fleet: Fleet, secure: Secure, topics: Topics, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call that is to wait goes to a delay topic and comes back by `redeliver`, which is a user of its own. Here `cache` remembers."""
    monkeypatch.setattr(fleet, "settings", {})
    new = [name for name in (*BULK, "redeliver") if not fleet.running(name)]
    await grant(secure, *[acl for name in new for acl in await printed(fleet, name)])
    for name in new:
        fleet.launch(name, lane="interactive" if name == "redeliver" else "bulk", **way_in(secure, name))
    for name in new:
        await asyncio.to_thread(fleet.processes[name].until_ready)
    dead = len(topics.seen("dead"))
    slow = question(
        tenant, "slow", f"Which colour has the slow parcel of {tenant}? [[fault:rate_limit retry_after=12 times=1]]", tier="light"
    )
    await topics.ask(slow, topic="requests.bulk")
    answer = (await topics.answers([slow]))["slow"]
    assert (answer["status"], answer["lane"], answer["attempts"]) == ("answered", "bulk", 2)
    assert len(topics.seen("retry.10s")) == 1
    assert len(topics.seen("dead")) == dead
    assert [name for name in new if "lacks the right" in (fleet.folder / f"{name}.log").read_text()] == []
    for name in new:
        assert await asyncio.to_thread(fleet.stop, name) == 0


async def test_who_is_not_let_in_again_says_so_and_waits(fleet: Fleet, secure: Secure) -> None:
    """A password is changed at the broker while the fleet runs; so this test is the last one."""
    line = f"SCRIMP_KAFKA__SASL_PASSWORD: {secure.sasl} does not take user 'scrimp-cache'"
    await asyncio.to_thread(change_password, secure, "scrimp-cache", "neu")

    async def said() -> bool:
        return line in str(health(fleet.ports["cache"])[1]["wrong"])

    await eventually(said, lambda: f"{health(fleet.ports['cache'])[1]}\n{fleet.logs()['cache.log']}", PATIENCE_S)

    async def others_ready() -> bool:
        return all(health(fleet.ports[name])[0] == 200 for name in STAGES if name != "cache")

    await eventually(others_ready, lambda: str({name: health(fleet.ports[name])[1] for name in STAGES}), PATIENCE_S)
    assert fleet.running("cache")
