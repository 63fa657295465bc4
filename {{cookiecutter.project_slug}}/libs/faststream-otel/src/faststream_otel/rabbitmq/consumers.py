"""What a service's consumers get from RabbitMQ, and batches, which it does not have."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from aio_pika.abc import AbstractIncomingMessage
from anyio.to_thread import current_default_thread_limiter

from .messages import is_lost

MAX_BATCH = 100
BATCH_SECONDS = 0.2
"""How long the first message of a batch waits for others."""


class Consumer:
    """Counts the messages of one FastStream subscriber, one by one or in batches.

    Attributes:
        queue: Its queue.
        batch: Whether its handler takes batches.
        received: Number of messages that it received.
        settled: Number of messages that it is done with.
    """

    def __init__(self, queue: str, *, batch: bool) -> None:
        self.queue, self.batch = queue, batch
        self.received = self.settled = 0
        self._consume: Callable[[Any], Awaitable[Any]]
        self._one_at_a_time = asyncio.Lock()
        self._waiting: list[AbstractIncomingMessage] = []
        self._full = asyncio.Event()
        self._collecting: asyncio.Task[None] | None = None

    def attach(self, subscriber: Any) -> None:
        """Get the messages in place of the subscriber, before its start."""
        self._consume = subscriber.consume
        subscriber.consume = self._collect if self.batch else self._receive

    async def _receive(self, message: AbstractIncomingMessage) -> None:
        """Handle a message, in a task of its own: the client cancels this one when it loses its
        connection, and RabbitMQ delivers the message again. But a thread cannot be cancelled."""
        self.received += 1
        handling = asyncio.create_task(self._handle(message))
        try:
            await asyncio.shield(handling)
        except asyncio.CancelledError:
            message.lock()  # it can no longer be acknowledged
            if handling not in current_default_thread_limiter().statistics().borrowers:
                handling.cancel()
            raise

    async def _handle(self, message: AbstractIncomingMessage) -> None:
        try:
            async with self._one_at_a_time:
                if not is_lost(message):
                    await self._consume(message)
        finally:
            self.settled += 1

    async def _collect(self, message: AbstractIncomingMessage) -> None:
        self.received += 1
        self._waiting.append(message)
        if len(self._waiting) >= MAX_BATCH:
            self._full.set()
        if self._collecting is None or self._collecting.done():
            self._collecting = asyncio.create_task(self._handle_batches())

    async def _handle_batches(self) -> None:
        """Handle all that waits, a batch at a time.

        Not in the task of a message, which the client cancels when it loses its connection.
        """
        while self._waiting:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._full.wait(), BATCH_SECONDS)
            collected, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
            if len(self._waiting) < MAX_BATCH:
                self._full.clear()
            # RabbitMQ delivers the messages of a closed channel again.
            batch = tuple(one for one in collected if not is_lost(one))
            try:
                if batch:
                    await self._consume(batch)
            finally:
                self.settled += len(collected)
