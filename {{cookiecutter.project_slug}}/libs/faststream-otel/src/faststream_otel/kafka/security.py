"""TLS and authentication of Kafka's clients, from the `BROKER_*` variables."""

import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, get_args

from aiokafka.errors import (
    AuthenticationFailedError,
    IllegalSaslStateError,
    KafkaConnectionError,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)
from faststream.kafka.security import parse_security
from faststream.security import BaseSecurity, SASLPlaintext, SASLScram256, SASLScram512

from ..messages import tls
from ..messages.addresses import Addresses, Server
from ..messages.broker import Unreachable
from ..settings import BadSetting
from ._aiokafka import connect_once
from .messages import UNREACHABLE
from .settings import KafkaSettings

ADDRESSES = Addresses(
    "kafka",
    9092,
    {
        protocol.lower(): f"BROKER_SECURITY_PROTOCOL={protocol}"
        for protocol in get_args(KafkaSettings.model_fields["broker_security_protocol"].annotation)
    },
)
MECHANISMS = {
    "PLAIN": SASLPlaintext,
    "SCRAM-SHA-256": SASLScram256,
    "SCRAM-SHA-512": SASLScram512,
}
PROBE_TIMEOUT_MS = 5000
REQUEST_TIMEOUT_MS = 10_000
"""The time-out of a request from the command line."""

_SASL = {
    "broker_sasl_mechanism": "SCRAM-SHA-512",
    "broker_username": "services",
    "broker_password": "<its password>",
}


def bootstrap_servers(settings: KafkaSettings) -> tuple[Server, ...]:
    """The servers of BROKER_URL. Raises BadSetting if it cannot be parsed."""
    return ADDRESSES.parse(settings.broker_url)


def broker_security(settings: KafkaSettings) -> BaseSecurity | None:
    """The argument `security` of FastStream's broker.

    Raises:
        BadSetting: Variables contradict each other, one is missing, or a file is not a valid PEM
            file.
    """
    for problem in _problems(settings):
        raise BadSetting(problem)
    if settings.broker_security_protocol == "PLAINTEXT":
        return None
    secured = settings.broker_security_protocol.endswith("SSL")
    context = tls.context(_files(settings)) if secured else None
    if settings.broker_sasl_mechanism is None:
        return BaseSecurity(ssl_context=context)
    return MECHANISMS[settings.broker_sasl_mechanism](
        settings.broker_username,
        settings.broker_password.get_secret_value(),
        ssl_context=context,
    )


def client_options(settings: KafkaSettings) -> dict[str, Any]:
    """Arguments for any client of aiokafka, to connect like the services.

    Raises:
        BadSetting: See `broker_security`; or BROKER_URL cannot be parsed.
    """
    security = parse_security(broker_security(settings))
    servers = [str(server) for server in bootstrap_servers(settings)]
    return {"bootstrap_servers": servers, **security}


@asynccontextmanager
async def broker_errors(settings: KafkaSettings) -> AsyncIterator[None]:
    """Convert the client's errors to Unreachable, with the reason."""
    try:
        yield
    except UNREACHABLE as error:
        reason = await why_refused(settings)
        raise Unreachable(reason or str(error) or type(error).__name__) from error


async def why_refused(settings: KafkaSettings) -> str:
    """Why the broker refuses this client, if the `BROKER_*` variables are the cause.

    Returns:
        The variables to check; empty if the broker is unreachable for another reason.
    """
    security = parse_security(broker_security(settings))
    for server in bootstrap_servers(settings):
        try:
            await connect_once(*server, PROBE_TIMEOUT_MS, security)
        except (
            AuthenticationFailedError,
            IllegalSaslStateError,
            SaslAuthenticationFailed,
        ) as error:
            return f"it does not accept BROKER_USERNAME or BROKER_PASSWORD: {error}"
        except UnsupportedSaslMechanismError as error:
            return f"it does not support BROKER_SASL_MECHANISM: {error}"
        except ssl.SSLCertVerificationError as error:
            return (
                "its certificate was not issued by an authority in BROKER_CA_FILE, or not for this"
                f" host name: {error.verify_message}"
            )
        except ssl.SSLError as error:
            return (
                "it does not use TLS on this port (BROKER_SECURITY_PROTOCOL), or requires a"
                f" client certificate (BROKER_CERTIFICATE_FILE): {error}"
            )
        except (KafkaConnectionError, ConnectionResetError):
            return (
                "it closed the connection: it requires another protocol on this port than"
                f" BROKER_SECURITY_PROTOCOL={settings.broker_security_protocol}, or a client"
                " certificate (BROKER_CERTIFICATE_FILE)"
            )
        except (KafkaError, OSError, TimeoutError):
            continue
    return ""


def _problems(settings: KafkaSettings) -> Iterator[str]:
    protocol = settings.broker_security_protocol
    given = {name for name in _SASL | tls.FILES if _is_set(settings, name)}
    if not protocol.startswith("SASL_"):
        for name in filter(given.__contains__, _SASL):
            yield (
                f"{name.upper()} is set, but BROKER_SECURITY_PROTOCOL={protocol} uses no SASL: set"
                f" BROKER_SECURITY_PROTOCOL=SASL_SSL, or unset {name.upper()}"
            )
    if not protocol.endswith("SSL"):
        for name in filter(given.__contains__, tls.FILES):
            secure = "SASL_SSL" if protocol.startswith("SASL_") else "SSL"
            yield (
                f"{name.upper()} is set, but BROKER_SECURITY_PROTOCOL={protocol} uses no TLS: set"
                f" BROKER_SECURITY_PROTOCOL={secure}, or unset {name.upper()}"
            )
    if protocol.startswith("SASL_"):
        for name, good in _SASL.items():
            if name not in given:
                yield (
                    f"{name.upper()} is missing: BROKER_SECURITY_PROTOCOL={protocol} needs it; set"
                    f" for example {name.upper()}={good}"
                )
    yield from tls.problems(_files(settings))


def _is_set(settings: KafkaSettings, name: str) -> bool:
    value = getattr(settings, name)
    return bool(value.get_secret_value() if name == "broker_password" else value)


def _files(settings: KafkaSettings) -> dict[str, Path | None]:
    return {name: getattr(settings, name) for name in tls.FILES}
