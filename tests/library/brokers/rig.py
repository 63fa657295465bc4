"""A service whose handlers a test chooses, and the messages that they were given."""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

from faststream import BaseMiddleware
from faststream.message import StreamMessage
from faststream_otel.messages.broker import Broker, Raw

from .features import Features, Row

Handler = Callable[[Any], Awaitable[None]]


async def nothing(body: Any) -> None:
    """Handle a message by doing nothing with it."""


class Rig:
    """One instance of a service.

    Attributes:
        broker: As the service has it.
        url: Where it is.
        seen: By channel what was delivered, in the order of its deliveries.

    Args:
        service: Its name. Default: one that no other has.
        middlewares: Of its broker, outside of what this watches.
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
        """A channel of this service alone."""
        return f"{channel}.{self.service}"

    async def publish(self, channel: str, *bodies: Any, key: str | None = None) -> None:
        """As a service does."""
        publisher = self.broker.publisher(channel, None)
        for body in bodies:
            await self.broker.publish(publisher, body, key=key)

    def subscribe(self, channel: str, handler: Handler = nothing, *, batch: bool = False) -> None:
        """Before the start, have a channel consumed."""
        self._handlers[channel] = handler

        @self.broker.subscriber(channel, batch=batch)
        async def handle(body: Any) -> None:
            await self._handlers[channel](body)

    def handle(self, channel: str, handler: Handler) -> None:
        """From now on, handle a channel in another way."""
        self._handlers[channel] = handler

    @asynccontextmanager
    async def running(self, features: Features) -> AsyncIterator["Rig"]:
        """Start, and wait until all consumers are attached."""
        if Features.CHANNELS in features:
            await self.broker.create_channels(list(self._handlers))
        try:
            await self.broker.faststream.start()
            await until(self.broker.joined, "all consumers to be attached")
            yield self
        finally:
            await self.broker.faststream.stop()

    async def delivered(self, channel: str, number: int) -> list[StreamMessage[Any]]:
        """What was delivered, as soon as it is so much."""
        seen = self.seen[channel]
        await until(lambda: len(seen) >= number, f"{number} deliveries of {channel}")
        return seen

    async def raws(self, channel: str, number: int) -> list[Raw]:
        """As the broker delivered them, likewise."""
        return [self.broker.raw(one) for one in await self.delivered(channel, number)]

    def _watch(self, msg: Any, /, *, context: Any) -> BaseMiddleware[Any, Any]:
        return _Watch(self, msg, context)


class _Watch(BaseMiddleware[Any, Any]):
    def __init__(self, rig: Rig, msg: Any, context: Any) -> None:
        super().__init__(msg, context=context)
        self._rig = rig

    async def consume_scope(self, call_next: Any, msg: StreamMessage[Any]) -> Any:
        self._rig.seen[self._rig.broker.channel(msg)].append(msg)
        async with self._rig.broker.in_hand(msg):
            return await call_next(msg)


async def until(check: Callable[[], Any], what: str, seconds: float = 20) -> None:
    """Wait until the check, which may be a coroutine function, gives something true."""
    ends = time.monotonic() + seconds
    while True:
        found = check()
        if asyncio.iscoroutine(found):
            found = await found
        if found:
            return
        assert time.monotonic() < ends, f"waited {seconds:.0f} s for {what}"
        await asyncio.sleep(0.05)
