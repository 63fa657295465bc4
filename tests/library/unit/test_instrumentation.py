"""Spans of other instrumentations in a handler are children of the process span."""

import sys
from http import HTTPStatus
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from faststream.kafka import KafkaBroker, TestKafkaBroker
from faststream_otel.kafka.telemetry import KafkaTelemetryMiddleware
from opentelemetry.instrumentation.httpx import AsyncOpenTelemetryTransport
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from ..spans import tree


async def test_an_http_clients_span_is_a_child_of_the_process_span() -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    broker = KafkaBroker(
        middlewares=[
            KafkaTelemetryMiddleware(tracer_provider=provider, meter_provider=NoOpMeterProvider())
        ],
        logger=None,
    )
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(HTTPStatus.OK)

    transport = AsyncOpenTelemetryTransport(httpx.MockTransport(answer), tracer_provider=provider)

    @broker.subscriber("first")
    async def calls(body: str) -> None:
        async with httpx.AsyncClient(transport=transport) as client:
            await client.get("http://stock.test/keyboard")

    async with TestKafkaBroker(broker):
        await broker.publish("x", "first")

    assert tree(exporter.get_finished_spans()) == {"send first": {"process first": {"GET": {}}}}
    assert "traceparent" in seen[0].headers


class AIOKafkaInstrumentor:
    """Stands for the class of opentelemetry-instrumentation-aiokafka, a singleton."""

    is_instrumented_by_opentelemetry = True

    def uninstrument(self) -> None:
        assert self.is_instrumented_by_opentelemetry
        type(self).is_instrumented_by_opentelemetry = False


def test_an_instrumentation_of_the_client_is_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise each message would have two sets of spans."""
    module: Any = SimpleNamespace(AIOKafkaInstrumentor=AIOKafkaInstrumentor)
    monkeypatch.setitem(sys.modules, "opentelemetry.instrumentation.aiokafka", module)
    KafkaTelemetryMiddleware()
    assert not AIOKafkaInstrumentor.is_instrumented_by_opentelemetry
    KafkaTelemetryMiddleware()  # a second broker
