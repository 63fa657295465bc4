"""Connects services in memory and records their spans, without a broker or a receiver."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from faststream.kafka import TestKafkaBroker
from faststream_otel.service import Service
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter


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
    exporter.shutdown()  # a processor cannot be removed
