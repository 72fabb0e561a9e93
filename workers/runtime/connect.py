"""How this process reaches Kafka: one place that turns the settings into what aiokafka and FastStream take.

A file that cannot be read or a certificate that does not parse raises `SettingsError` with the variable's name.

Importing it also mends aiokafka's connections on uvloop: see `_as_lost`.
"""

from __future__ import annotations

import functools
import ssl
from collections.abc import Callable
from typing import Any

from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.errors import KafkaConnectionError
from faststream.security import BaseSecurity, SASLPlaintext, SASLScram256, SASLScram512

from workers.settings import Kafka, SettingsError


def _as_lost(send: Callable[..., Any]) -> Callable[..., Any]:
    """aiokafka takes an `OSError` of a write for a lost connection. Where a transport was reset and the client has not noticed, uvloop
    raises `RuntimeError` instead, and that ends whichever task of the client meets it. The one that refreshes metadata ends without a
    word: a consumer that loses its coordinator then waits for metadata for ever, and neither heartbeats nor commits again."""

    @functools.wraps(send)
    def sending(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return send(self, *args, **kwargs)
        except NotImplementedError:  # a RuntimeError, too: the broker is too old for this request
            raise
        except RuntimeError as e:
            self.close(reason=CloseReason.CONNECTION_BROKEN, exc=e)
            raise KafkaConnectionError(f"Connection at {self.host}:{self.port} broken: {e}") from e

    return sending


AIOKafkaConnection.send = _as_lost(AIOKafkaConnection.send)
AIOKafkaConnection._send_sasl_token = _as_lost(AIOKafkaConnection._send_sasl_token)


def ssl_context(kafka: Kafka) -> ssl.SSLContext | None:
    if kafka.security_protocol not in ("SSL", "SASL_SSL"):
        return None
    try:
        context = ssl.create_default_context(cafile=str(kafka.ssl_ca_file) if kafka.ssl_ca_file else None)
        if kafka.ssl_cert_file:
            context.load_cert_chain(kafka.ssl_cert_file, kafka.ssl_key_file)
    except (OSError, ssl.SSLError) as e:
        raise SettingsError(f"SCRIMP_KAFKA__SSL_CA_FILE, __SSL_CERT_FILE or __SSL_KEY_FILE cannot be used: {e}") from e
    return context


def client_options(kafka: Kafka) -> dict[str, Any]:
    """Keyword arguments that every aiokafka client of ours shares."""
    options: dict[str, Any] = {
        "bootstrap_servers": kafka.bootstrap_servers,
        "security_protocol": kafka.security_protocol,
        "ssl_context": ssl_context(kafka),
        "request_timeout_ms": kafka.request_timeout_ms,
    }
    if kafka.sasl_mechanism:
        options |= {
            "sasl_mechanism": kafka.sasl_mechanism,
            "sasl_plain_username": kafka.sasl_username,
            "sasl_plain_password": kafka.sasl_password.get_secret_value(),
        }
    return options


def security(kafka: Kafka) -> BaseSecurity | None:
    """The same, as FastStream wants it."""
    context = ssl_context(kafka)
    user, password, tls = kafka.sasl_username, kafka.sasl_password.get_secret_value(), context is not None
    match kafka.sasl_mechanism:
        case "PLAIN":
            return SASLPlaintext(username=user, password=password, use_ssl=tls, ssl_context=context)
        case "SCRAM-SHA-256":
            return SASLScram256(username=user, password=password, use_ssl=tls, ssl_context=context)
        case "SCRAM-SHA-512":
            return SASLScram512(username=user, password=password, use_ssl=tls, ssl_context=context)
    return BaseSecurity(ssl_context=context, use_ssl=True) if context else None
