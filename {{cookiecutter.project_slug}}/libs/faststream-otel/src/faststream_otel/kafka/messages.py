"""Kafka's messages: how to read them whatever is in them, and how to send one."""

import copy
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, cast

from aiokafka import ConsumerRecord
from aiokafka.errors import KafkaError, MessageSizeTooLargeError
from faststream.exceptions import IncorrectState, RejectMessage
from faststream.kafka import KafkaBroker
from faststream.message import StreamMessage

from ..messages.broker import Raw, TooLarge, Unavailable
from ..messages.dead_letters.letter import header_text
from ..messages.time_limit import TimeLimit

PUBLISH_TIMEOUT_SECONDS = 5.0
MAX_MESSAGE_BYTES = 2 * 1_048_576
MAX_DEAD_LETTER_BYTES = MAX_MESSAGE_BYTES + 65_536
"""The channel of dead letters takes what any other does, plus the headers that say why."""

UNREACHABLE = (KafkaError, IncorrectState, OSError)
"""What the client raises while the broker cannot be reached."""


class KafkaMessages:
    """See `faststream_otel.messages.broker.Messages`."""

    takes_options = False
    # What any other channel takes, then what one takes that somebody else has made.
    dead_letter_sizes: Sequence[int] = (MAX_MESSAGE_BYTES, 900_000, 0)

    def __init__(self, broker: KafkaBroker | None = None) -> None:
        self._broker = broker

    @property
    def faststream(self) -> KafkaBroker:
        """FastStream's broker."""
        assert self._broker, "`build` makes it"
        return self._broker

    def channel(self, message: StreamMessage[Any]) -> str:
        topic: str = _first(message).topic
        return topic

    def count(self, message: StreamMessage[Any]) -> int:
        return len(message.raw_message) if isinstance(message.raw_message, tuple) else 1

    def raw(self, message: StreamMessage[Any]) -> Raw:
        record = _first(message)
        where = f"{record.partition}/{record.offset}"
        return Raw(record.topic, where, record.key, record.value, record.headers)

    def in_hand(self, message: StreamMessage[Any]) -> AbstractAsyncContextManager[None]:
        return nullcontext()

    @asynccontextmanager
    async def confirmation(self) -> AsyncIterator[None]:
        try:
            # The client's own limit is 40 s, and a shorter one would also end its requests to join
            # a consumer group, which rightly take as long as the other members need.
            async with TimeLimit(PUBLISH_TIMEOUT_SECONDS):
                yield
        except MessageSizeTooLargeError as error:
            raise TooLarge(str(error)) from error
        except TimeoutError as error:
            raise Unavailable(f"no answer within {PUBLISH_TIMEOUT_SECONDS:.0f} s") from error
        except UNREACHABLE as error:
            raise Unavailable(f"{type(error).__name__}: {error}") from error

    def settled(self) -> Exception:
        return RejectMessage()

    def again(self, error: Exception) -> Exception:
        return error  # what escapes is read again: `AckPolicy.NACK_ON_ERROR`

    async def send(
        self,
        channel: str,
        *,
        body: bytes,
        key: bytes | None,
        headers: dict[str, str],
        correlation_id: str | None,
    ) -> None:
        async with self.confirmation():
            await self.faststream.publish(
                body, channel, key=key, correlation_id=correlation_id, headers=headers
            )

    def singles(self, message: StreamMessage[Any]) -> list[StreamMessage[Any]]:
        if self.count(message) == 1:
            return [message]
        singles = []
        for position, record in enumerate(message.raw_message):
            single = copy.copy(message)
            single.raw_message = (record,)
            single.body = [message.body[position]]
            single.batch_headers = [message.batch_headers[position]]
            single.headers = single.batch_headers[0]
            single.correlation_id = single.headers.get("correlation_id", single.correlation_id)
            single.content_type = single.headers.get("content-type")
            single.message_id = f"{record.offset}-{record.timestamp}"
            singles.append(single)
        return singles


def _first(message: StreamMessage[Any]) -> "ConsumerRecord[Any, Any]":
    raw = message.raw_message
    record: ConsumerRecord[Any, Any] = raw[0] if isinstance(raw, tuple) else raw
    return record


class _Unparsed(bytes):
    """The body of a record that could not be parsed; `parse` fails in the same way again."""

    parse: Callable[[], Awaitable[object]]


async def parse(message: Any, parser: Callable[[Any], Awaitable[Any]]) -> StreamMessage[Any]:
    """Parse a record, or a batch, whatever is in it.

    When parsing raises, FastStream goes on to the next message, and the offset with it. So a record
    that cannot be parsed becomes a message that cannot be decoded, and ends as a dead letter.
    """
    try:
        parsed = await parser(_readable(message))
    except Exception:
        parsed = await _parse_apart(message, parser)
    # With its bytes; the broker of tests has batches in lists.
    parsed.raw_message = tuple(message) if isinstance(message, Sequence) else message
    return cast("StreamMessage[Any]", parsed)


async def _parse_apart(message: Any, parse: Callable[[Any], Awaitable[Any]]) -> Any:
    """Leave out of the records that cannot be parsed all that could be to blame."""
    batch = isinstance(message, Sequence)
    readable, unparsed = [], {}
    for position, record in enumerate(message if batch else (message,)):
        one = _readable((record,) if batch else record)
        try:
            await parse(one)
        except Exception:
            unparsed[position] = body = _Unparsed(record.value or b"")
            body.parse = partial(parse, one)
            readable.append(replace(record, value=b"", headers=()))
        else:
            readable.append(one[0] if batch else one)
    parsed = await parse(tuple(readable) if batch else readable[0])
    for position, body in unparsed.items():
        if batch:
            parsed.body[position] = body
        else:
            parsed.body = body
    return parsed


async def decode(
    message: StreamMessage[Any], decoder: Callable[[StreamMessage[Any]], Awaitable[Any]]
) -> Any:
    for body in message.body if isinstance(message.body, list) else (message.body,):
        if isinstance(body, _Unparsed):
            await body.parse()
    if isinstance(message.raw_message, tuple):
        message = copy.copy(message)
        message.raw_message = _readable(message.raw_message)  # FastStream parses them again
    return await decoder(message)


def _readable(message: Any) -> Any:
    """With headers that FastStream can read: it takes text alone."""
    if isinstance(message, Sequence):
        return tuple(_readable(record) for record in message)
    try:
        for _, value in message.headers:
            value.decode()
    except (AttributeError, UnicodeDecodeError):
        headers = ((name, header_text(value).encode()) for name, value in message.headers)
        return replace(message, headers=tuple(headers))
    return message
