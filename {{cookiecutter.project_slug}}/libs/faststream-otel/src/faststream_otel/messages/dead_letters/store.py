"""Where dead letters are kept, as each broker's folder answers it."""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from types import TracebackType
from typing import Protocol, Self

from opentelemetry.util.types import AttributeValue

from ..broker import Headers
from .letter import Letter, Record

Attributes = dict[str, AttributeValue]


class DeadLetterStore(Protocol):
    """Logs of records that are only appended to, and the way out of them; `async with` connects.

    A record is a dead letter, or says what happened to others of its log. The records of one log
    have a total order. Ids are opaque texts, unique in the store.

    Raises:
        Unreachable: On connecting, or by any method: the broker does not answer.
    """

    @property
    def channels(self) -> Collection[str]:
        """All channels that existed on connecting, that of the dead letters among them."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

    def order(self, id: str) -> tuple[str, int]:
        """The log that an id is of, and its place there. Raises ValueError for what is no id."""

    def read(self, after: Mapping[str, str] | None = None) -> AsyncIterator[Record]:
        """Read up to what is the end now, each log in its order, without consuming anything.

        Args:
            after: By log the id after which to begin; other logs are left out. Default: all logs
                from their beginning.
        """

    async def get(self, id: str) -> Record | None:
        """The record with this id; None where there is none."""

    async def append(self, log: str, value: bytes, headers: Mapping[str, str]) -> str:
        """Append a record to a log, and return its id once the broker has confirmed it."""

    async def send(
        self, channel: str, letter: Letter, headers: Headers
    ) -> "asyncio.Future[object]":
        """Publish a dead letter's message; what is returned is done when the broker has it.

        Messages of one key keep the order of these calls where the broker can do that.

        Raises:
            TooLarge: It was not sent. After any other error it may have been.
        """

    def attributes(self, channel: str, letter: Letter) -> tuple[Attributes, Attributes]:
        """What a span says of sending a dead letter, and what its link says of the dead letter."""
