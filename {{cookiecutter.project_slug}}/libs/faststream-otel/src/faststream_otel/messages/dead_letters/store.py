"""Where dead letters are kept, as each broker's folder answers it."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from types import TracebackType
from typing import Protocol, Self, TypeAlias

from opentelemetry.util.types import AttributeValue

from ..broker import Headers
from .dead_letter import DeadLetter, Record

Attributes: TypeAlias = dict[str, AttributeValue]


class DeadLetterStore(Protocol):
    """Logs of records that are only appended to, and the way back; `async with` connects.

    A record is a dead letter, or says what happened to others of its log. The records of a log have
    a total order. A record has one id: an opaque text, unique in the store.

    Raises:
        Unreachable: On connecting, or by any method: the broker does not answer.
    """

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

    async def exists(self, channel: str) -> bool:
        """Whether there is such a channel; asked for every dead letter that is sent."""

    def order(self, id: str) -> tuple[str, int]:
        """The log that an id is of, and its place there. Needs no connection.

        Raises:
            ValueError: It is no id; says what one looks like.
        """

    def read(self, start: Mapping[str, str] | None = None) -> AsyncGenerator[Record, None]:
        """Read each log in its order, without consuming anything.

        Ends at what is the end now: all records that were confirmed before this call are read.

        Args:
            start: By log the id to begin with, or with the first one after it where that record is
                gone; other logs are left out. Default: all logs from their beginning.
        """

    async def append(self, log: str, body: bytes, headers: Mapping[str, str]) -> str:
        """Append a record to a log, and return its id once the broker has confirmed it."""

    async def send(
        self, channel: str, dead_letter: DeadLetter, headers: Headers
    ) -> "asyncio.Future[object]":
        """Publish a dead letter's key and body with these headers.

        Messages of one key keep the order of these calls where the broker can do that.

        Returns:
            Done once the broker has confirmed it; fails with the errors below.

        Raises:
            TooLarge: It was not sent.
            Unavailable: It may have been sent.
        """

    def attributes(self, channel: str, dead_letter: DeadLetter) -> tuple[Attributes, Attributes]:
        """Attributes of the span that sends a dead letter, and of its link to the dead letter."""
