"""The broker itself is restarted, killed or frozen: nothing is lost, and services go on."""

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

import pytest
from faststream_otel.messages.broker import Unavailable

from .features import Features, Row
from .rig import until
from .served import Served
from .servers import Process

pytestmark = pytest.mark.asyncio(loop_scope="session")

PUBLISH_SECONDS = 15
"""More than any broker's limit for a confirmation."""


class Numbers(Served):
    """A service that publishes numbers to itself."""

    def __init__(self, row: Row, url: str) -> None:
        super().__init__(row, url)
        self.channel = self.named("numbers")
        self.handled: Counter[int] = Counter()
        self.confirmed: list[int] = []
        self._publisher = self.service.publisher(self.channel)
        self._next = 0

        @self.service.subscriber(self.channel)
        async def handle(number: int) -> None:
            self.handled[number] += 1

    async def publish(self) -> None:
        """Raises Unavailable."""
        self._next += 1
        number = self._next
        async with asyncio.timeout(PUBLISH_SECONDS):
            await self.service.send(self._publisher, number)
        self.confirmed.append(number)

    async def publish_until(self, enough: asyncio.Event) -> None:
        while not enough.is_set():  # a client may swallow a cancellation
            with suppress(Unavailable):
                await self.publish()
            await asyncio.sleep(0.02)

    async def publish_until_frozen(self) -> None:
        """Raises Unavailable. The signal takes a moment."""
        for _ in range(100):
            await self.publish()

    async def not_ready(self) -> bool:
        return not await self.service.consumers.ready()

    async def all_handled(self) -> None:
        await until(
            lambda: self.handled.keys() >= {*self.confirmed}, "all confirmed messages", seconds=40
        )


@pytest.mark.parametrize("end", [Process.stop, Process.kill])
async def test_nothing_confirmed_is_lost_when_the_broker_restarts(
    row: Row, process: tuple[Process, Features], end: Callable[[Process], None]
) -> None:
    server, features = process
    numbers = Numbers(row, server.url)
    async with numbers.running(features, [numbers.channel]):
        enough = asyncio.Event()
        publishing = asyncio.create_task(numbers.publish_until(enough))
        try:
            await until(lambda: len(numbers.handled) > 20, "some messages")
            await asyncio.to_thread(end, server)
            try:
                await until(numbers.not_ready, "the service to notice")
                assert not await numbers.broker.answers_new_client()
            finally:
                await asyncio.to_thread(server.start)
            before = len(numbers.confirmed)
            await until(numbers.service.consumers.ready, "the service to be ready", seconds=40)
            await until(lambda: len(numbers.confirmed) > before + 20, "confirmations")
        finally:
            enough.set()
            await asyncio.wait_for(publishing, 2 * PUBLISH_SECONDS)
        await numbers.all_handled()


async def test_a_service_waits_for_a_frozen_broker(
    row: Row, process: tuple[Process, Features]
) -> None:
    server, features = process
    numbers = Numbers(row, server.url)
    async with numbers.running(features, [numbers.channel]):
        await numbers.publish()
        await numbers.all_handled()
        server.pause()
        try:
            with pytest.raises(Unavailable):
                await numbers.publish_until_frozen()
            async with asyncio.timeout(PUBLISH_SECONDS):
                assert not await numbers.service.consumers.ready()
                assert not await numbers.broker.answers_new_client()
                # A restart of the service would not help.
                assert await numbers.service.consumers.stalled() == {}
        finally:
            server.resume()
        await until(numbers.service.consumers.ready, "the service to be ready", seconds=40)
        await numbers.publish()
        await numbers.all_handled()
