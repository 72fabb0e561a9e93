"""Does a broker let us in? Asked once, before a client is made and after one has failed, because no client says why it is not let in:
to aiokafka a wrong password, a wrong CA and a broker that is away are all "unable to bootstrap".

`knock` takes the steps that a client takes (name, TCP, TLS, user, a first question) at one broker after the other. What no waiting mends
raises `SettingsError` with the variable and what would be right; a broker that is away raises `Unavailable("kafka")`. No text holds a
password. Where the broker just closes the connection, a second look tells what it speaks; no user is ever told to a port that was not
asked for one.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from aiokafka.conn import AIOKafkaConnection, create_conn
from aiokafka.errors import IllegalSaslStateError, KafkaError, SaslAuthenticationFailed, UnsupportedSaslMechanismError
from aiokafka.protocol.admin import SaslHandShakeRequest
from aiokafka.protocol.metadata import MetadataRequest

from workers.outcomes import Unavailable
from workers.runtime.connect import client_options, ssl_context
from workers.settings import Kafka, SettingsError

LOOK_S = 3.0
"""For each look at what a port speaks."""
K = "SCRIMP_KAFKA__"
HOSTNAME_MISMATCH = (62, 64)
"""What OpenSSL calls a certificate for another name, or for another address."""


async def knock(kafka: Kafka) -> None:
    """Return when one of the brokers lets us in.

    Raises:
        SettingsError: none does, and one says why.
        Unavailable: none answers.
    """
    options = client_options(kafka)
    del options["bootstrap_servers"]
    away: list[str] = []
    wrong: SettingsError | None = None
    for host, port in _brokers(kafka):
        try:
            await _enter(host, port, options)
        except (OSError, KafkaError, TimeoutError, EOFError) as e:
            try:
                away.append(f"{host}:{port}: {await _why(kafka, host, port, e)}")
            except SettingsError as told:
                wrong = wrong or told
        else:
            return
    if wrong is not None:
        raise wrong
    raise Unavailable("kafka", "; ".join(away))


def _brokers(kafka: Kafka) -> Iterator[tuple[str, int]]:
    for broker in kafka.bootstrap_servers.split(","):
        host, _, port = broker.rpartition(":")
        yield host.strip("[]"), int(port)


async def _enter(host: str, port: int, options: dict[str, Any]) -> None:
    """All steps of a client. The question is one that a broker answers only to whom it has let in."""
    connection = await create_conn(host, port, **options)
    try:
        await connection.send(MetadataRequest([]))
    finally:
        await _close(connection)


async def _why(kafka: Kafka, host: str, port: int, error: BaseException) -> str:
    """What is away, in words.

    Raises:
        SettingsError: it is not away: something is set wrong.
    """
    where, tls, user = f"{host}:{port}", kafka.security_protocol.endswith("SSL"), kafka.security_protocol.startswith("SASL")
    match error:
        case socket.gaierror():
            return f"no such host ({K}BOOTSTRAP_SERVERS)"
        case ConnectionRefusedError():
            return f"nobody listens there ({K}BOOTSTRAP_SERVERS)"
        case TimeoutError():
            return "no answer"
        case ssl.SSLCertVerificationError():
            raise _untrusted(kafka, where, error)
        case SaslAuthenticationFailed():
            told = f"{where} does not take user {kafka.sasl_username!r} with this password by {kafka.sasl_mechanism}"
            raise SettingsError(f"{K}SASL_PASSWORD: {told}; {K}SASL_USERNAME or {K}SASL_MECHANISM may be the wrong one, too")
        case UnsupportedSaslMechanismError() | IllegalSaslStateError():
            _check_mechanism(kafka, where, await _mechanisms(kafka, host, port))
    protocol, ours = f"{K}SECURITY_PROTOCOL", f"this is {kafka.security_protocol}"
    if not tls and await _speaks_tls(host, port):
        raise SettingsError(f"{protocol}: {where} speaks TLS, {ours}: {_with(user, tls=True)} is needed")
    if not user and (mechanisms := await _mechanisms(kafka, host, port)):
        which = f"{_with(True, tls=tls)} is needed, with {K}SASL_MECHANISM one of {', '.join(mechanisms)}"
        raise SettingsError(f"{protocol}: {where} asks for a user, {ours}: {which}")
    if tls and await _speaks_plain(host, port):
        raise SettingsError(f"{protocol}: {where} speaks no TLS, {ours}: {_with(user, tls=False)} is needed")
    if tls and (alert := await _alert(kafka, host, port)):
        told = f"{where} asks for the certificate of a client, and none is set"
        if kafka.ssl_cert_file:
            told = f"{where} refuses this certificate ({alert}): it must be signed by a CA that the broker trusts"
        raise SettingsError(f"{K}SSL_CERT_FILE: {told}")
    return "it closes the connection" if isinstance(error, KafkaError | EOFError | ConnectionError) else type(error).__name__


def _with(user: bool, *, tls: bool) -> str:
    return ("SASL_" if user else "") + ("SSL" if tls else "PLAINTEXT")


def _untrusted(kafka: Kafka, where: str, error: ssl.SSLCertVerificationError) -> SettingsError:
    why = error.verify_message.rstrip(".")
    if error.verify_code in HOSTNAME_MISMATCH:
        return SettingsError(f"{K}BOOTSTRAP_SERVERS: the certificate of {where} is for other names ({why}): use a name that stands in it")
    which = f"the CAs in {kafka.ssl_ca_file}" if kafka.ssl_ca_file else "the CAs of this system"
    return SettingsError(
        f"{K}SSL_CA_FILE: the certificate of {where} does not hold against {which} ({why}): name the file with the CA that signed it"
    )


def _check_mechanism(kafka: Kafka, where: str, offered: tuple[str, ...]) -> None:
    if not offered:
        without = _with(False, tls=kafka.security_protocol.endswith("SSL"))
        raise SettingsError(f"{K}SECURITY_PROTOCOL: {where} asks for no user, this is {kafka.security_protocol}: {without} is needed")
    if kafka.sasl_mechanism not in offered:
        raise SettingsError(f"{K}SASL_MECHANISM: {where} does not know {kafka.sasl_mechanism}, only {', '.join(offered)}")


async def _mechanisms(kafka: Kafka, host: str, port: int) -> tuple[str, ...]:
    """How a user may prove who it is there; empty where none is asked for. Asked without telling one."""
    with suppress(OSError, KafkaError, TimeoutError):
        connection = await _without_user(host, port, ssl_context(kafka))
        try:
            answer = await connection.send(SaslHandShakeRequest(kafka.sasl_mechanism or "PLAIN"))
            if answer.error_code != IllegalSaslStateError.errno:
                return tuple(answer.enabled_mechanisms)
        finally:
            await _close(connection)
    return ()


async def _speaks_plain(host: str, port: int) -> bool:
    with suppress(OSError, KafkaError, TimeoutError):
        await _close(await _without_user(host, port, None))
        return True
    return False


async def _without_user(host: str, port: int, context: ssl.SSLContext | None) -> AIOKafkaConnection:
    """Connected, and asked for its versions, which a broker answers to anybody."""
    protocol = "SSL" if context else "PLAINTEXT"
    return await create_conn(host, port, security_protocol=protocol, ssl_context=context, request_timeout_ms=int(LOOK_S * 1000))


async def _speaks_tls(host: str, port: int) -> bool:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with suppress(OSError, TimeoutError, EOFError):
        async with asyncio.timeout(LOOK_S):
            _, writer = await asyncio.open_connection(host, port, ssl=context)
        await _hang_up(writer)
        return True
    return False


async def _alert(kafka: Kafka, host: str, port: int) -> str | None:
    """What the broker has against our certificate. With TLS 1.3 it says so only when we believe to be in."""
    try:
        async with asyncio.timeout(LOOK_S):
            reader, writer = await asyncio.open_connection(host, port, ssl=ssl_context(kafka))
            try:
                await reader.read(1)  # a broker that lets us in waits for us to speak
            finally:
                await _hang_up(writer)
    except ssl.SSLError as e:
        return (e.reason or "").replace("_", " ").lower() if "ALERT" in (e.reason or "") else None
    except (OSError, TimeoutError, EOFError):
        pass
    return None


async def _hang_up(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(LOOK_S):
            await writer.wait_closed()


async def _close(connection: AIOKafkaConnection) -> None:
    if (closed := connection.close()) is not None:
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(closed), LOOK_S)
