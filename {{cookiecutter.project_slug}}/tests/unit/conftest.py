"""The four services in memory, and what they record."""

from collections.abc import AsyncIterator, Iterator

import pytest
from faststream.kafka import TestKafkaBroker
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from {{ cookiecutter.package_name }}.services import (
    notifications,
    orders,
    payments,
    shipping,
)

SERVICES = [module.service for module in (orders, payments, shipping, notifications)]
_exporter = InMemorySpanExporter()
for _service in SERVICES:
    _service.telemetry.tracer_provider.add_span_processor(SimpleSpanProcessor(_exporter))


@pytest.fixture
def exporter() -> Iterator[InMemorySpanExporter]:
    """Holds the spans of all services, as they end."""
    _exporter.clear()
    yield _exporter
    _exporter.clear()


@pytest.fixture
async def flow(exporter: InMemorySpanExporter) -> AsyncIterator[InMemorySpanExporter]:
    """All services, connected in memory: publishing returns when all that follows is done."""
    async with TestKafkaBroker(*(service.broker for service in SERVICES)):
        yield exporter
