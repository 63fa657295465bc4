"""NATS JetStream: reads each channel's stream. An id is a sequence number of the stream."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import nats
from nats.aio.msg import Msg
from nats.errors import Error
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig, DeliverPolicy
from nats.js.errors import NotFoundError

from ..accounting import Position, Record, Unread
from ..channels import Ends, Message
from ..flow import CONSUMERS

TIMEOUT_SECONDS = 20.0
AT_ONCE = 100  # publications without an answer
KEY = "key"
"""The services' header with the key of a message: NATS has none."""

Result = TypeVar("Result")


class InNats:
    """See `Channels`. It has only consumers of its own, which acknowledge nothing."""

    def __init__(self, address: str) -> None:
        self.address = address

    def prepare(self) -> None:
        """Streams are read without preparation."""

    def ends(self) -> dict[tuple[str, str], int]:
        return self._asked(_ends)

    def read(self, since: Ends) -> list[Record]:
        async def read(stream: JetStreamContext) -> list[Record]:
            return [
                _record(message)
                for (name, _), end in (await _ends(stream)).items()
                for message in await _messages(stream, name, since.get((name, ""), 0), end)
            ]

        return self._asked(read)

    def unread(self) -> Unread:
        async def unread(stream: JetStreamContext) -> Unread:
            found: dict[tuple[str, str], int] = {}
            # In the order of the flow, so that what followed from a message is seen after it.
            for channel, service in CONSUMERS.items():
                try:
                    name = await stream.find_stream_name_by_subject(channel)
                    durable = f"{service}-{channel.replace('.', '_')}"
                    consumer = await stream.consumer_info(name, durable)
                except NotFoundError:
                    continue
                found[channel, ""] = (consumer.num_pending or 0) + (consumer.num_ack_pending or 0)
            return found

        return self._asked(unread)

    def send(self, messages: Sequence[Message], compression: str = "none") -> list[Position]:
        async def send(stream: JetStreamContext) -> list[Position]:
            found: list[Position] = []
            for first in range(0, len(messages), AT_ONCE):
                some = messages[first : first + AT_ONCE]
                answers = await asyncio.gather(*(_publish(stream, one) for one in some))
                found += [
                    (message.channel, str(answer))
                    for message, answer in zip(some, answers, strict=True)
                ]
            return found

        return self._asked(send)

    def carries(self, message: Message) -> bool:
        names = [name for name, _ in message.headers]
        return (
            message.value is not None
            and all(names)
            and len({*names}) == len(names)
            and all(value is not None and value.isascii() for _, value in message.headers)
        )

    def id_of(self, attributes: Mapping[str, Any]) -> str:
        return str(attributes.get("messaging.message.id", ""))

    def _asked(self, ask: Callable[[JetStreamContext], Awaitable[Result]]) -> Result:
        """Ask with a connection of its own. The client's errors become OSError."""

        async def asked() -> Result:
            async with _connected(self.address) as stream:
                return await ask(stream)

        try:
            return asyncio.run(asked())
        except (Error, TimeoutError) as error:
            raise OSError(f"{self.address}: {type(error).__name__} {error}") from error


@asynccontextmanager
async def _connected(address: str) -> AsyncIterator[JetStreamContext]:
    async def ignore(error: Exception) -> None:
        """Every call raises its own error."""

    client = await nats.connect(
        f"nats://{address}",
        allow_reconnect=False,
        max_reconnect_attempts=1,  # without it, two minutes pass before the first error
        reconnect_time_wait=0,
        connect_timeout=5,
        error_cb=ignore,
    )
    try:
        yield client.jetstream(timeout=TIMEOUT_SECONDS)
    finally:
        await client.close()


async def _ends(stream: JetStreamContext) -> dict[tuple[str, str], int]:
    """Return the last sequence number of each stream."""
    return {(str(one.config.name), ""): one.state.last_seq for one in await stream.streams_info()}


async def _messages(stream: JetStreamContext, name: str, after: int, end: int) -> list[Msg]:
    """Return the messages of a stream between two sequence numbers, without the first."""
    if end <= after:
        return []
    (subject, *_) = (await stream.stream_info(name)).config.subjects or [""]
    subscription = await stream.subscribe(
        subject,
        stream=name,
        ordered_consumer=True,
        config=ConsumerConfig(
            deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=after + 1
        ),
        pending_bytes_limit=-1,
        pending_msgs_limit=-1,
    )
    found: list[Msg] = []
    try:
        while not found or found[-1].metadata.sequence.stream < end:
            found.append(await subscription.next_msg(TIMEOUT_SECONDS))
    finally:
        await subscription.unsubscribe()
    return found


async def _publish(stream: JetStreamContext, message: Message) -> int:
    headers = {name: (value or b"").decode() for name, value in message.headers}
    if message.key is not None:
        headers[KEY] = message.key.decode()
    answer = await stream.publish(message.channel, message.value or b"", headers=headers)
    return int(answer.seq)


def _record(message: Msg) -> Record:
    headers = message.headers or {}
    return Record(
        message.subject,
        str(message.metadata.sequence.stream),
        message.metadata.timestamp.timestamp(),
        message.data,
        headers,
        headers[KEY].encode() if KEY in headers else None,
        [(name, value.encode()) for name, value in headers.items() if name != KEY],
    )
