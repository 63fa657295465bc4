"""Commits the offsets of handled messages at intervals, where FastStream sends a request for each.

They are committed at most `COMMIT_SECONDS` after their messages were acknowledged, before the
partitions go to another consumer, and at the stop; from then on, each one at once. If a process is
killed, the messages that it handled since the last commit are delivered again, and none is lost.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import Context
from typing import Any, cast

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from faststream.kafka import KafkaMessage

from .messages import parse

COMMIT_SECONDS = 1.0
REQUEST_SECONDS = 10.0
"""Limit of one commit. It is tried again after `COMMIT_SECONDS`."""
LAST_SECONDS = 3.0
"""Limit of the last commit, at a stop or before partitions are revoked."""
IN_FLIGHT_SECONDS = 1.0
"""How long a rebalance waits for the message in flight, so that it is not delivered again."""

logger = logging.getLogger(__name__)


class Offsets(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types
    """The offsets of one FastStream subscriber that handles its messages one after the other.

    Pass it to the subscriber as `listener`, and `parse` as `parser`.

    Attributes:
        at_once: Whether each message is committed as soon as it is acknowledged.

    Args:
        listener: Also notified of rebalances. Its methods must not be coroutine functions.
    """

    def __init__(self, listener: ConsumerRebalanceListener) -> None:
        self.at_once = False
        self._listener = listener
        self._consumer: _Consumer | None = None
        # The next offset of each partition: of what was delivered, and of what is done.
        self._delivered: dict[TopicPartition, int] = {}
        self._done: dict[TopicPartition, int] = {}
        self._settled = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._request: asyncio.Task[None] | None = None
        self._requested = 0.0
        self._failing = False

    @property
    def pending(self) -> bool:
        """Whether a delivered message is not acknowledged, or an acknowledged one not committed."""
        return bool(self._delivered or self._done)

    async def parse(self, message: Any, parser: Callable[[Any], Awaitable[Any]]) -> KafkaMessage:
        """Like `messages.parse`; an acknowledgement of the message is then recorded here."""
        parsed = cast("KafkaMessage", await parse(message, parser))
        consumer = parsed.consumer
        if self._consumer is None or self._consumer.real is not consumer:
            if not isinstance(consumer, AIOKafkaConsumer):
                return parsed  # in memory
            self._consumer = _Consumer(self, consumer)
        parsed.consumer = self._consumer
        records = parsed.raw_message
        for record in records if isinstance(records, tuple) else (records,):
            self._delivered[TopicPartition(record.topic, record.partition)] = record.offset + 1
        return parsed

    async def acknowledged(self) -> None:
        """Mark everything that was delivered as done, except what is redelivered."""
        self._done |= self._delivered
        self._delivered.clear()
        self._settled.set()
        now = asyncio.get_running_loop().time()
        if self.at_once:
            await self.commit()
        elif self._request is not None and now - self._requested > COMMIT_SECONDS:
            # The broker is slow or down: what could be redelivered must not grow.
            await asyncio.wait({self._request})
        else:
            self._commit_later()

    def redelivered(self, partition: TopicPartition) -> None:
        """The partition is set back to the message that was delivered last."""
        self._delivered.pop(partition, None)
        self._settled.set()
        if self._done:
            self._start()  # the consumer may stop now: `StopConsume`

    async def commit(self) -> None:
        """Commit what is done, within `LAST_SECONDS`. Logs failures."""
        ends = asyncio.get_running_loop().time() + LAST_SECONDS
        while self._done or self._request:
            request = self._start()
            left = ends - asyncio.get_running_loop().time()
            await asyncio.wait({request}, timeout=max(left, 0))
            if self._failing or not request.done():
                return

    async def stop(self) -> None:
        """Commit what is done, and from now on each message at once."""
        self.at_once = True
        await self.commit()

    def reset(self) -> None:
        """Forget the consumer, after its stop or before its start."""
        self.at_once = False
        self._forget()
        self._consumer = None
        if self._request:
            self._request.cancel()
            self._request = None

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        self._listener.on_partitions_revoked(revoked)
        if self._delivered:
            self._settled = asyncio.Event()
            with suppress(TimeoutError):  # aiokafka delivers nothing meanwhile
                await asyncio.wait_for(self._settled.wait(), IN_FLIGHT_SECONDS)
        await self.commit()
        self._forget()

    def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        self._listener.on_partitions_assigned(assigned)

    def _forget(self) -> None:
        # What is in flight is redelivered. Without this, its acknowledgement would set back a
        # partition that has progressed, or without one, the next acknowledgement of another
        # partition would commit it.
        self._delivered.clear()
        self._done = {}  # a request that is running has the old one
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def _commit_later(self) -> None:
        if self._timer is None and self._request is None:
            # An empty context: the current one has the message, which would stay in memory.
            self._timer = asyncio.get_running_loop().call_later(
                COMMIT_SECONDS, self._start, context=Context()
            )

    def _start(self) -> asyncio.Task[None]:
        """Start a request, unless one is running."""
        if self._timer:
            self._timer.cancel()
            self._timer = None
        if self._request is None:
            loop = asyncio.get_running_loop()
            self._requested = loop.time()
            self._request = loop.create_task(self._commit(), context=Context())
        return self._request

    async def _commit(self) -> None:
        done, consumer = self._done, self._consumer
        assert consumer
        try:
            # A message may outlive a rebalance; then its partition belongs to another consumer.
            for one in done.keys() - consumer.real.assignment():
                del done[one]
            if sent := done.copy():
                async with asyncio.timeout(REQUEST_SECONDS):
                    await consumer.real.commit(sent)
            for one, offset in sent.items():
                if done.get(one) == offset:  # nothing was added meanwhile
                    del done[one]
            self._failing = False
        except Exception as error:
            if not self._failing:
                logger.warning(
                    "Offsets of handled messages cannot be committed now. If the service ends"
                    " before they are, these messages are delivered again: %s",
                    str(error) or type(error).__name__,
                )
            self._failing = True
        finally:
            self._request = None
            if self._done:
                self._commit_later()


class _Consumer:
    """Replaces aiokafka's consumer in FastStream's messages, whose `ack` calls `commit`."""

    def __init__(self, offsets: Offsets, real: AIOKafkaConsumer) -> None:
        self.real = real
        self._offsets = offsets

    async def commit(self, offsets: Any = None) -> None:
        if offsets is None:
            await self._offsets.acknowledged()
        else:  # a handler's own
            await self.real.commit(offsets)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self._offsets.redelivered(partition)
        self.real.seek(partition, offset)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)
