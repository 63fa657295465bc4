"""A service whose handlers a test chooses, and the messages that it received."""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

from faststream import BaseMiddleware
from faststream.message import StreamMessage
from faststream_otel.messages.broker import Broker, Raw

from .features import Features, Row

Handler = Callable[[Any], Awaitable[None]]


async def nothing(body: Any) -> None:
    """A handler that does nothing."""


class Rig:
    """One instance of a service.

    Attributes:
        broker: The service's broker.
        url: The broker's URL.
        seen: The delivered messages by channel, in order.

    Args:
        service: The service's name. Default: a unique one.
        middlewares: The broker's middlewares, outside of the one that records messages.
    """

    def __init__(
        self,
        row: Row,
        url: str,
        service: str = "",
        middlewares: Callable[[Broker], Sequence[Any]] = lambda _: (),
    ) -> None:
        self.row, self.url = row, url
        self.service = service or f"rig-{uuid4().hex[:8]}"
        self.broker: Broker = row.settings(broker_url=url).broker()  # type: ignore[call-arg]
        self.seen: dict[str, list[StreamMessage[Any]]] = defaultdict(list)
        self._handlers: dict[str, Handler] = {}
        self.broker.build(
            self.service,
            [*middlewares(self.broker), self._watch],
            drain_seconds=0.2,
            busy=lambda _: 10.0,
        )

    def named(self, channel: str) -> str:
        """A channel that only this service uses."""
        return f"{channel}.{self.service}"

    async def publish(self, channel: str, *bodies: Any, key: str | None = None) -> None:
        """Publish like a service."""
        publisher = self.broker.publisher(channel, None)
        for body in bodies:
            await self.broker.publish(publisher, body, key=key)

    def subscribe(self, channel: str, handler: Handler = nothing, *, batch: bool = False) -> None:
        """Subscribe to a channel, before the start."""
        self._handlers[channel] = handler

        @self.broker.subscriber(channel, batch=batch)
        async def handle(body: Any) -> None:
            await self._handlers[channel](body)

    def handle(self, channel: str, handler: Handler) -> None:
        """Replace the handler of a channel."""
        self._handlers[channel] = handler

    @asynccontextmanager
    async def running(self, features: Features) -> AsyncIterator["Rig"]:
        """Start, and wait until all consumers are attached."""
        async with running(self.broker, list(self._handlers), features):
            yield self

    async def delivered(self, channel: str, number: int) -> list[StreamMessage[Any]]:
        """Wait for this many messages, and return all that were delivered."""
        seen = self.seen[channel]
        await until(lambda: len(seen) >= number, f"{number} deliveries of {channel}")
        return seen

    async def raws(self, channel: str, number: int) -> list[Raw]:
        """Like `delivered`, but the raw messages."""
        return [self.broker.raw(one) for one in await self.delivered(channel, number)]

    async def idle(self, channel: str) -> None:
        """Wait until every message of a channel is acknowledged."""
        await idle(self.broker, channel)

    def _watch(self, msg: Any, /, *, context: Any) -> BaseMiddleware[Any, Any]:
        return _Watch(self, msg, context)


class _Watch(BaseMiddleware[Any, Any]):
    def __init__(self, rig: Rig, msg: Any, context: Any) -> None:
        super().__init__(msg, context=context)
        self._rig = rig

    async def consume_scope(self, call_next: Any, msg: StreamMessage[Any]) -> Any:
        self._rig.seen[self._rig.broker.channel(msg)].append(msg)
        async with self._rig.broker.in_flight(msg):
            return await call_next(msg)


@asynccontextmanager
async def running(
    broker: Broker, channels: Collection[str], features: Features
) -> AsyncIterator[None]:
    """Create the channels and start the broker, and wait until all consumers are attached."""
    if Features.CHANNELS in features:
        await broker.create_channels(channels)
    try:
        await broker.faststream.start()
        await until(broker.joined, "all consumers to be attached")
        yield
    finally:
        await broker.faststream.stop()


async def idle(broker: Broker, channel: str) -> None:
    """Wait until the consumer of a channel has acknowledged every message."""

    async def nothing_waits() -> bool:
        return not (await broker.progress())[channel].waiting

    await until(nothing_waits, f"all messages of {channel} to be acknowledged")


async def until(check: Callable[[], Any], what: str, seconds: float = 20) -> None:
    """Wait until the check, which may be a coroutine function, returns a true value."""
    ends = time.monotonic() + seconds
    while True:
        found = check()
        if asyncio.iscoroutine(found):
            found = await found
        if found:
            return
        assert time.monotonic() < ends, f"waited {seconds:.0f} s for {what}"
        await asyncio.sleep(0.05)
