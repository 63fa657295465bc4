"""Detects stalled consumers."""

import asyncio
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass

from .broker import Broker, Progress


class Consumers:
    """Watches the consumers of a service.

    A consumer is stalled while it is not attached to the broker, does not consume messages that
    are waiting, or gets the same messages redelivered without end. It is not stalled if its handler
    asks for the redelivery, nor while a message takes as long as the retry policy allows.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._known: dict[str, _Consumer] = {}
        self._broker_unreachable = False
        self._probe: asyncio.Task[bool] | None = None

    def busy(self, channel: str, seconds: float) -> AbstractContextManager[None]:
        """A context around handling a message of this channel, which may take this long."""
        consumer = self._consumer(channel)
        consumer.busy_until = time.monotonic() + seconds
        return consumer

    def postponed(self, channel: str) -> None:
        """Call this when a handler asks for a redelivery: its consumer is not stalled."""
        self._consumer(channel).since = time.monotonic()

    async def ready(self) -> bool:
        """Whether messages are consumed and can be published."""
        return self._running and self._broker.joined() and await self._answers()

    async def stalled(self) -> dict[str, float]:
        """The stalled consumers, each with the seconds since its last progress.

        Empty while the broker is unreachable: a restart of the service would not help.
        """
        if self._running and (not self._broker_unreachable or await self._broker_reachable()):
            stalled = await self._without_progress()
            # Asked only if a consumer is stalled: the question is expensive for the broker.
            self._broker_unreachable = bool(stalled) and not await self._broker_reachable()
            if not self._broker_unreachable:
                return stalled
        now = time.monotonic()
        for consumer in self._known.values():
            consumer.since = now
        return {}

    @property
    def _running(self) -> bool:
        return bool(self._broker.faststream.running)

    def _consumer(self, channel: str) -> "_Consumer":
        if (known := self._known.get(channel)) is None:
            known = self._known[channel] = _Consumer(time.monotonic())
        return known

    async def _answers(self) -> bool:
        # One probe at a time, and never cancelled: without an answer, the client's own time-out
        # closes the connection, and the client opens a new one.
        if self._probe is None or self._probe.done():
            self._probe = asyncio.create_task(self._broker.answers())
        answered, _ = await asyncio.wait({self._probe}, timeout=ANSWER_SECONDS)
        return bool(answered) and self._probe.result()

    async def _broker_reachable(self) -> bool:
        return await self._answers() or await self._broker.answers_new_client()

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
"""Time in which a reachable broker answers a probe."""


@dataclass
class _Consumer(AbstractContextManager[None]):
    """The last known state of one consumer. Times are those of the monotonic clock.

    It is busy until its context ends.
    """

    since: float
    """Time of its last progress."""
    busy_until: float | None = None
    last: Progress | None = None

    def __exit__(self, *_: object) -> None:
        self.busy_until = None
