"""Services in memory, and what they record: no broker, no process, no receiver."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from faststream.kafka import TestKafkaBroker
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from faststream_otel.service import Service


@asynccontextmanager
async def in_memory(*services: Service) -> AsyncIterator[InMemorySpanExporter]:
    """Connect services, and yield what holds their spans as they end.

    Publishing returns when all that follows from it is done.
    """
    exporter = InMemorySpanExporter()
    for service in services:
        service.telemetry.tracer_provider.add_span_processor(SimpleSpanProcessor(exporter))
    async with TestKafkaBroker(*(service.broker.faststream for service in services)):
        yield exporter
    exporter.shutdown()  # a processor cannot be taken away again
