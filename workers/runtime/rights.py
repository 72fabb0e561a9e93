"""Who needs which rights on a broker that asks for them: taken from the map of the fleet, so that the list cannot be older than the code.

`roles` is the whole list, `commands` writes it for `kafka-acls.sh`. What happens to a process that lacks one: `refused.py`.

The idempotent producer needs no right of its own: since Kafka 2.8 whoever may write to a topic may have one. Transactions are not used.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from schemas.types import LANES, Lane
from workers import topics as t
from workers.pipeline import STAGES, Stage
from workers.policy import Policy
from workers.runtime.provision import wanted
from workers.runtime.refused import Operation
from workers.settings import Kafka
from workers.topics import Topic

ROLE = "{role}"
"""Stands for the role's name in a principal."""


@dataclass(frozen=True, slots=True, order=True)
class Right:
    operation: Operation
    resource: Literal["topic", "group"]
    name: str
    """In full, as it stands on the broker. Reading and writing a topic imply describing it."""


def writes(stage: Stage, lane: Lane) -> list[str]:
    """The topics that a stage may write to, without their prefix."""
    if set(stage.reads) == set(t.DELAYS):  # it puts back what waited, wherever that came from
        back = [topic.on(to) for s in STAGES.values() for topic in s.reads if topic not in t.DELAYS for to in LANES]
        return sorted({*back, t.DEAD.name})
    found: list[Topic] = [*stage.writes, t.DEAD]
    if stage.ends_requests and t.RESPONSES not in stage.writes:  # which has the response instead
        found.append(t.FINISHED)
    if lane == "bulk":
        found += t.DELAYS
    return sorted({topic.on(lane) for topic in found})


def of_stage(stage: Stage, lane: Lane, kafka: Kafka, policy: Policy | None = None) -> list[Right]:
    """What a process needs that runs this stage in this lane."""
    theirs = [
        name for name, topic in wanted(kafka, policy).items() if topic is t.RESPONSES and name != kafka.topic_prefix + t.RESPONSES.name
    ]
    answers = t.RESPONSES in stage.writes
    return sorted(
        {
            *(Right("Read", "topic", kafka.topic_prefix + topic.on(lane)) for topic in stage.reads),
            *(Right("Read", "group", stage.group(kafka.group_prefix, lane, consumer)) for consumer in stage.consumers),
            *(Right("Write", "topic", kafka.topic_prefix + name) for name in writes(stage, lane)),
            # No process starts on a policy that names a topic which is not there, or which it cannot see.
            *(Right("Write" if answers else "Describe", "topic", name) for name in theirs),
        }
    )


def roles(kafka: Kafka, policy: Policy | None = None, *, cache_remembers: bool = False) -> dict[str, list[Right]]:
    """Every role and its rights: a stage in a lane (`call`, `call-bulk`), who makes topics, who keeps the dead letters, who asks.

    Args:
        cache_remembers: the cache is inside the process of `cache`, which then remembers, too.
    """
    every = wanted(kafka, policy)
    found = {
        stage.name + ("-bulk" if lane == "bulk" else ""): of_stage(stage, lane, kafka, policy)
        for stage in STAGES.values()
        for lane in (LANES if stage.lanes else LANES[:1])
    }
    if cache_remembers:
        found |= {
            role: sorted({*its, *found[role.replace("cache", "remember")]}) for role, its in found.items() if role.startswith("cache")
        }
    found["topics"] = [Right(operation, "topic", name) for operation in ("Create", "Describe", "DescribeConfigs") for name in sorted(every)]
    letters = [kafka.topic_prefix + topic.name for topic in (t.DEAD, t.REPLAYED)]
    again = {kafka.topic_prefix + topic.on(lane) for stage in STAGES.values() for topic in stage.reads for lane in LANES}
    found["dead"] = sorted(
        {*(Right("Read", "topic", name) for name in letters), *(Right("Write", "topic", name) for name in [*again, letters[1]])}
    )
    asks = [kafka.topic_prefix + t.REQUESTS.on(lane) for lane in LANES]
    answers = [name for name, topic in every.items() if topic is t.RESPONSES]
    found["ask"] = sorted({*(Right("Write", "topic", n) for n in asks), *(Right("Read", "topic", n) for n in answers)})
    return found


def by_principal(rights: Mapping[str, Sequence[Right]], principal: str) -> dict[str, list[Right]]:
    """The rights of each user. A `principal` without `{role}` is one user for all of them."""
    found: dict[str, set[Right]] = {}
    for role, its in rights.items():
        found.setdefault(principal.replace(ROLE, role), set()).update(its)
    return {name: sorted(its) for name, its in found.items()}


def commands(rights: Mapping[str, Sequence[Right]], bootstrap: str) -> Iterator[str]:
    """For a shell: `kafka-acls.sh` adds what each principal needs, one line an operation."""
    for principal, its in rights.items():
        for operation in dict.fromkeys(right.operation for right in its):
            resources = [part for right in its if right.operation == operation for part in (f"--{right.resource}", right.name)]
            asked = ("kafka-acls.sh", "--bootstrap-server", bootstrap, "--command-config", "admin.properties", "--add")
            yield shlex.join([*asked, "--allow-principal", principal, "--operation", operation, *resources])
