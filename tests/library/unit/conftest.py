"""The four services in memory, and what they record."""

from collections.abc import AsyncIterator

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from order_flow.services import notifications, orders, payments, shipping

from ..memory import in_memory


@pytest.fixture
async def flow() -> AsyncIterator[InMemorySpanExporter]:
    """All services, connected in memory: publishing returns when all that follows is done."""
    modules = (orders, payments, shipping, notifications)
    async with in_memory(*(module.service for module in modules)) as exporter:
        yield exporter
