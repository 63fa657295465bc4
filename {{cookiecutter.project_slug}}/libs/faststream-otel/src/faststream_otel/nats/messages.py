"""Implements `Messages` for NATS JetStream: reads any message, and publishes to streams.

NATS has no key. The library carries it in the header `key`, so that it survives the dead letters.
NATS keeps headers as text. The client delivers only the last of several with the same name.
"""

import asyncio
import copy
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import Context
from types import TracebackType
from typing import Any, cast

from faststream import PublishCommand
from faststream.exceptions import IncorrectState, RejectMessage
from faststream.message import StreamMessage
from faststream.nats import NatsBroker
from nats.aio.msg import Msg
from nats.errors import (
    BadHeaderError,
    BadSubjectError,
    Error,
    MaxPayloadError,
    NotJSMessageError,
)
from nats.js.errors import APIError, NoStreamResponseError

from ..messages.broker import Headers, NotSent, Raw, TooLarge, Unavailable
from ..messages.confirmation import Confirmation
from ..telemetry.values import decoded

PUBLISH_TIMEOUT_SECONDS = 5.0
MAX_MESSAGE_BYTES = 2 * 1_048_576
MAX_DEAD_LETTER_BYTES = MAX_MESSAGE_BYTES + 65_536
"""A dead letter is a message of the maximum size, plus the headers that say what happened."""
ACK_WAIT_SECONDS = 30.0
"""After this time without a heartbeat, the server redelivers a message. The server's default."""
ASK_AGAIN_SECONDS = 60.0
"""Time between two queries for a consumer's `ack_wait`, if the server does not answer."""
KEY = "key"
RESERVED = "Nats-"
"""Such headers tell the server what to do with a publication, such as to drop a repeated one."""

UNREACHABLE: tuple[type[Exception], ...] = (Error, IncorrectState, OSError)
"""Exceptions that the client raises while the broker is unreachable."""

_TOO_LARGE = (10054, 10097)
"""Codes of the server's errors: the message, or its headers, are larger than it stores."""


class NoChannel(Error):
    """There is no stream for a channel. Retrying helps once it has been created."""

    def __init__(self, channel: str) -> None:
        super().__init__(
            f"no stream stores the channel {channel}: `faststream-otel channels` creates the"
            " channels of a project"
        )


@contextmanager
def publish_errors() -> Iterator[None]:
    """Convert the client's errors to TooLarge, NotSent or Unavailable."""
    try:
        yield
    except (BadHeaderError, BadSubjectError):
        raise  # the message is wrong, not the broker
    except MaxPayloadError as error:
        raise TooLarge("it is larger than the server's max_payload") from error
    except NoStreamResponseError as error:
        channel = getattr(error.__context__, "subject", "")
        raise NotSent(str(NoChannel(channel))) from error
    except APIError as error:
        kind = TooLarge if error.err_code in _TOO_LARGE else Unavailable
        raise kind(error.description or str(error)) from error
    except UNREACHABLE as error:
        raise Unavailable(f"{type(error).__name__}: {error}") from error


def stream_of(channel: str) -> str:
    """The name of a channel's stream, which may not have dots."""
    return channel.replace(".", "_")


def sequence(message: Msg) -> int | None:
    """The message's number in its stream; None for a message of core NATS."""
    try:
        return message.metadata.sequence.stream
    except NotJSMessageError:
        return None


def own_headers(message: Msg) -> Headers:
    """The headers of a message without its key, and without those that are for the server."""
    return [
        (name, value.encode())
        for name, value in (message.headers or {}).items()
        if name != KEY and not name.startswith(RESERVED)
    ]


def key_of(message: Msg) -> bytes | None:
    key = (message.headers or {}).get(KEY)
    return None if key is None else key.encode()


def with_key(headers: dict[str, str], key: bytes | None) -> dict[str, str]:
    """Headers for a message with this key."""
    return headers if key is None else {**headers, KEY: decoded(key)}


