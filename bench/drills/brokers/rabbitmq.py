"""RabbitMQ: a tap on the exchanges keeps what they passed on. An id is a message's own id.

A queue forgets a message that was acknowledged. So a stream queue of the drills is bound to the
exchange of each channel, before the first message.
"""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

import aio_pika
from aio_pika.abc import AbstractConnection, AbstractIncomingMessage, DeliveryMode
from aiormq.exceptions import AMQPError, ChannelNotFoundEntity

from ..accounting import Position, Record, Unread
from ..channels import Ends, Message
from ..flow import CONSUMERS, DEAD_LETTERS, PRODUCERS, group

TIMEOUT_SECONDS = 20.0
AT_ONCE = 200  # publications without a confirmation, and messages without an acknowledgement
USER = "services"
TAP = "drills"
END = "drills-end"
"""Type of messages that mark the end of the tap."""
OFFSET = "x-stream-offset"
SENT_AT = "published-at"
"""The services' header with the milliseconds of a publication: the property has whole seconds."""
KEY = "key"
"""The services' header with the key of a message: AMQP has none."""
CONTENT_TYPE = "content-type"

Control = Callable[..., str]
"""Runs rabbitmqctl with these arguments, and returns its output."""
Result = TypeVar("Result")


class InRabbit:
    """See `Channels`.

    Args:
        control: The protocol tells the number of messages that are ready, not of those in flight.
    """

    def __init__(self, address: str, password: str, control: Control) -> None:
        self.address = address
        self._url = f"amqp://{USER}:{password}@{address}/"
        self._control = control

    def prepare(self) -> None:
        async def prepare(connection: AbstractConnection) -> None:
            async with connection.channel() as channel:
                stream: dict[str, Any] = {"x-queue-type": "stream"}
                await channel.declare_queue(TAP, durable=True, arguments=stream)
            for name in {*CONSUMERS, *PRODUCERS, DEAD_LETTERS}:
                with suppress(ChannelNotFoundEntity):
                    await _bind(connection, name)

        self._asked(prepare)

    def ends(self) -> Ends:
        async def ends(connection: AbstractConnection) -> Ends:
            return {(TAP, ""): await _marked(connection)}

        return self._asked(ends)

    def read(self, since: Ends) -> list[Record]:
        async def read(connection: AbstractConnection) -> list[Record]:
            end = await _marked(connection)
            found = await _between(connection, since.get((TAP, ""), 0), end)
            return [_record(message) for message in found if message.type != END]

        return self._asked(read)

    def unread(self) -> Unread:
        """See `Channels`.

        A message that a consumer receives between the two questions of one look is in neither
        answer. So nothing is unread only if that is the result of two looks: a message is handled
        much faster than that, or fails and is in flight for seconds.
        """
        for _ in range(2):
            found = self._look()
            if any(found.values()):
                break
        return found

    def _look(self) -> Unread:
        queues = {group(channel): channel for channel in CONSUMERS}

        async def ready(connection: AbstractConnection) -> dict[str, int]:
            found = {}
            for queue in queues:
                with suppress(ChannelNotFoundEntity):
                    found[queue] = await _ready(connection, queue)
            return found

        waiting = self._asked(ready)
        for queue, count in self._in_flight():
            if queue in waiting:
                waiting[queue] += count
        return {(queues[queue], ""): count for queue, count in waiting.items()}

    def _in_flight(self) -> list[tuple[str, int]]:
        """Return the messages in flight of each consumer, with its queue.

        What RabbitMQ tells by queue is some seconds old; what it tells by AMQP channel is not.
        """
        channels = self._table("list_channels", "pid", "messages_unacknowledged")
        consumers = self._table("list_consumers", "queue_name", "channel_pid")
        queues = {one["channel_pid"]: one["queue_name"] for one in consumers}
        return [
            (queues.get(one["pid"], ""), int(one["messages_unacknowledged"])) for one in channels
        ]

    def _table(self, command: str, *columns: str) -> list[dict[str, Any]]:
        try:
            answer = self._control("--quiet", command, "--formatter", "json", *columns)
            rows: list[dict[str, Any]] = json.loads(answer)
        except (AssertionError, ValueError) as error:
            raise OSError(f"rabbitmqctl {command}: {error}") from error
        return rows

    def send(self, messages: Sequence[Message], compression: str = "none") -> list[Position]:
        async def send(connection: AbstractConnection) -> list[Position]:
            positions = [(one.channel, str(uuid.uuid4())) for one in messages]
            async with connection.channel(on_return_raises=True) as channel:
                names = {name for name, _ in positions}
                exchanges = {name: await channel.get_exchange(name) for name in names}
                every = [
                    (exchanges[name], _message(message, identity))
                    for message, (name, identity) in zip(messages, positions, strict=True)
                ]
                for first in range(0, len(every), AT_ONCE):
                    some = every[first : first + AT_ONCE]
                    await asyncio.gather(
                        *(exchange.publish(message, routing_key="") for exchange, message in some)
                    )
            return positions

        return self._asked(send)

    def carries(self, message: Message) -> bool:
        names = [name for name, _ in message.headers]
        return message.value is not None and len({*names}) == len(names)

    def id_of(self, attributes: Mapping[str, Any]) -> str:
        return str(attributes.get("messaging.message.id", ""))

    def _asked(self, ask: Callable[[AbstractConnection], Awaitable[Result]]) -> Result:
        """Ask with a connection of its own. The client's errors become OSError."""

        async def asked() -> Result:
            async with await aio_pika.connect(self._url, timeout=TIMEOUT_SECONDS) as connection:
                return await ask(connection)

        try:
            return asyncio.run(asked())
        except (AMQPError, TimeoutError) as error:
            raise OSError(f"{self.address}: {type(error).__name__} {error}") from error


