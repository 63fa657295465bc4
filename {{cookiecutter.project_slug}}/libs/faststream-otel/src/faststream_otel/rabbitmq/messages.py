"""Implements `Messages` for RabbitMQ: reads any message, whatever it contains, and sends messages.

AMQP has no keys, and no place for a time in milliseconds: both are headers of our own. The content
type and the correlation id, which are properties in AMQP, count as headers, so that a dead letter
keeps them.
"""

import copy
import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    contextmanager,
    nullcontext,
)
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from aio_pika.abc import AbstractIncomingMessage
from aio_pika.exceptions import (
    AMQPError,
    ChannelInvalidStateError,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
    PublishError,
)
from faststream.exceptions import IncorrectState, RejectMessage
from faststream.message import StreamMessage, decode_message, encode_message
from faststream.rabbit import ExchangeType, RabbitBroker, RabbitExchange

from ..messages.broker import Headers, NotSent, Raw, TooLarge, Unavailable
from ..messages.confirmation import Confirmation
from ..messages.dead_letters import DEAD_LETTERS
from .channels import create_dead_letters

if TYPE_CHECKING:
    from faststream import PublishCommand
    from faststream.rabbit.response import RabbitPublishCommand

PUBLISH_TIMEOUT_SECONDS = 5.0
MAX_MESSAGE_BYTES = 2 * 1_048_576
"""The limit of a body. RabbitMQ's own limit is for all channels."""
MAX_DEAD_LETTER_BYTES = 16 * 1_048_576
"""RabbitMQ's default limit of a body (`max_message_size`): others may have published so much."""
MAX_HEADER_BYTES = 65_536
"""All headers must fit one frame, which is 128 KiB by default."""

KEY = "key"
PUBLISHED = "published-at"
"""The header with the time of publication: Unix milliseconds, in decimal digits."""
CONTENT_TYPE = "content-type"
CORRELATION_ID = "correlation_id"
_OF_THE_BROKER = frozenset({"x-acquired-count", "x-delivery-count", "x-stream-offset"})
_PROPERTIES = frozenset({CONTENT_TYPE, CORRELATION_ID})
_OWN = frozenset({KEY, PUBLISHED}) | _PROPERTIES | _OF_THE_BROKER

UNREACHABLE: tuple[type[Exception], ...] = (
    AMQPError,
    ChannelInvalidStateError,
    IncorrectState,
    OSError,
)
"""Exceptions that the client raises while the broker is unreachable."""

Delivered: TypeAlias = AbstractIncomingMessage | Sequence[AbstractIncomingMessage]
"""A message or a batch."""


class Unroutable(Unavailable):
    """There is no exchange of a channel. RabbitMQ says so for all that is under way."""


class Returned(Unroutable, NotSent):
    """No queue takes messages of a channel, so RabbitMQ returned the message."""


def exchange(channel: str, *, create: bool = True) -> RabbitExchange:
    """The exchange of a channel: each queue that is bound to it gets all its messages.

    Args:
        create: Whether a service creates it at its start, and after a reconnect.
    """
    # aio-pika would look for one that it did not create after a reconnect. If it was deleted
    # meanwhile, no consumer would come back.
    return RabbitExchange(channel, type=ExchangeType.FANOUT, durable=True, robust=create)


class ConsumedExchange(RabbitExchange):
    """The exchange of a channel, for one consumer.

    For FastStream it must not equal that of publications: otherwise it would publish on the
    consumer's connection channel, which RabbitMQ closes at an error.
    """

    def __init__(self, channel: str) -> None:
        super().__init__(channel, type=ExchangeType.FANOUT, durable=True)

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)


@contextmanager
def publish_errors(channel: str = "") -> Iterator[None]:
    """Convert the client's errors to TooLarge, Unroutable, Returned or Unavailable."""
    of = f" of {channel}" if channel else ""
    try:
        yield
    except PublishError as error:
        raise Returned(
            f"no queue accepts messages{of}, so they would be lost: start a service that consumes"
            " them, or run `faststream-otel channels`, which creates the queues of all services"
        ) from error
    except ChannelNotFoundEntity as error:
        raise Unroutable(
            f"there is no exchange{of}: `faststream-otel channels` creates it ({error})"
        ) from error
    except ChannelPreconditionFailed as error:
        if "max size" in str(error):
            raise TooLarge(str(error)) from error
        raise Unavailable(f"{type(error).__name__}: {error}") from error
    except UNREACHABLE as error:
        raise Unavailable(f"{type(error).__name__}: {error}") from error


