"""Detects stalled consumers."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from .broker import Broker, Progress


class Consumers:
    """Watches the consumers of a service.

    A consumer is stalled while it is not attached to the broker, takes nothing of what the broker
    has for it, or takes the same messages again and again, unless its handler asks for that. A
    message that is being handled may take as long as the retry policy allows.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._known: dict[str, _Consumer] = {}
        self._away = False
        self._question: asyncio.Task[bool] | None = None

    @contextmanager
    def busy(self, channel: str, seconds: float) -> Iterator[None]:
        """While a message of this channel is handled, which may take so long."""
        consumer = self._consumer(channel)
        consumer.busy_until = time.monotonic() + seconds
        try:
            yield
        finally:
            consumer.busy_until = None

    def postponed(self, channel: str) -> None:
        """A handler asked for its message again later: its consumer is not stalled."""
        self._consumer(channel).since = time.monotonic()

    async def ready(self) -> bool:
        """Whether messages are consumed and can be published."""
        return self._running and self._broker.joined() and await self._answers()

    async def stalled(self) -> dict[str, float]:
        """Name the stalled consumers, each with the seconds since its last progress.

        Empty while the broker does not answer: no restart of the service would help.
        """
        if self._running and (not self._away or await self._is_there()):
            stalled = await self._without_progress()
            # Asked only now: the answer may list everything that the broker has.
            self._away = bool(stalled) and not await self._is_there()
            if not self._away:
                return stalled
        now = time.monotonic()
        for consumer in self._known.values():
            consumer.since = now
        return {}

    @property
    def _running(self) -> bool:
        return bool(self._broker.faststream.running)

    def _consumer(self, channel: str) -> "_Consumer":
        return self._known.setdefault(channel, _Consumer(time.monotonic()))

    async def _answers(self) -> bool:
        # One question at a time, and never taken back: where it gets no answer at all, the client's
        # own time-out gives the connection up, and a new one takes its place.
        if self._question is None or self._question.done():
            self._question = asyncio.create_task(self._broker.answers())
        answered, _ = await asyncio.wait({self._question}, timeout=ANSWER_SECONDS)
        return bool(answered) and self._question.result()

    async def _is_there(self) -> bool:
        return await self._answers() or await self._broker.answers_anew()

    async def _without_progress(self) -> dict[str, float]:
        found = await self._broker.progress()
        now = time.monotonic()
        stalled = {}
        for channel, progress in found.items():
            consumer = self._consumer(channel)
            has_work = progress.waiting or consumer.busy_until is not None
            if progress != consumer.last or (progress.attached and not has_work):
                consumer.last = progress
                consumer.since = now
            since = max(consumer.since, consumer.busy_until or 0)
            if now - since > 1:
                stalled[f"the consumer of {channel}"] = now - since
        return stalled


ANSWER_SECONDS = 2.0
"""In which a broker that is there answers a question about itself."""


@dataclass
class _Consumer:
    """What is known of one consumer; times are those of the monotonic clock."""

    since: float
    """When it last made progress."""
    busy_until: float | None = None
    last: Progress | None = None
