"""What FastStream's page on tracing shows works here as it is written there.

docs/faststream-tracing.md says where the rest of that page is tested.
"""

import subprocess
import sys
from collections.abc import Iterator

import pytest
from faststream.kafka import KafkaBroker, TestKafkaBroker
from faststream.kafka.opentelemetry import KafkaTelemetryMiddleware as StockMiddleware
from faststream.opentelemetry import CurrentSpan
from faststream_otel.kafka.telemetry import KafkaTelemetryMiddleware
from faststream_otel.telemetry import Telemetry
from opentelemetry import propagate, trace
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from ..spans import context, named, tree

GLOBAL = """
from opentelemetry import _logs, metrics, trace

from faststream_otel import Telemetry

one, other = Telemetry("one"), Telemetry("other")
assert trace.get_tracer_provider() is one.tracer_provider
assert metrics.get_meter_provider() is one.meter_provider
assert _logs.get_logger_provider() is one.logger_provider
"""


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def first(exporter: InMemorySpanExporter) -> Iterator[Telemetry]:
    telemetry = Telemetry("first", span_exporter=exporter, make_global=False)
    yield telemetry
    telemetry.close()


@pytest.fixture
def second(exporter: InMemorySpanExporter) -> Iterator[Telemetry]:
    telemetry = Telemetry("second", span_exporter=exporter, make_global=False)
    yield telemetry
    telemetry.close()


async def test_the_trace_goes_from_service_to_service(
    first: Telemetry, second: Telemetry, exporter: InMemorySpanExporter
) -> None:
    """Each with providers of its own: nothing but the message's headers is between them."""
    one = KafkaBroker(middlewares=[KafkaTelemetryMiddleware(**first.providers)], logger=None)
    other = KafkaBroker(middlewares=[KafkaTelemetryMiddleware(**second.providers)], logger=None)

    @one.subscriber("first")
    @one.publisher("second")
    async def passes_on(body: str) -> str:
        return body

    @other.subscriber("second")
    async def ends(body: str) -> None: ...

    async with TestKafkaBroker(one, other):
        await one.publish("x", "first")
    first.tracer_provider.force_flush()
    second.tracer_provider.force_flush()

    spans = exporter.get_finished_spans()
    assert tree(spans) == {"send first": {"process first": {"send second": {"process second": {}}}}}
    assert {span.name: span.resource.attributes["service.name"] for span in spans} == {
        "send first": "first",
        "process first": "first",
        "send second": "first",
        "process second": "second",
    }


async def test_current_span_is_the_process_span_and_takes_the_trace_elsewhere(
    first: Telemetry, exporter: InMemorySpanExporter
) -> None:
    broker = KafkaBroker(middlewares=[KafkaTelemetryMiddleware(**first.providers)], logger=None)
    headers: dict[str, str] = {}  # of a request to whatever is reached without the broker

    @broker.subscriber("first")
    async def calls(body: str, span: CurrentSpan) -> None:
        span.set_attribute("seen", body)
        propagate.inject(headers, context=trace.set_span_in_context(span))

    async with TestKafkaBroker(broker):
        await broker.publish("x", "first")
    first.tracer_provider.force_flush()

    process = named(exporter.get_finished_spans(), "process first")
    there = trace.get_current_span(propagate.extract(headers)).get_span_context()
    assert (process.attributes or {})["seen"] == "x"
    assert (there.trace_id, there.span_id) == (context(process).trace_id, context(process).span_id)


async def test_faststreams_own_middleware_takes_the_same_providers(
    first: Telemetry, exporter: InMemorySpanExporter
) -> None:
    """The way back from this telemetry is one line."""
    broker = KafkaBroker(middlewares=[StockMiddleware(**first.providers)], logger=None)

    @broker.subscriber("first")
    async def ends(body: str) -> None: ...

    async with TestKafkaBroker(broker):
        await broker.publish("x", "first")
    first.tracer_provider.force_flush()

    assert {span.name for span in exporter.get_finished_spans()} == {
        "first create",
        "first publish",
        "first process",
    }


def test_the_first_providers_of_a_process_are_the_global_ones() -> None:
    subprocess.run([sys.executable, "-c", GLOBAL], check=True)
