"""Implements `Messages` for Kafka: reads any record, whatever it contains, and sends messages."""

import copy
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, cast

from aiokafka import ConsumerRecord
from aiokafka.errors import KafkaError, MessageSizeTooLargeError
from faststream import PublishCommand
from faststream.exceptions import IncorrectState, RejectMessage
from faststream.kafka import KafkaBroker
from faststream.message import StreamMessage

from ..messages.broker import Raw, TooLarge, Unavailable
from ..messages.confirmation import Confirmation
from ..telemetry.values import decoded

PUBLISH_TIMEOUT_SECONDS = 5.0
MAX_MESSAGE_BYTES = 2 * 1_048_576
MAX_DEAD_LETTER_BYTES = MAX_MESSAGE_BYTES + 65_536
"""A dead letter is a message of the maximum size, plus the headers that say what happened."""

UNREACHABLE: tuple[type[Exception], ...] = (KafkaError, IncorrectState, OSError)
"""Exceptions that the client raises while the broker is unreachable."""


@contextmanager
def publish_errors() -> Iterator[None]:
    """Convert the client's errors to TooLarge or Unavailable."""
    try:
        yield
    except MessageSizeTooLargeError as error:
        raise TooLarge(str(error)) from error
    except UNREACHABLE as error:
        raise Unavailable(f"{type(error).__name__}: {error}") from error


_NOTHING = nullcontext()


class KafkaMessages:
    """See `faststream_otel.messages.broker.Messages`."""

    takes_options = False
    any_headers = True
    # The limit of channels that we create, then one below Kafka's default of 1 MB.
    dead_letter_sizes: Sequence[int] = (MAX_MESSAGE_BYTES, 900_000, 0)

    def __init__(self, broker: KafkaBroker | None = None) -> None:
        self._broker = broker

    @property
    def faststream(self) -> KafkaBroker:
        """FastStream's broker."""
        assert self._broker, "call `build` first"
        return self._broker

    def channel(self, message: StreamMessage[Any]) -> str:
        topic: str = _first(message).topic
        return topic

    def sent_to(self, command: PublishCommand) -> str:
        return command.destination

    def count(self, message: StreamMessage[Any]) -> int:
        return len(message.raw_message) if isinstance(message.raw_message, tuple) else 1

    def raw(self, message: StreamMessage[Any]) -> Raw:
        record = _first(message)
        where = f"{record.partition}/{record.offset}"
        return Raw(record.topic, where, record.key, record.value, record.headers)

    def in_flight(self, message: StreamMessage[Any]) -> AbstractAsyncContextManager[None]:
        return _NOTHING

    def confirmation(self, channel: str = "") -> Confirmation:
        # The client's own time-out is 40 s. A shorter one would also apply to its requests to join
        # a consumer group, which may take longer. It asks again and again for a topic that does not
        # exist.
        hint = f"; does {channel} exist? `faststream-otel channels` creates it" if channel else ""
        return Confirmation(PUBLISH_TIMEOUT_SECONDS, publish_errors, hint=hint)

    def acknowledgement(self) -> Exception:
        return RejectMessage()

    def redelivery(self, error: Exception) -> Exception:
        return error  # `AckPolicy.NACK_ON_ERROR`: any error causes a redelivery

    async def send(
        self,
        channel: str,
        *,
        body: bytes,
        key: bytes | None,
        headers: dict[str, str],
        correlation_id: str | None,
    ) -> None:
        async with self.confirmation(channel):
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
    """The body of a record that could not be parsed; `parse` raises the same error again."""

    parse: Callable[[], Awaitable[object]]


async def parse(message: Any, parser: Callable[[Any], Awaitable[Any]]) -> StreamMessage[Any]:
    """Parse a record or a batch, whatever it contains.

    If parsing raises, FastStream skips the message. So a record that cannot be parsed becomes a
    message that cannot be decoded, which goes to the dead letters.
    """
    try:
        parsed = await parser(message)
    except Exception:
        parsed = await _parse_apart(message, parser)
    # The original records. FastStream's test broker has batches in lists.
    parsed.raw_message = tuple(message) if isinstance(message, list) else message
    return cast("StreamMessage[Any]", parsed)


async def _parse_apart(message: Any, parse: Callable[[Any], Awaitable[Any]]) -> Any:
    """Parse with the bodies and headers removed from those records that cannot be parsed."""
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
    """Decode a message; raise the error of a record that could not be parsed."""
    for body in message.body if isinstance(message.body, list) else (message.body,):
        if isinstance(body, _Unparsed):
            await body.parse()
    if isinstance(message.raw_message, tuple):
        message = copy.copy(message)
        message.raw_message = _readable(message.raw_message)  # FastStream parses the headers again
    return await decoder(message)


def _readable(message: Any) -> Any:
    """The records with headers that FastStream can read: their values must be UTF-8."""
    if isinstance(message, Sequence):
        return tuple(_readable(record) for record in message)
    try:
        for _, value in message.headers:
            value.decode()
    except (AttributeError, UnicodeDecodeError):
        headers = ((name, decoded(value).encode()) for name, value in message.headers)
        return replace(message, headers=tuple(headers))
    return message
