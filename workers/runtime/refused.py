"""What a broker refuses a user, in one line that an administrator can act on: who, which operation, on what.

Such a refusal is waited for, as an outage is, and said: nobody has to restart a process to whom a right is given. `rights.py` has the list.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from aiokafka.errors import ClusterAuthorizationFailedError, GroupAuthorizationFailedError, KafkaError, TopicAuthorizationFailedError

from workers.settings import Kafka

Operation = Literal["Read", "Write", "Create", "Describe", "DescribeConfigs"]


def told(kafka: Kafka, error: BaseException, operation: Operation) -> str:
    """What is wrong: the right that is missing, or the kind of the error."""
    return lacking(kafka, error, operation) or type(error).__name__


def lacking(kafka: Kafka, error: BaseException, operation: Operation) -> str | None:
    """Which right is missing when the broker refused this; None when it is about something else."""
    match error:
        case GroupAuthorizationFailedError():
            return right(kafka, "Read", "group", named(error))
        case TopicAuthorizationFailedError():
            return right(kafka, operation, "topic", named(error))
        case ClusterAuthorizationFailedError():  # of an idempotent producer, for which the right to write to any topic is enough
            return right(kafka, "Write", "topic") + " (brokers before 2.8 want IdempotentWrite on the cluster instead)"
        case KafkaError() if "TopicAuthorizationFailedError" in str(error):  # only in words: of a question about offsets
            return right(kafka, operation, "topic")
    return None


def right(kafka: Kafka, operation: Operation, resource: str, names: Collection[str] = ()) -> str:
    which = f"the {resource} {', '.join(sorted(names))}" if names else f"any {resource} of the fleet"
    return f"{principal(kafka)} lacks the right to {operation} {which}: give it the ACL that `scrimp topics acls` prints"


def principal(kafka: Kafka) -> str:
    """Who we are to the broker."""
    if kafka.security_protocol.startswith("SASL"):
        return f"User:{kafka.sasl_username}"
    return "the user of SCRIMP_KAFKA__SSL_CERT_FILE" if kafka.ssl_cert_file else "User:ANONYMOUS"


def named(error: BaseException) -> Collection[str]:
    """aiokafka gives the name, or several, or none."""
    named = error.args[0] if error.args else ()
    return (named,) if isinstance(named, str) else tuple(named)
