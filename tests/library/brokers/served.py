"""A whole `Service`, with its retries and telemetry, and the spans that it ended."""

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

from faststream_otel import Service
from faststream_otel.messages.broker import Broker
from faststream_otel.messages.dead_letters.dead_letter import DeadLetter
from faststream_otel.messages.dead_letters.search import Filter, Search
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from .features import Features, Row
from .rig import idle, running, until


class Served:
    """A service in this process.

    Args:
        broker_url: BROKER_URL.
        name: The service's name. Default: a unique one.
        settings: Further settings.
    """

    def __init__(self, row: Row, broker_url: str, name: str = "", **settings: Any) -> None:
        made = row.settings(**{"broker_url": broker_url, "retry_backoff_seconds": 0.01, **settings})
        self.service = Service(name or f"served-{uuid4().hex[:8]}", made)
        self._exporter = InMemorySpanExporter()
        self.service.telemetry.tracer_provider.add_span_processor(
            SimpleSpanProcessor(self._exporter)
        )

    @property
    def broker(self) -> Broker:
        return self.service.broker

    def named(self, channel: str) -> str:
        """A channel that only this service uses."""
        return f"{channel}.{self.service.name}"

    @asynccontextmanager
    async def running(
        self, features: Features, channels: Collection[str]
    ) -> AsyncIterator["Served"]:
        """Start, and wait until all consumers are attached."""
        async with running(self.broker, channels, features):
            yield self

    async def spans(self, name: str, number: int = 1) -> list[ReadableSpan]:
        """Wait for this many spans of a name, and return all in the order of their ends."""

        def found() -> list[ReadableSpan]:
            return [span for span in self._exporter.get_finished_spans() if span.name == name]

        await until(lambda: len(found()) >= number, f"{number} spans named {name}")
        return found()

    async def dead_letters(self, channel: str, number: int) -> list[DeadLetter]:
        """Wait for this many dead letters of a channel, and return all."""

        async def enough() -> bool:
            return len(await dead_letters(self.broker, channel)) >= number

        await until(enough, f"{number} dead letters of {channel}")
        return await dead_letters(self.broker, channel)

    async def idle(self, channel: str) -> None:
        """Wait until every message of a channel is acknowledged."""
        await idle(self.broker, channel)


async def dead_letters(broker: Broker, channel: str) -> list[DeadLetter]:
    """The dead letters of a channel, in the order of each log."""
    async with broker.dead_letters() as store:
        search = Search(store, Filter(channel=channel))
        await search.prepare()
        return [one async for one, _ in search.dead_letters()]
