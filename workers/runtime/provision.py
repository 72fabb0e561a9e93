"""Topics: made explicitly, never by accident. `apply` creates what is missing; `check` says what differs and changes nothing.

A broker that cannot be reached raises `Unavailable("kafka")`, one that never lets us in like this `SettingsError`; a topic it refuses to
create raises `ProvisionError` with its reason.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, TopicAuthorizationFailedError, for_code

from workers.outcomes import Unavailable
from workers.policy import Policy, PolicyError, Tenant
from workers.runtime import refused
from workers.runtime.connect import client_options
from workers.runtime.knock import knock
from workers.settings import Kafka
from workers.topics import RESPONSES, Topic, full_names


class ProvisionError(RuntimeError):
    """A topic could not be made as it should be."""


def wanted(kafka: Kafka, policy: Policy | None = None) -> dict[str, Topic]:
    """Every topic of the fleet by its full name; with a policy, also the response topics that it gives to tenants."""
    tenants = policy.tenants.values() if policy else ()
    return full_names(kafka.topic_prefix) | {t.responses_topic: RESPONSES for t in tenants if isinstance(t, Tenant) and t.responses_topic}


def check_tenants(policy: Policy, kafka: Kafka, there: Collection[str]) -> None:
    """Every response topic that the policy gives to a tenant is there, and none is a topic that the fleet reads.

    Raises:
        PolicyError: it is not. Its responses would have nowhere to go, or would come back as requests.
    """
    fleets = {name for name, topic in full_names(kafka.topic_prefix).items() if topic is not RESPONSES}
    for name, tenant in policy.tenants.items():
        topic = tenant.responses_topic if isinstance(tenant, Tenant) else None
        if topic in fleets:
            raise PolicyError(f"tenants.{name}.responses_topic: {topic} is a topic of the fleet's own")
        if topic and topic not in there:
            raise PolicyError(f"tenants.{name}.responses_topic: there is no topic {topic}; run `scrimp topics apply`, or mend the name")


def config(topic: Topic) -> dict[str, str]:
    return {
        "cleanup.policy": topic.cleanup,
        "retention.ms": str(int(topic.retention.total_seconds() * 1000)),
        "max.message.bytes": str(topic.max_bytes),
    }


@asynccontextmanager
async def _admin(kafka: Kafka) -> AsyncIterator[AIOKafkaAdminClient]:
    await knock(kafka)
    admin = AIOKafkaAdminClient(**client_options(kafka))
    try:
        await admin.start()
        yield admin
    except (KafkaError, TimeoutError) as e:
        raise Unavailable("kafka", f"{kafka.bootstrap_servers}: {type(e).__name__}: {e}") from e
    finally:
        await admin.close()


async def apply(kafka: Kafka, policy: Policy | None = None) -> list[str]:
    """Create the topics that are missing; returns their names. What exists is left as it is: `check` tells the differences."""
    async with _admin(kafka) as admin:
        there = set(await admin.list_topics())
        missing = {name: topic for name, topic in wanted(kafka, policy).items() if name not in there}
        if not missing:
            return []
        made = await admin.create_topics(
            [NewTopic(name, kafka.partitions, kafka.replication_factor, topic_configs=config(topic)) for name, topic in missing.items()]
        )
        for name, code, *message in made.topic_errors:
            error = for_code(code)
            if error is TopicAuthorizationFailedError:
                raise ProvisionError(refused.right(kafka, "Create", "topic", [name]))
            if code and error is not TopicAlreadyExistsError:
                raise ProvisionError(f"{name}: {error.__name__}: {' '.join(str(m) for m in message if m)}")
        return sorted(missing)


async def check(kafka: Kafka, policy: Policy | None = None) -> list[str]:
    """One line a difference between what is on the broker and what should be; empty when all is well."""
    async with _admin(kafka) as admin:
        there = {t["topic"]: t for t in await admin.describe_topics() if not t["error_code"]}
        # Who may not describe a topic does not see it.
        advice = "run `scrimp topics apply`"
        if kafka.security_protocol != "PLAINTEXT":
            advice += f", unless {refused.principal(kafka)} lacks the right to Describe it"
        differences = [f"{name}: missing; {advice}" for name in wanted(kafka, policy) if name not in there]
        present = {name: topic for name, topic in wanted(kafka, policy).items() if name in there}
        for name in present:
            partitions = len(there[name]["partitions"])
            if partitions < kafka.partitions:
                differences.append(f"{name}: {partitions} partitions, {kafka.partitions} wanted (SCRIMP_KAFKA__PARTITIONS)")
        for name, topic in present.items():
            found = await _config(admin, name)
            if found is None:
                differences.append(refused.right(kafka, "DescribeConfigs", "topic", [name]))
                continue
            differences += [
                f"{name}: {key} is {found[key]}, {value} wanted" for key, value in config(topic).items() if found.get(key, value) != value
            ]
        return differences


async def _config(admin: AIOKafkaAdminClient, name: str) -> dict[str, str] | None:
    """None where we may not look."""
    answers = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name)])
    resources = [resource for answer in answers for resource in answer.resources]
    if any(resource[0] == TopicAuthorizationFailedError.errno for resource in resources):
        return None
    return {entry[0]: entry[1] for resource in resources for entry in resource[4]}
