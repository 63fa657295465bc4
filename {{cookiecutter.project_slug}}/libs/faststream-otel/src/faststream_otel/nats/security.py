"""TLS and authentication of NATS clients, from the `BROKER_*` variables."""

import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from faststream.nats.security import (
    NatsCredentials,
    NatsSecurity,
    NatsToken,
    NatsUserPassword,
    parse_security,
)
from nats.errors import Error, SecureConnWantedError
from nats.js import JetStreamContext
from nats.js.errors import APIError, ServiceUnavailableError

from ..messages import tls
from ..messages.addresses import Addresses, Server
from ..messages.broker import Unreachable
from ..settings import BadSetting
from ._natspy import Client
from .messages import UNREACHABLE
from .settings import NatsSettings

ADDRESSES = Addresses("nats", 4222, {"nats": "", "tls": "BROKER_TLS=true"})
REQUEST_TIMEOUT_SECONDS = 10.0
"""The time-out of a request from the command line."""

_USER = {"broker_username": "services", "broker_password": "<its password>"}
_CREDENTIALS = "/certificates/services.creds"
_REFUSED = ("authorization", "authentication", "credentials", "nkey")


def servers(settings: NatsSettings) -> tuple[Server, ...]:
    """The servers of BROKER_URL. Raises BadSetting if it cannot be parsed."""
    return ADDRESSES.parse(settings.broker_url)


def broker_security(settings: NatsSettings) -> NatsSecurity | None:
    """The argument `security` of FastStream's broker.

    Raises:
        BadSetting: Variables contradict each other, one is missing, or a file is not a valid PEM
            file.
    """
    for problem in _problems(settings):
        raise BadSetting(problem)
    context = tls.context(_files(settings)) if settings.broker_tls else None
    if settings.broker_username:
        password = settings.broker_password.get_secret_value()
        return NatsUserPassword(settings.broker_username, password, ssl_context=context)
    if token := settings.broker_token.get_secret_value():
        return NatsToken(token, ssl_context=context)
    if settings.broker_credentials_file:
        return NatsCredentials.from_file(settings.broker_credentials_file, ssl_context=context)
    return NatsSecurity(ssl_context=context) if context else None


def client_options(settings: NatsSettings) -> dict[str, Any]:
    """Arguments for `Client.connect`, to connect like the services.

    Raises:
        BadSetting: See `broker_security`; or BROKER_URL cannot be parsed.
    """
    security = parse_security(broker_security(settings))
    return {"servers": [f"nats://{server}" for server in servers(settings)], **security}


@asynccontextmanager
async def connected(settings: NatsSettings, name: str) -> AsyncIterator[JetStreamContext]:
    """A separate connection for the duration of the context.

    Args:
        name: The client's name for the server.

    Raises:
        Unreachable: No server accepts the client, or none answers in the context.
    """
    client = Client()
    options = client_options(settings)
    async with broker_errors(settings):
        await client.connect(**options, name=name, error_cb=_ignore, allow_reconnect=False)
        try:
            yield client.jetstream(timeout=REQUEST_TIMEOUT_SECONDS)
        finally:
            await client.drain()


@asynccontextmanager
async def broker_errors(settings: NatsSettings) -> AsyncIterator[None]:
    """Convert the client's errors to Unreachable, with the reason."""
    try:
        yield
    except UNREACHABLE as error:
        raise Unreachable(why(settings, error)) from error


def why(settings: NatsSettings, error: Exception) -> str:
    """Why the client is not connected, with the variables to check if these are the cause."""
    text = str(error).removeprefix("nats: ").strip("'") or type(error).__name__
    if isinstance(error, TimeoutError) and not str(error):
        return "it does not answer like a NATS server"
    if isinstance(error, ServiceUnavailableError):
        return "it has JetStream switched off, or no leader: start it with --jetstream"
    if isinstance(error, APIError):
        return error.description or text
    if isinstance(error, SecureConnWantedError):
        return "it does not use TLS on this port (BROKER_TLS)"
    if isinstance(error, Error) and any(one in text.lower() for one in _REFUSED):
        return f"it does not accept {_identity(settings)}: {text}"
    if isinstance(error, ssl.SSLError) and not settings.broker_tls:
        return f"it uses TLS on this port: set BROKER_TLS=true ({text})"
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            "its certificate was not issued by an authority in BROKER_CA_FILE, or not for this"
            f" host name: {error.verify_message}"
        )
    closed = isinstance(error, ssl.SSLError | ConnectionResetError | BrokenPipeError)
    if closed and settings.broker_tls:
        return f"it may require a client certificate (BROKER_CERTIFICATE_FILE): {text}"
    return text


def _identity(settings: NatsSettings) -> str:
    if settings.broker_token.get_secret_value():
        return "BROKER_TOKEN"
    if settings.broker_credentials_file:
        return "BROKER_CREDENTIALS_FILE"
    if settings.broker_username:
        return "BROKER_USERNAME or BROKER_PASSWORD"
    return (
        "a client without BROKER_USERNAME and BROKER_PASSWORD, BROKER_TOKEN or"
        " BROKER_CREDENTIALS_FILE"
    )


async def _ignore(error: Exception) -> None:
    """`connect` raises the error that matters."""


def _problems(settings: NatsSettings) -> Iterator[str]:
    given = {name for name in type(settings).model_fields if _is_set(settings, name)}
    for name, good in _USER.items():
        (other,) = _USER.keys() - {name}
        if other in given and name not in given:
            yield (
                f"{name.upper()} is missing: {other.upper()} needs it; set for example"
                f" {name.upper()}={good}"
            )
    ways = ("broker_username", "broker_token", "broker_credentials_file")
    chosen, *others = [*filter(given.__contains__, ways), ""]
    for name in filter(None, others):
        yield (
            f"{chosen.upper()} and {name.upper()} are both set, but a client authenticates in one"
            f" way: unset {chosen.upper()} or {name.upper()}"
        )
    if (path := settings.broker_credentials_file) and not _is_readable(path):
        yield (
            f"BROKER_CREDENTIALS_FILE={path} cannot be read, or contains no user's credentials: set"
            " it to a .creds file that the service's user may read, for example"
            f" BROKER_CREDENTIALS_FILE={_CREDENTIALS}"
        )
    if not settings.broker_tls:
        for name in filter(given.__contains__, tls.FILES):
            yield (
                f"{name.upper()} is set, but BROKER_TLS=false: set BROKER_TLS=true, or unset"
                f" {name.upper()}"
            )
    yield from tls.problems(_files(settings))


def _is_set(settings: NatsSettings, name: str) -> bool:
    value = getattr(settings, name)
    return bool(value.get_secret_value() if hasattr(value, "get_secret_value") else value)


def _is_readable(path: Path) -> bool:
    try:
        return b"BEGIN NATS USER JWT" in path.read_bytes()
    except OSError:
        return False


def _files(settings: NatsSettings) -> dict[str, Path | None]:
    return {name: getattr(settings, name) for name in tls.FILES}
