"""A client of nats-py 2.16 without its traps, with all private parts of nats-py that are used here.

pyproject.toml keeps nats-py below the next major version. If a part is missing, the log says so
once, and the client does without.

- `Client._connect_command` and `._server_info`: to send no password to a server that does not
  encrypt the connection. Without the first, BROKER_TLS does not protect from such a server; without
  the second, the client refuses every server.
- `Client._build_message`: to receive a message with a header `Status`. Without: nats-py mistakes it
  for a response of the server, and it is redelivered endlessly.
- `Client._send_unsubscribe`, and `_sub._id` of a pull subscription: to end a delivery before the
  client stops listening. Without: a message that arrives just then is redelivered only after
  `ack_wait`.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg
from nats.errors import (
    Error,
    FlushTimeoutError,
    MaxPayloadError,
    NoRespondersError,
    SecureConnWantedError,
)

from ..telemetry.missing import warn_missing

CONNECT_SECONDS = 5.0
CLOSE_SECONDS = 1.0
"""Time to send what is buffered, and again to close the connection."""
ABORT_SECONDS = 0.5
"""Time to close a connection that failed: after a failed TLS handshake, asyncio waits forever."""
END_SECONDS = 0.5
"""Time for the server to end a delivery."""
STATUS = "Status"
_ACK = b"$JS.ACK."
"""How the reply subject of a message that JetStream delivered begins."""

ErrorCallback = Callable[[Exception], Awaitable[None]]


class NoStream(NoRespondersError):
    """No stream stores this subject."""

    def __init__(self, subject: str) -> None:
        super().__init__(subject)
        self.subject = subject


class Client(NatsClient):
    """A connection to a NATS server.

    - `connect` raises an error if no server accepts the client; afterwards it reconnects forever.
    - `publish` refuses a message that is too large together with its headers, for which the server
      would close the connection for good.
    - `drain` takes at most twice `CLOSE_SECONDS`, and also works while there is no connection.
    - With a TLS context, it refuses a server without TLS.
    """

    async def connect(self, servers: Any, *, error_cb: ErrorCallback, **options: Any) -> None:  # type: ignore[override]
        for part in ("_connect_command", "_build_message"):
            if not callable(getattr(NatsClient, part, None)):
                warn_missing(
                    "nats-py",
                    f"`Client.{part}`",
                    "see faststream_otel/nats/_natspy.py for what for",
                )
        failures: list[Exception] = []
        started = False

        async def failed(error: Exception) -> None:
            if started:
                await error_cb(error)
                return
            failures.append(error)
            if len(failures) >= len(servers):
                raise error

        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await super().connect(servers, error_cb=failed, **options)
        except BaseException as error:
            started = True  # closing may fail too
            with suppress(Exception):
                async with asyncio.timeout(ABORT_SECONDS):
                    await self.close()
            if isinstance(error, TimeoutError) and failures:
                raise failures[-1] from error
            raise
        started = True

    async def publish(
        self,
        subject: str,
        payload: bytes = b"",
        reply: str = "",
        headers: dict[str, str] | None = None,
    ) -> None:
        size = len(payload)
        for name, value in (headers or {}).items():
            size += len(name.encode()) + len(value.encode()) + 4  # ": " and the end of the line
        if headers:
            size += 14  # the first line, and the empty one
        if size > self.max_payload:
            raise MaxPayloadError
        await super().publish(subject, payload, reply, headers)

    async def request(self, subject: str, *arguments: Any, **options: Any) -> Msg:
        try:
            return await super().request(subject, *arguments, **options)
        except NoRespondersError as error:
            raise NoStream(subject) from error

    async def drain(self) -> None:
        if self.is_connected:
            with suppress(Error, OSError, FlushTimeoutError):
                async with asyncio.timeout(CLOSE_SECONDS):
                    await self.flush()
        with suppress(Error, OSError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self.close()

    def _connect_command(self) -> bytes:
        info = getattr(self, "_server_info", {})
        encrypted = info.get("tls_required") or self.options.get("tls_handshake_first")
        if self.options.get("tls") and not encrypted:
            raise SecureConnWantedError
        return super()._connect_command()

    def _build_message(
        self,
        sid: int,
        subject: bytes,
        reply: bytes,
        data: bytes,
        headers: dict[str, str] | None,
    ) -> Any:
        if headers and STATUS in headers and reply.startswith(_ACK):
            headers = {name.lower() if name == STATUS else name: headers[name] for name in headers}
        return super()._build_message(sid, subject, reply, data, headers)


async def end_delivery(client: NatsClient, pull: Any) -> None:
    """Stop the server from sending to a pull subscription, and receive what it has sent."""
    if not client.is_connected:
        return
    try:
        send, number = client._send_unsubscribe, pull._sub._id  # noqa: SLF001
    except AttributeError as error:
        warn_missing("nats-py", f"`{error.name}`", "a stop can delay a message until `ack_wait`")
        return
    with suppress(Error, OSError, TimeoutError):
        async with asyncio.timeout(END_SECONDS):
            await send(number)
            await client.flush()