def confirmation(channel: str = "") -> Confirmation:
    """See `Messages.confirmation`. The client itself waits without end for a frozen broker."""
    of = f" for {channel}" if channel else ""
    return Confirmation(PUBLISH_TIMEOUT_SECONDS, partial(publish_errors, channel), of=of)


_max_bytes = ContextVar("max_bytes", default=MAX_MESSAGE_BYTES)


def check_size(body: bytes, limit: int) -> None:
    """Raise TooLarge. RabbitMQ would close the channel, with all that is under way on it."""
    if len(body) > limit:
        raise TooLarge(f"the body has {len(body)} bytes, the limit is {limit}")


class Codec:
    """FastStream's codec, which also decodes batches, and limits the size of messages."""

    async def encode(self, msg: Any, serializer: Any = None) -> tuple[bytes, str | None]:
        body, content_type = encode_message(msg, serializer)
        check_size(body, _max_bytes.get())
        return body, content_type

    async def decode(self, msg: StreamMessage[Any]) -> Any:
        if isinstance(msg, RabbitBatch):
            return [decode_message(one) for one in msg.each]
        return decode_message(msg)


class RabbitBatch(StreamMessage[Any]):
    """A batch of messages; `raw_message` is a tuple."""

    def __init__(self, each: Sequence[StreamMessage[Any]]) -> None:
        super().__init__(None, None)
        self.hold(each)

    def only(self, one: StreamMessage[Any]) -> "RabbitBatch":
        """A batch of one of the messages."""
        single = copy.copy(self)
        single.hold([one])
        return single

    def hold(self, each: Sequence[StreamMessage[Any]]) -> None:
        """Replace the messages."""
        self.each = each
        self.raw_message = tuple(one.raw_message for one in each)
        self.body = [one.body for one in each]
        self.batch_headers = [one.headers for one in each]
        self.headers = each[0].headers
        self.content_type = each[0].content_type
        self.correlation_id = each[0].correlation_id
        self.message_id = each[0].message_id

    async def ack(self) -> None:
        for one in self._held():
            await one.ack()
        await super().ack()

    async def nack(self) -> None:
        for one in self._held():
            await one.nack()
        await super().nack()

    async def reject(self) -> None:
        for one in self._held():
            await one.reject()
        await super().reject()

    def _held(self) -> Iterator[StreamMessage[Any]]:
        """Those that RabbitMQ does not deliver again anyway."""
        return (one for one in self.each if not is_lost(one.raw_message))


async def parse(message: Any, parser: Any) -> StreamMessage[Any]:
    """Parse a message or a batch."""
    if isinstance(message, tuple):
        return RabbitBatch([await _parse_one(one, parser) for one in message])
    return await _parse_one(message, parser)


async def _parse_one(message: Any, parser: Any) -> StreamMessage[Any]:
    parsed: StreamMessage[Any] = await parser(message)
    parsed.message_id = message_id(message)  # FastStream's own is random if there is none
    return parsed


def message_id(message: AbstractIncomingMessage) -> str:
    """The id that the sender gave it, or else one that is the same at each delivery."""
    if message.message_id:
        return message.message_id
    found = hashlib.sha256(message.body)
    for name, value in raw_headers(message):
        found.update(name.encode() + b"\0" + (value or b"\0"))
    return found.hexdigest()[:32]


def raw_headers(message: AbstractIncomingMessage) -> Headers:
    """A message's headers, with its content type and correlation id, without those of ours."""
    properties = {CONTENT_TYPE: message.content_type, CORRELATION_ID: message.correlation_id}
    return [
        *((name, value.encode()) for name, value in properties.items() if value),
        *((name, _raw(value)) for name, value in message.headers.items() if name not in _OWN),
    ]


def _raw(value: object) -> bytes | None:
    match value:
        case None:
            return None
        case bytes() | bytearray():
            return bytes(value)
        case str():
            return value.encode(errors="replace")
        case bool() | int() | float() | list() | dict():
            return json.dumps(value, default=str).encode()
    return str(value).encode()


