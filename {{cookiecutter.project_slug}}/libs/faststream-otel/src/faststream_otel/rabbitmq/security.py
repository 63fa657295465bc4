"""TLS and authentication of RabbitMQ's clients, from the `BROKER_*` variables."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aio_pika
from aio_pika.exceptions import AuthenticationError, InvalidFrameError, ProbableAuthenticationError
from aiormq.exceptions import ConnectionNotAllowed, IncompatibleProtocolError
from faststream.security import SASLPlaintext

from ..messages import tls
from ..messages.addresses import Addresses, Server
from ..messages.broker import Unreachable
from ..settings import BadSetting
from . import _pika
from .messages import UNREACHABLE
from .settings import RabbitSettings

if TYPE_CHECKING:
    from aio_pika.abc import AbstractConnection

CONNECT_SECONDS = 5.0
"""The time-out of connecting."""
SCHEMES = {"amqp": "", "amqps": "BROKER_TLS=true"}


def server(settings: RabbitSettings) -> Server:
    """The server of BROKER_URL. Raises BadSetting if it cannot be parsed, or names several."""
    port = 5671 if settings.broker_tls else 5672
    first, *others = Addresses("rabbitmq", port, SCHEMES).parse(settings.broker_url)
    if others:
        raise BadSetting(
            f"BROKER_URL names {len(others) + 1} servers, but a RabbitMQ client connects to only"
            " one. Set it to one node, or to the cluster's load balancer, for example"
            f" BROKER_URL={first}"
        )
    return first


def broker_security(settings: RabbitSettings) -> SASLPlaintext:
    """The argument `security` of FastStream's broker.

    Raises:
        BadSetting: Variables contradict each other, one is missing, or a file is not a valid PEM
            file.
    """
    for problem in _problems(settings):
        raise BadSetting(problem)
    return SASLPlaintext(
        settings.broker_username or "guest",
        settings.broker_password.get_secret_value() or "guest",
        ssl_context=tls.context(_files(settings)) if settings.broker_tls else None,
        use_ssl=settings.broker_tls,
    )


def client_options(settings: RabbitSettings) -> dict[str, Any]:
    """Arguments for `aio_pika.connect`, to connect like the services.

    Raises:
        BadSetting: See `broker_security`; or BROKER_URL cannot be parsed.
    """
    security, address = broker_security(settings), server(settings)
    return {
        "host": address.host,
        "port": address.port,
        "login": security.username,
        "password": security.password,
        "virtualhost": settings.broker_virtual_host,
        "ssl": security.use_ssl,
        "ssl_context": security.ssl_context,
        "timeout": CONNECT_SECONDS,
    }


@asynccontextmanager
async def connected(settings: RabbitSettings, client: str) -> AsyncIterator["AbstractConnection"]:
    """A new connection, which shows this name in RabbitMQ's management.

    Raises:
        Unreachable: From connecting, or from the block. The text says why.
    """
    _pika.apply()
    async with broker_errors(settings):
        options = client_options(settings)
        async with await aio_pika.connect(
            **options, client_properties={"connection_name": client}
        ) as connection:
            yield connection


@asynccontextmanager
async def broker_errors(settings: RabbitSettings) -> AsyncIterator[None]:
    """Convert the client's errors to Unreachable, with the reason."""
    try:
        yield
    except UNREACHABLE as error:
        reason = await why_refused(settings)
        raise Unreachable(reason or str(error) or type(error).__name__) from error


async def why_refused(settings: RabbitSettings) -> str:
    """Why the broker refuses this client, if the `BROKER_*` variables are the cause.

    Returns:
        The variables to check; empty if the broker is unreachable for another reason.
    """
    try:
        connection = await aio_pika.connect(**client_options(settings))
    except UNREACHABLE as error:
        return _why(error, settings)
    await connection.close()
    return ""


def _why(error: BaseException, settings: RabbitSettings) -> str:
    for one in _causes(error):
        match one:
            case ProbableAuthenticationError() | AuthenticationError():
                return f"it does not accept BROKER_USERNAME or BROKER_PASSWORD: {_text(one)}"
            # aiormq expects no refusal when it opens a virtual host, and does not keep its text.
            case ConnectionNotAllowed() | InvalidFrameError():
                return (
                    f"it has no virtual host BROKER_VIRTUAL_HOST={settings.broker_virtual_host}, or"
                    " BROKER_USERNAME may not use it"
                )
            case ssl.SSLCertVerificationError():
                return (
                    "its certificate was not issued by an authority in BROKER_CA_FILE, or not for"
                    f" this host name: {one.verify_message}"
                )
            case ssl.SSLError():
                return (
                    "it does not use TLS on this port (BROKER_TLS), or requires a client"
                    f" certificate (BROKER_CERTIFICATE_FILE): {one}"
                )
            case (
                IncompatibleProtocolError() | ConnectionResetError() | asyncio.IncompleteReadError()
            ):
                return (
                    "it closed the connection: it requires another protocol on this port than"
                    f" BROKER_TLS={str(settings.broker_tls).lower()}, or a client certificate"
                    " (BROKER_CERTIFICATE_FILE)"
                )
    return ""


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _text(error: BaseException) -> str:
    return ", ".join(map(str, error.args)) or type(error).__name__


def _problems(settings: RabbitSettings) -> Iterator[str]:
    password = bool(settings.broker_password.get_secret_value())
    if password and not settings.broker_username:
        yield (
            "BROKER_PASSWORD is set without BROKER_USERNAME: set for example"
            " BROKER_USERNAME=services"
        )
    if settings.broker_username and not password:
        yield (
            "BROKER_USERNAME is set without BROKER_PASSWORD: set BROKER_PASSWORD to that user's"
            " password"
        )
    if not settings.broker_tls:
        for name in tls.FILES:
            if getattr(settings, name):
                yield (
                    f"{name.upper()} is set, but BROKER_TLS=false: set BROKER_TLS=true, or unset"
                    f" {name.upper()}"
                )
    yield from tls.problems(_files(settings))


def _files(settings: RabbitSettings) -> dict[str, Path | None]:
    return {name: getattr(settings, name) for name in tls.FILES}
