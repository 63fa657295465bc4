"""Implements `DeadLetterStore` for RabbitMQ, in the stream of the dead letters.

There is one log. An id is an offset in the stream.

AMQP tells neither the end of a stream, nor the offset of a message that it confirmed. So a store
follows the stream from its last records on: it finds what it has appended by a message id, and
knows the end after a short silence. A stream that seems empty may also be slow: the store appends a
change of state of no dead letter, and knows the end when that comes back.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

from aio_pika import DeliveryMode, Message
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage
from aio_pika.exceptions import ChannelNotFoundEntity

from ..messages.broker import Headers, Unreachable
from ..messages.dead_letters import DEAD_LETTERS
from ..messages.dead_letters.dead_letter import DeadLetter, Record
from ..messages.dead_letters.states import State, StateChange
from ..messages.dead_letters.store import send_attributes
from ..telemetry import semconv as messaging
from ..telemetry.values import Attributes, decoded
from .channels import create_dead_letters
from .messages import (
    CONTENT_TYPE,
    CORRELATION_ID,
    KEY,
    MAX_DEAD_LETTER_BYTES,
    MAX_MESSAGE_BYTES,
    check_size,
    confirmation,
    header,
    key_of,
    published_at,
    raw_headers,
)
from .security import broker_errors, connected, server
from .settings import RabbitSettings
from .telemetry import RabbitConventions

CLIENT = "dead-letters"
OFFSET = "x-stream-offset"
PREFETCH = 50
SILENCE_SECONDS = 0.2
"""After so long without a record, the last one was the end of the stream."""
FIRST_SECONDS = 1.0
"""After so long without any record, the stream seems empty."""
MAX_SILENCES = 25
"""While others append all the time, the end is taken after so many waits."""
STALLED_SECONDS = 15.0
"""Reading fails after this time without a record, if the stream has more."""

_ID = re.compile("0|[1-9][0-9]{0,17}")


class RabbitDeadLetters:
    """See `faststream_otel.messages.dead_letters.store.DeadLetterStore`."""

    def __init__(self, settings: RabbitSettings) -> None:
        self._settings = settings
        self._stack = AsyncExitStack()
        self._connection: AbstractConnection
        self._channel: AbstractChannel
        self._tail: _Tail | None = None
        self._attaching = asyncio.Lock()

    async def __aenter__(self) -> Self:
        self._connection = await self._stack.enter_async_context(connected(self._settings, CLIENT))
        try:
            async with broker_errors(self._settings):
                self._channel = await self._connection.channel(on_return_raises=True)
                await create_dead_letters(self._channel)
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._stack.aclose()

    async def exists(self, channel: str) -> bool:
        async with broker_errors(self._settings):
            probe = await self._connection.channel()  # RabbitMQ closes it if there is none
            try:
                await probe.get_exchange(channel, ensure=True)
            except ChannelNotFoundEntity:
                return False
            await probe.close()
            return True

    def order(self, id: str) -> tuple[str, int]:
        if _ID.fullmatch(id) is None:
            raise ValueError(f"{id} is not an offset in the stream {DEAD_LETTERS}, such as 12")
        return DEAD_LETTERS, int(id)

    async def read(self, start: Mapping[str, str] | None = None) -> AsyncGenerator[Record, None]:
        offset = 0
        if start is not None:
            if DEAD_LETTERS not in start:
                return
            offset = self.order(start[DEAD_LETTERS])[1]
        async with broker_errors(self._settings):
            end = await (await self._following()).end()
            if end is None:
                nothing = StateChange(State.OPEN, [])
                end = await self._appended(nothing.body, nothing.headers) - 1
            if offset > end:
                return
            async for message in _read(self._connection, offset):
                at = _offset(message)
                if offset <= at <= end:
                    yield _record(message)
                if at >= end:
                    return

    async def append(self, log: str, body: bytes, headers: Mapping[str, str]) -> str:
        async with broker_errors(self._settings):
            return str(await self._appended(body, headers))

    async def _appended(self, body: bytes, headers: Mapping[str, str]) -> int:
        tail = await self._following()
        id = str(uuid4())
        found = tail.expect(id)
        async with confirmation(DEAD_LETTERS):
            await self._publish(DEAD_LETTERS, _message(body, dict(headers), id))
        return await asyncio.wait_for(found, STALLED_SECONDS)

    async def send(
        self, channel: str, dead_letter: DeadLetter, headers: Headers
    ) -> "asyncio.Future[object]":
        body = dead_letter.body or b""
        check_size(body, MAX_DEAD_LETTER_BYTES if channel == DEAD_LETTERS else MAX_MESSAGE_BYTES)
        sent: dict[str, Any] = {name: header(value) for name, value in headers}
        if dead_letter.record.key is not None:
            sent[KEY] = header(dead_letter.record.key)
        message = _message(body, sent, str(uuid4()))
        return asyncio.create_task(self._confirmed(channel, message))  # the client keeps the order

    async def _confirmed(self, channel: str, message: Message) -> object:
        async with confirmation(channel):
            await self._publish(channel, message)
        return None

    def attributes(self, channel: str, dead_letter: DeadLetter) -> tuple[Attributes, Attributes]:
        span = send_attributes(
            RabbitConventions.system, server(self._settings), channel, dead_letter
        )
        link: Attributes = {
            messaging.MESSAGING_DESTINATION_NAME: DEAD_LETTERS,
            messaging.MESSAGING_MESSAGE_ID: dead_letter.id,
        }
        return span, link

    async def _publish(self, channel: str, message: Message) -> None:
        exchange = await self._channel.get_exchange(channel, ensure=False)
        await exchange.publish(message, "")

    async def _following(self) -> "_Tail":
        async with self._attaching:  # nothing may be appended before it follows the stream
            if self._tail is None:
                tail = _Tail()
                await tail.follow(self._connection)
                self._tail = tail
        return self._tail


class _Tail:
    """Follows the stream from its last records on."""

    def __init__(self) -> None:
        self._last = -1
        self._first = asyncio.Event()
        self._expected: dict[str, asyncio.Future[int]] = {}

    async def follow(self, connection: AbstractConnection) -> None:
        await _consume(connection, "last", self._received)

    def expect(self, id: str) -> "asyncio.Future[int]":
        """A future of the offset of the message with this id."""
        found = self._expected[id] = asyncio.get_running_loop().create_future()
        return found

    async def end(self) -> int | None:
        """The offset of the last record; None if none has come."""
        try:
            await asyncio.wait_for(self._first.wait(), FIRST_SECONDS)
        except TimeoutError:
            return None
        for _ in range(MAX_SILENCES):
            last = self._last
            await asyncio.sleep(SILENCE_SECONDS)
            if last == self._last:
                break
        return self._last

    async def _received(self, message: AbstractIncomingMessage) -> None:
        await message.ack()
        self._last = max(self._last, _offset(message))
        self._first.set()
        found = self._expected.pop(message.message_id or "", None)
        if found and not found.done():
            found.set_result(_offset(message))


async def _consume(connection: AbstractConnection, offset: int | str, received: Any) -> Any:
    """Consume the stream from an offset on. Returns the channel."""
    channel = await connection.channel()
    await channel.set_qos(prefetch_count=PREFETCH)
    stream = await channel.get_queue(DEAD_LETTERS, ensure=False)
    await stream.consume(received, arguments={OFFSET: offset})
    return channel


async def _read(
    connection: AbstractConnection, offset: int
) -> AsyncGenerator[AbstractIncomingMessage, None]:
    messages: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()
    channel = await _consume(connection, offset, messages.put)
    try:
        while True:
            try:
                message = await asyncio.wait_for(messages.get(), STALLED_SECONDS)
            except TimeoutError:
                raise Unreachable(f"it stopped sending records of {DEAD_LETTERS}") from None
            await message.ack()
            yield message
    finally:
        await channel.close()


def _message(body: bytes, headers: dict[str, Any], id: str) -> Message:
    content_type, correlation = headers.pop(CONTENT_TYPE, None), headers.pop(CORRELATION_ID, None)
    return Message(
        body,
        headers=headers,
        content_type=_short(content_type),
        correlation_id=_short(correlation),
        message_id=id,
        timestamp=datetime.now(UTC),
        delivery_mode=DeliveryMode.PERSISTENT,
    )


def _short(value: str | bytearray | None) -> str | None:
    """A property's text, which AMQP limits to 255 bytes."""
    if value is None:
        return None
    text = decoded(bytes(value)) if isinstance(value, bytearray) else value
    return text.encode()[:255].decode(errors="ignore")


def _offset(message: AbstractIncomingMessage) -> int:
    value: Any = message.headers[OFFSET]
    return int(value)


def _record(message: AbstractIncomingMessage) -> Record:
    return Record(
        str(_offset(message)),
        published_at(message),
        key_of(message),
        message.body,
        raw_headers(message),
    )