# Each question has an AMQP channel of its own: an error closes it.


async def _bind(connection: AbstractConnection, exchange: str) -> None:
    async with connection.channel() as channel:
        await (await channel.get_queue(TAP)).bind(exchange)


async def _ready(connection: AbstractConnection, queue: str) -> int:
    async with connection.channel() as channel:
        declared = await channel.declare_queue(queue, passive=True)
        return declared.declaration_result.message_count or 0


async def _marked(connection: AbstractConnection) -> int:
    """Send a message to the tap alone; return its offset."""
    mark = aio_pika.Message(b"", message_id=str(uuid.uuid4()), type=END)
    async with _deliveries(connection, "next") as deliveries, connection.channel() as channel:
        await channel.default_exchange.publish(mark, TAP)
        while True:
            message = await asyncio.wait_for(deliveries.get(), TIMEOUT_SECONDS)
            if message.message_id == mark.message_id:
                return _offset(message)


async def _between(
    connection: AbstractConnection, start: int, end: int
) -> list[AbstractIncomingMessage]:
    """Return the messages of the tap from an offset on, up to another."""
    found: list[AbstractIncomingMessage] = []
    if start < end:
        async with _deliveries(connection, start) as deliveries:
            while not found or _offset(found[-1]) < end - 1:
                found.append(await asyncio.wait_for(deliveries.get(), TIMEOUT_SECONDS))
    return [one for one in found if start <= _offset(one) < end]


@asynccontextmanager
async def _deliveries(
    connection: AbstractConnection, start: str | int
) -> AsyncIterator[asyncio.Queue[AbstractIncomingMessage]]:
    """Consume the tap from an offset, or from `next`."""
    deliveries: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()

    async def deliver(message: AbstractIncomingMessage) -> None:
        await message.ack()  # only a credit: a stream keeps its messages
        deliveries.put_nowait(message)

    async with connection.channel() as channel:
        await channel.set_qos(prefetch_count=AT_ONCE)
        queue = await channel.declare_queue(TAP, passive=True)
        await queue.consume(deliver, arguments={OFFSET: start})
        yield deliveries


def _message(message: Message, identity: str) -> aio_pika.Message:
    headers = dict(message.headers)
    content_type = headers.pop(CONTENT_TYPE, None)
    if message.key is not None:
        headers[KEY] = message.key
    return aio_pika.Message(
        message.value or b"",
        headers={name: _text(value) for name, value in headers.items()},
        content_type=content_type.decode() if content_type else None,
        message_id=identity,
        timestamp=time.time(),
        delivery_mode=DeliveryMode.PERSISTENT,
    )


def _text(value: bytes | None) -> Any:
    """A text if it can be one: the services' own headers are."""
    try:
        return value.decode() if value is not None else None
    except UnicodeDecodeError:
        return bytearray(value or b"")  # the client takes no bytes


def _offset(message: AbstractIncomingMessage) -> int:
    offset: Any = message.headers[OFFSET]
    return int(offset)


def _record(message: AbstractIncomingMessage) -> Record:
    # What AMQP has as properties, the services have as headers.
    properties = {CONTENT_TYPE: message.content_type, "correlation_id": message.correlation_id}
    given = {name: value for name, value in properties.items() if value} | message.headers
    exact = [
        (name, _bytes(value))
        for name, value in given.items()
        if name not in {KEY, SENT_AT, OFFSET}  # these are not the sender's
    ]
    return Record(
        message.exchange or "",
        message.message_id or f"offset {_offset(message)}",
        _published_at(message),
        message.body,
        {name: (value or b"").decode(errors="replace") for name, value in exact},
        _bytes(message.headers.get(KEY)),
        exact,
    )


def _published_at(message: AbstractIncomingMessage) -> float:
    """Unix seconds."""
    if milliseconds := message.headers.get(SENT_AT):
        return float(str(milliseconds)) / 1000
    return message.timestamp.timestamp() if message.timestamp else 0.0


def _bytes(value: Any) -> bytes | None:
    if value is None:
        return None
    return bytes(value) if isinstance(value, (bytes, bytearray)) else str(value).encode()