class NatsMessages:
    """See `faststream_otel.messages.broker.Messages`."""

    takes_options = True
    any_headers = False
    # The limit of channels that we create, then one below the server's default of 1 MB.
    dead_letter_sizes: Sequence[int] = (MAX_MESSAGE_BYTES, 900_000, 0)

    def __init__(self, broker: NatsBroker | None = None) -> None:
        self._broker = broker
        self._ack_waits: dict[tuple[str, str], float] = {}
        self._ask_again: dict[tuple[str, str], float] = {}

    @property
    def faststream(self) -> NatsBroker:
        """FastStream's broker."""
        assert self._broker, "call `build` first"
        return self._broker

    def channel(self, message: StreamMessage[Any]) -> str:
        return _all(message)[0].subject

    def sent_to(self, command: PublishCommand) -> str:
        return command.destination

    def count(self, message: StreamMessage[Any]) -> int:
        return len(_all(message))

    def raw(self, message: StreamMessage[Any]) -> Raw:
        first = _all(message)[0]
        number = sequence(first)
        return Raw(
            channel=first.subject,
            id=message.message_id if number is None else str(number),
            key=key_of(first),
            body=first.data,
            headers=own_headers(first),
        )

    @asynccontextmanager
    async def in_flight(self, message: StreamMessage[Any]) -> AsyncIterator[None]:
        messages = _all(message)
        with _InProgress(messages, await self._ack_wait(messages[0]) / 3):
            try:
                yield
            except asyncio.CancelledError:
                # The service stops: its next instance gets the message at once, before newer ones.
                if message.committed is None:
                    with suppress(*UNREACHABLE):
                        await message.nack()
                raise

    async def _ack_wait(self, message: Msg) -> float:
        """The consumer's `ack_wait`, which may differ from ours if the consumer already existed."""
        try:
            consumer = (message.metadata.stream, message.metadata.consumer)
        except NotJSMessageError:
            return ACK_WAIT_SECONDS
        found = self._ack_waits.get(consumer)
        if found is None:
            found = ACK_WAIT_SECONDS
            now = asyncio.get_running_loop().time()
            if now < self._ask_again.get(consumer, 0):
                return found
            # Not for each message: a user without the permission to ask gets no answer.
            self._ask_again[consumer] = now + ASK_AGAIN_SECONDS
            with suppress(*UNREACHABLE):
                stream = self.faststream.connection.jetstream()
                info = await stream.consumer_info(*consumer, timeout=1)
                found = self._ack_waits[consumer] = info.config.ack_wait or ACK_WAIT_SECONDS
        return found

    def confirmation(self) -> Confirmation:
        return Confirmation(PUBLISH_TIMEOUT_SECONDS, publish_errors)

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
        async with self.confirmation():
            await self.faststream.publish(
                body,
                channel,
                headers=with_key(headers, key),
                correlation_id=correlation_id,
                stream=stream_of(channel),
                timeout=PUBLISH_TIMEOUT_SECONDS,
            )

    def singles(self, message: StreamMessage[Any]) -> list[StreamMessage[Any]]:
        messages = _all(message)
        if len(messages) == 1:
            return [message]
        batch = cast("Any", message)
        singles = []
        for position, one in enumerate(messages):
            single = copy.copy(batch)
            single.raw_message = [one]
            single.body = [batch.body[position]]
            single.batch_headers = [batch.batch_headers[position]]
            single.headers = single.batch_headers[0]
            single.correlation_id = single.headers.get("correlation_id", batch.correlation_id)
            single.content_type = single.headers.get("content-type")
            single.message_id = str(sequence(one))
            singles.append(single)
        return singles


def _all(message: StreamMessage[Any]) -> Sequence[Msg]:
    raw = message.raw_message
    messages: Sequence[Msg] = raw if isinstance(raw, list) else (raw,)
    return messages


class _InProgress:
    """Keeps telling the server that messages are being handled, so that it does not redeliver them.

    Uses a timer rather than a task: few messages take long enough to need it.
    """

    def __init__(self, messages: Sequence[Msg], seconds: float) -> None:
        self._messages, self._seconds = messages, seconds
        self._telling: asyncio.Task[None] | None = None

    def __enter__(self) -> None:
        self._wait()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        if self._telling:
            self._telling.cancel()

    def _wait(self) -> None:
        loop = asyncio.get_running_loop()
        # An empty context: the loop keeps a cancelled timer, with its context, until it would fire.
        self._timer = loop.call_later(self._seconds, self._start, context=Context())

    def _start(self) -> None:
        self._telling = asyncio.create_task(self._tell())
        self._wait()

    async def _tell(self) -> None:
        for message in self._messages:
            if not message.is_acked:
                with suppress(*UNREACHABLE):
                    await message.in_progress()


async def parse(message: Any, parser: Callable[[Any], Awaitable[Any]]) -> StreamMessage[Any]:
    """Parse a message or a batch. Its id is its number in the stream: the sender cannot set it."""
    parsed = cast("StreamMessage[Any]", await parser(message))
    number = sequence(_all(parsed)[0])
    if number is not None:
        parsed.message_id = str(number)
    return parsed
