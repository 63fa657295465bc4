"""The span of a batch has a link for each message, or a warning if the limit is lower."""

import logging
from collections.abc import Iterator

import pytest
from aiokafka import ConsumerRecord
from faststream.kafka import KafkaBroker, TestKafkaBroker
from faststream_otel.dev.receiver import OtlpReceiver
from faststream_otel.kafka.telemetry import KafkaTelemetryMiddleware
from faststream_otel.telemetry import Telemetry
from faststream_otel.telemetry.encoding import encode_spans
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Link, SpanContext
from opentelemetry.trace import TracerProvider as AnyTracerProvider

from ..records import record
from ..spans import named

MANY = 500
"""More than 128, the SDK's default limit of links per span."""
LIMIT = "OTEL_SPAN_LINK_COUNT_LIMIT"


@pytest.fixture
def sink(monkeypatch: pytest.MonkeyPatch) -> Iterator[OtlpReceiver]:
    with OtlpReceiver() as receiver:
        monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.grpc_endpoint)
        yield receiver


async def handle_batches(
    provider: AnyTracerProvider, *, fails: bool = False, times: int = 1
) -> None:
    """Handle a batch of many messages, each with its own trace, this many times."""
    middleware = KafkaTelemetryMiddleware(
        tracer_provider=provider, meter_provider=NoOpMeterProvider()
    )
    broker = KafkaBroker(middlewares=[middleware], logger=None)
    subscriber = broker.subscriber("many", batch=True)

    @subscriber
    async def many(bodies: list[str]) -> None:
        if fails:
            raise ValueError("x" * 100_000)  # too long, so the exported span is a copy

    async with TestKafkaBroker(broker):
        for _ in range(times):
            try:
                await subscriber.process_message(tuple(map(numbered, range(1, MANY + 1))))
            except ValueError:
                assert fails


async def test_the_receiver_gets_a_link_for_each_message(sink: OtlpReceiver) -> None:
    telemetry = Telemetry("tested", make_global=False)
    await handle_batches(telemetry.tracer_provider)
    telemetry.close()
    (span,) = sink.spans
    assert [int(link.span_id, 16) for link in span.links] == [*range(1, MANY + 1)]


def test_no_request_exceeds_the_receivers_limit(sink: OtlpReceiver) -> None:
    """An export may contain the spans of several batches."""
    telemetry = Telemetry("tested", make_global=False)
    tracer = telemetry.tracer_provider.get_tracer("t")
    link = Link(
        SpanContext(2**127, 2**63, is_remote=True),
        {"messaging.destination.partition.id": "1", "messaging.kafka.offset": 2**60},
    )
    with tracer.start_as_current_span("few"):
        for number in range(5):
            tracer.start_span(f"many {number}", links=[link] * 10_000).end()
    telemetry.close()
    assert [span.name for span in sink.spans] == [*(f"many {one}" for one in range(5)), "few"]
    assert [len(span.links) for span in sink.spans] == [10_000] * 5 + [0]
    # Of more than 5 MB in all: the receiver refuses a request of more than 4.
    assert [export.items for export in sink.exports if export.signal == "traces"] == [2, 2, 2]


async def test_a_configured_limit_applies(
    sink: OtlpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LIMIT, "200")
    telemetry = Telemetry("tested", make_global=False)
    await handle_batches(telemetry.tracer_provider)
    telemetry.close()
    (span,) = sink.spans
    assert len(span.links) == 200


@pytest.mark.parametrize("fails", [False, True], ids=["handled", "failed"])
async def test_dropped_links_are_counted_and_logged_once(
    fails: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """With a provider that is not ours, and has the SDK's default limit."""
    provider, exporter = TracerProvider(span_limits=SpanLimits()), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with caplog.at_level(logging.WARNING):
        await handle_batches(provider, fails=fails, times=3)
    for span in exporter.get_finished_spans():
        assert len(span.links) == 128
        assert encoded_dropped_links(span) == MANY - 128
    (said,) = [one.getMessage() for one in caplog.records if LIMIT in one.getMessage()]
    assert str(MANY) in said
    provider.shutdown()


async def test_a_cut_span_keeps_its_dropped_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(LIMIT, "128")
    monkeypatch.setenv("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "3")
    monkeypatch.setenv("OTEL_SPAN_EVENT_COUNT_LIMIT", "1")
    exporter = InMemorySpanExporter()
    telemetry = Telemetry("tested", span_exporter=exporter, make_global=False)
    tracer = telemetry.tracer_provider.get_tracer("t")
    with tracer.start_as_current_span("noted") as span:
        span.set_attributes({str(number): number for number in range(5)})
        span.add_event("one")
        span.add_event("two", {"text": "x" * 100_000})
    await handle_batches(telemetry.tracer_provider, fails=True)
    telemetry.tracer_provider.force_flush()
    spans = exporter.get_finished_spans()
    assert encoded_dropped_links(named(spans, "process many")) == MANY - 128
    noted = named(spans, "noted")
    assert (noted.dropped_attributes, noted.dropped_events) == (2, 1)
    assert len(str((noted.events[0].attributes or {})["text"])) < 100_000
    telemetry.close()


def encoded_dropped_links(span: ReadableSpan) -> int:
    """The number of dropped links in the encoded span."""
    (resource,) = encode_spans([span]).resource_spans
    return resource.scope_spans[0].spans[0].dropped_links_count


def numbered(number: int) -> ConsumerRecord[bytes, bytes]:
    """A record with its own trace."""
    return record("many", number, [("traceparent", f"00-{number:032x}-{number:016x}-01".encode())])
