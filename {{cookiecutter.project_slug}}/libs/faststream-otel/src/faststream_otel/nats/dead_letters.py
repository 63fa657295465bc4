"""Implements `DeadLetterStore` for NATS, in the stream of the dead letters.

There is one log. An id is a message's number in the stream. An ordered consumer reads, which the
server forgets afterwards, so the stream has no consumer lag.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self

from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig, DeliverPolicy, StreamState
from nats.js.errors import NotFoundError

from ..messages.broker import Headers, Unreachable
from ..messages.dead_letters import DEAD_LETTERS
from ..messages.dead_letters.dead_letter import DeadLetter, Record
from ..messages.dead_letters.headers import decoded_headers
from ..messages.dead_letters.store import send_attributes
from ..telemetry import semconv as messaging
from ..telemetry.values import Attributes
from .messages import (
    PUBLISH_TIMEOUT_SECONDS,
    key_of,
    own_headers,
    publish_errors,
    stream_of,
    with_key,
)
from .security import broker_errors, connected, servers
from .settings import NatsSettings
from .telemetry import NatsConventions

CLIENT = "dead-letters"
STALLED_SECONDS = 15.0
"""Reading fails after this time without a record, if the stream has more."""

_ID = re.compile("[1-9][0-9]{0,18}")


class NatsDeadLetters:
    """See `faststream_otel.messages.dead_letters.store.DeadLetterStore`."""

    def __init__(self, settings: NatsSettings) -> None:
        self._settings = settings
        self._open = AsyncExitStack()
        self._stream: JetStreamContext
        self._exists: dict[str, bool] = {}

    async def __aenter__(self) -> Self:
        self._stream = await self._open.enter_async_context(connected(self._settings, CLIENT))
        async with broker_errors(self._settings):
            await self._state()  # JetStream answers
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._open.aclose()

    async def exists(self, channel: str) -> bool:
        if channel not in self._exists:
            async with broker_errors(self._settings):
                try:
                    await self._stream.find_stream_name_by_subject(channel)
                except NotFoundError:
                    self._exists[channel] = False
                else:
                    self._exists[channel] = True
        return self._exists[channel]

    def order(self, id: str) -> tuple[str, int]:
        if _ID.fullmatch(id) is None:
            raise ValueError(f"{id} is not a number, such as 12")
        return DEAD_LETTERS, int(id)

    async def read(self, start: Mapping[str, str] | None = None) -> AsyncGenerator[Record, None]:
        if start is not None and DEAD_LETTERS not in start:
            return
        first = 1 if start is None else self.order(start[DEAD_LETTERS])[1]
        async with broker_errors(self._settings):
            state = await self._state()
            if state is None or not state.messages or first > state.last_seq:
                return
            async for message in self._messages(first, state.last_seq):
                yield _record(message)

    async def append(self, log: str, body: bytes, headers: Mapping[str, str]) -> str:
        async with broker_errors(self._settings):
            stored = await self._stream.publish(
                DEAD_LETTERS, body, timeout=PUBLISH_TIMEOUT_SECONDS, headers=dict(headers)
            )
        return str(stored.seq)

    async def send(
        self, channel: str, dead_letter: DeadLetter, headers: Headers
    ) -> "asyncio.Future[object]":
        # NATS has only text, and so had the message: it came from a NATS channel.
        text = with_key(decoded_headers(headers), dead_letter.record.key)
        with publish_errors():
            sent = await self._stream.publish_async(
                channel, dead_letter.body or b"", headers=text or None
            )
        return asyncio.ensure_future(_confirmed(sent))

    def attributes(self, channel: str, dead_letter: DeadLetter) -> tuple[Attributes, Attributes]:
        span = send_attributes(
            NatsConventions.system, servers(self._settings)[0], channel, dead_letter
        )
        link: Attributes = {
            messaging.MESSAGING_DESTINATION_NAME: DEAD_LETTERS,
            messaging.MESSAGING_MESSAGE_ID: dead_letter.id,
        }
        return span, link

    async def _state(self) -> StreamState | None:
        """The state of the stream; None if it does not exist."""
        try:
            return (await self._stream.stream_info(stream_of(DEAD_LETTERS))).state
        except NotFoundError:
            return None

    async def _messages(self, first: int, last: int) -> AsyncGenerator[Msg, None]:
        subscription: Any = await self._stream.subscribe(
            DEAD_LETTERS,
            stream=stream_of(DEAD_LETTERS),
            ordered_consumer=True,
            config=ConsumerConfig(
                deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=first
            ),
        )
        try:
            while True:
                try:
                    message: Msg = await subscription.next_msg(timeout=STALLED_SECONDS)
                except TimeoutError as error:
                    raise Unreachable(f"it stopped sending records of {DEAD_LETTERS}") from error
                number = message.metadata.sequence.stream
                if number <= last:
                    yield message
                # No more are pending if retention has deleted the last ones meanwhile.
                if number >= last or not message.metadata.num_pending:
                    return
        finally:
            await subscription.unsubscribe()


async def _confirmed(sent: "asyncio.Future[Any]") -> object:
    with publish_errors():
        return await asyncio.wait_for(sent, PUBLISH_TIMEOUT_SECONDS)


def _record(message: Msg) -> Record:
    return Record(
        str(message.metadata.sequence.stream),
        message.metadata.timestamp.timestamp(),
        key_of(message),
        message.data,
        tuple(own_headers(message)),
    )
