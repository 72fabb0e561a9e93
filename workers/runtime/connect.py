"""How this process reaches Kafka: one place that turns the settings into what aiokafka and FastStream take.

A file that cannot be read or a certificate that does not parse raises `SettingsError` with the variable's name.

Importing it also mends aiokafka's connections on uvloop: see `_as_lost`.
"""

from __future__ import annotations

import functools
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.errors import KafkaConnectionError
from faststream.security import BaseSecurity, SASLPlaintext, SASLScram256, SASLScram512

from workers.settings import Kafka, SettingsError

T = TypeVar("T")


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


def _usable(setting: str, path: Path | None, read: Callable[[], T]) -> T:
    try:
        return read()
    except (OSError, ValueError) as e:
        match e:
            case ssl.SSLError():  # it is an OSError, and its words are OpenSSL's
                why = (e.reason or str(e)).replace("_", " ").lower()
            case OSError():
                why = e.strerror or str(e)
            case _:
                why = str(e)
        raise SettingsError(f"SCRIMP_KAFKA__{setting}: {path} cannot be used: {why}") from e


def _no_pass_phrase() -> str:
    """OpenSSL would ask for one at the terminal."""
    raise ValueError("the key is encrypted; it must stand there without a pass phrase")


def ssl_context(kafka: Kafka) -> ssl.SSLContext | None:
    if kafka.security_protocol not in ("SSL", "SASL_SSL"):
        return None
    context = _usable("SSL_CA_FILE", kafka.ssl_ca_file, lambda: ssl.create_default_context(cafile=kafka.ssl_ca_file))
    if certificate := kafka.ssl_cert_file:
        both = "SSL_CERT_FILE or SSL_KEY_FILE" if kafka.ssl_key_file else "SSL_CERT_FILE"
        _usable(both, certificate, lambda: context.load_cert_chain(certificate, kafka.ssl_key_file, _no_pass_phrase))
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
