"""The store of dead letters: a protocol that each broker's folder implements."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from types import TracebackType
from typing import Protocol, Self

from opentelemetry.semconv.attributes.server_attributes import SERVER_ADDRESS, SERVER_PORT

from ...telemetry import semconv as messaging
from ...telemetry.errors import MAX_TEXT, bounded
from ...telemetry.values import Attributes
from ..addresses import Server
from ..broker import Headers
from ..middleware import Destination, operation_attributes
from .dead_letter import DeadLetter, Record
from .headers import CORRELATION_ID


def send_attributes(
    system: str, server: Server, channel: str, dead_letter: DeadLetter
) -> Attributes:
    """Attributes of the span that sends a dead letter, for any broker."""
    attributes = operation_attributes(system, "send", Destination(channel, channel)) | {
        messaging.MESSAGING_MESSAGE_BODY_SIZE: len(dead_letter.body or b""),
        SERVER_ADDRESS: server.host,
        SERVER_PORT: server.port,
    }
    if conversation := dead_letter.record.text.get(CORRELATION_ID):
        attributes[messaging.MESSAGING_MESSAGE_CONVERSATION_ID] = bounded(conversation, MAX_TEXT)
    return attributes


class DeadLetterStore(Protocol):
    """Append-only logs of records, and sending dead letters back; `async with` connects.

    A record is a dead letter, or a change of state of earlier dead letters in its log. The records
    of a log have a total order. The id of a record is an opaque text, unique in the store.

    Raises:
        Unreachable: The broker does not answer; from `async with`, or from any method.
    """

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

    async def exists(self, channel: str) -> bool:
        """Whether a channel exists. Called for every dead letter that is sent."""

    def order(self, id: str) -> tuple[str, int]:
        """The log of an id, and its place there. Needs no connection.

        Raises:
            ValueError: The text is not an id. The error says what an id looks like.
        """

    def read(self, start: Mapping[str, str] | None = None) -> AsyncGenerator[Record, None]:
        """Read each log in its order, without consuming anything.

        It reads all records that were confirmed before this call, then ends.

        Args:
            start: For each log to read, the id to start at. If that record is gone, it starts at
                the next one. Default: all logs from their beginning.
        """

    async def append(self, log: str, body: bytes, headers: Mapping[str, str]) -> str:
        """Append a record to a log, and return its id once the broker has confirmed it."""

    async def send(
        self, channel: str, dead_letter: DeadLetter, headers: Headers
    ) -> "asyncio.Future[object]":
        """Publish a dead letter's key and body with these headers.

        Messages with the same key keep the order of these calls if the broker supports it.

        Returns:
            A future that is done once the broker has confirmed it, or fails with the errors below.

        Raises:
            TooLarge: The dead letter was not sent.
            Unavailable: The dead letter may have been sent.
        """

    def attributes(self, channel: str, dead_letter: DeadLetter) -> tuple[Attributes, Attributes]:
        """Attributes of the span that sends a dead letter, and of the span's link."""