def key_of(message: AbstractIncomingMessage) -> bytes | None:
    """The key that the message was published with."""
    return _raw(message.headers.get(KEY))


def published_at(message: AbstractIncomingMessage) -> float:
    """Unix seconds by the sender's clock; whole seconds if another program published it; 0 if
    unknown."""
    value = message.headers.get(PUBLISHED)
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 16:
        return int(value) / 1000
    return message.timestamp.timestamp() if message.timestamp else 0.0


def header(value: bytes | None) -> str | bytearray | None:
    """A header's value for the client. AMQP distinguishes text and bytes."""
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return bytearray(value or b"")


class RabbitMessages:
    """See `faststream_otel.messages.broker.Messages`."""

    takes_options = False
    any_headers = False
    dead_letter_sizes: Sequence[int] = (MAX_DEAD_LETTER_BYTES, MAX_MESSAGE_BYTES, 0)

    def __init__(self, broker: RabbitBroker | None = None) -> None:
        self._broker = broker

    @property
    def faststream(self) -> RabbitBroker:
        """FastStream's broker."""
        assert self._broker, "call `build` first"
        return self._broker

    def channel(self, message: StreamMessage[Any]) -> str:
        return channel_of(first(message.raw_message))

    def sent_to(self, command: "PublishCommand") -> str:
        return channel_sent_to(command)  # type: ignore[arg-type]

    def count(self, message: StreamMessage[Any]) -> int:
        return len(message.raw_message) if isinstance(message.raw_message, tuple) else 1

    def raw(self, message: StreamMessage[Any]) -> Raw:
        one = first(message.raw_message)
        return Raw(channel_of(one), message_id(one), key_of(one), one.body, raw_headers(one))

    def in_flight(self, message: StreamMessage[Any]) -> AbstractAsyncContextManager[None]:
        return nullcontext()

    def confirmation(self, channel: str = "") -> AbstractAsyncContextManager[None]:
        return confirmation(channel)

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
        limit = MAX_DEAD_LETTER_BYTES if channel == DEAD_LETTERS else MAX_MESSAGE_BYTES
        check_size(body, limit)
        size = len(key or b"") + sum(
            len(name) + len(text.encode()) for name, text in headers.items()
        )
        if size > MAX_HEADER_BYTES:
            raise TooLarge(f"the headers have {size} bytes, the limit is {MAX_HEADER_BYTES}")
        sent: dict[str, Any] = {n: v for n, v in headers.items() if n not in _PROPERTIES}
        if key is not None:
            sent[KEY] = header(key)
        options = {"content_type": headers.get(CONTENT_TYPE), "correlation_id": correlation_id}
        token = _max_bytes.set(limit)
        try:
            try:
                await self._send(channel, body, headers=sent, **options)
            except Unroutable:
                if channel != DEAD_LETTERS:
                    raise
                async with confirmation(channel):
                    connection = await self.faststream.connect()
                    async with connection.channel() as opened:
                        await create_dead_letters(opened)
                await self._send(channel, body, headers=sent, **options)
        finally:
            _max_bytes.reset(token)

    async def _send(self, channel: str, body: bytes, **options: Any) -> None:
        async with confirmation(channel):
            await self.faststream.publish(
                body, exchange=exchange(channel, create=False), persist=True, **options
            )

    def singles(self, message: StreamMessage[Any]) -> list[StreamMessage[Any]]:
        if not isinstance(message, RabbitBatch) or len(message.each) == 1:
            return [message]
        return [message.only(one) for one in message.each]


def is_lost(message: AbstractIncomingMessage) -> bool:
    """Whether the channel that delivered a message is closed, so that it cannot be acknowledged."""
    try:
        return message.channel.is_closed
    except ChannelInvalidStateError:  # aio-pika's answer if it is
        return True


def first(message: Delivered) -> AbstractIncomingMessage:
    """The message, or the first one of a batch."""
    return message[0] if isinstance(message, Sequence) else message


def channel_of(message: AbstractIncomingMessage) -> str:
    """The channel that a message was sent to, as its sender names it."""
    return ":".join(filter(None, (message.exchange, message.routing_key)))


def channel_sent_to(command: "RabbitPublishCommand") -> str:
    """The channel of a publication."""
    return ":".join(filter(None, (command.exchange.name, command.destination)))
