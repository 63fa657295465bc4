"""Our encoder writes the same bytes as the exporter's own encoder."""

from collections.abc import Sequence

import pytest
from faststream_otel.telemetry import encoding
from faststream_otel.telemetry.exporters import Delivery, make_exporter
from opentelemetry._logs import SeverityNumber
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs as encode_their_logs
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans as encode_theirs
from opentelemetry.exporter.otlp.proto.grpc import trace_exporter as grpc
from opentelemetry.exporter.otlp.proto.http import trace_exporter as http
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, Span
from opentelemetry.sdk._logs import (
    LoggerProvider,
    LogRecordDroppedAttributesWarning,
    LogRecordLimits,
    ReadableLogRecord,
)
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)
from opentelemetry.util.types import AttributeValue

PLAIN: list[AttributeValue] = [
    "", "kafka", "ä 注文 🛒", "x" * 127, "x" * 128, "x" * 20_000,
    0, 1, -1, 127, 128, 300, 2**31, 2**63 - 1, -(2**63),
    True, False, 0.0, -1.5, 1e300, float("inf"),
]  # fmt: skip
OTHERS: list[AttributeValue] = [("a", "b"), (1, 2), (True,), (0.5,), (), b"bytes"]


def recorded(provider: TracerProvider) -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return exporter


def remote(*, sampled: bool = True, state: TraceState | None = None) -> NonRecordingSpan:
    flags = TraceFlags(TraceFlags.SAMPLED if sampled else TraceFlags.DEFAULT)
    return NonRecordingSpan(SpanContext(2**127 + 1, 2**63 + 1, True, flags, state))


def some_spans() -> Sequence[ReadableSpan]:
    """Spans that our encoder supports, and others, of two scopes and two resources."""
    spans: list[ReadableSpan] = []
    for name in ("one", "two"):
        provider = TracerProvider(
            resource=Resource({"service.name": name, "list": ("a", "b")}, "https://example.org/r"),
            span_limits=SpanLimits(max_span_attributes=40),
        )
        exporter = recorded(provider)
        first = provider.get_tracer("first", "1.0", "https://example.org/1.44.0", {"of": "scope"})
        second = provider.get_tracer("second")
        for kind in SpanKind:
            with first.start_as_current_span(f"of {kind}", kind=kind):
                second.start_span("child", attributes={"n": kind.value}).end()
        for value in PLAIN + OTHERS:
            first.start_span("value", attributes={"key": value, "messaging.system": "kafka"}).end()
        for equal in (1, True, 1.0, "1"):
            unusual = {"messaging.destination.partition.id": equal, "server.port": equal}
            first.start_span("equal values of other types", attributes=unusual).end()
        for partition in range(3):
            first.start_span(
                "constants",
                attributes={
                    "messaging.destination.name": "orders",
                    "messaging.destination.partition.id": str(partition),
                    "messaging.kafka.offset": partition,
                },
            ).end()
        parent = set_span_in_context(remote())
        first.start_span("remote parent", context=parent).end()
        stateful = set_span_in_context(remote(state=TraceState([("vendor", "x")])))
        first.start_span("trace state", context=stateful).end()
        first.start_span("links", links=[Link(remote().get_span_context(), {"a": 1})]).end()
        here = SpanContext(1, 2, False, TraceFlags(TraceFlags.SAMPLED))
        many = {str(number): number for number in range(200)}
        first.start_span("more links", links=[Link(here, many), Link(here)] * 100).end()
        first.start_span("odd link", links=[Link(here, {"list": ("a", "b")})]).end()
        for status in (Status(StatusCode.OK), Status(StatusCode.ERROR, "why"),
                       Status(StatusCode.ERROR)):  # fmt: skip
            span = first.start_span("status")
            span.set_status(status)
            span.end()
        span = first.start_span("event")
        span.record_exception(ValueError("no"))
        span.end()
        span = first.start_span("events")
        for number in range(200):
            span.add_event(f"event {number % 2}", many if number == 150 else None, number)
        span.end()
        first.start_span("dropped", attributes={str(number): 1 for number in range(50)}).end()
        spans += exporter.get_finished_spans()
    return spans


def by_place(groups: Sequence[ResourceSpans]) -> dict[tuple[bytes, bytes, str, str], list[Span]]:
    """Spans by resource and scope, sorted by span id."""
    found: dict[tuple[bytes, bytes, str, str], list[Span]] = {}
    for group in groups:
        for scope in group.scope_spans:
            place = (
                group.resource.SerializeToString(deterministic=True),
                scope.scope.SerializeToString(deterministic=True),
                group.schema_url,
                scope.schema_url,
            )
            found.setdefault(place, []).extend(scope.spans)
    return {place: sorted(spans, key=lambda span: span.span_id) for place, spans in found.items()}


def test_spans_are_encoded_like_the_exporters_own_encoder_does() -> None:
    spans = some_spans()
    for _ in range(2):  # the second time from the cache
        ours = by_place(encoding.encode_spans(spans).resource_spans)
        assert ours == by_place(encode_theirs(spans).resource_spans)
    assert sum(map(len, ours.values())) == len(spans)
    assert len(ours) == 4


def test_spans_that_were_encoded_before_make_the_same_request() -> None:
    spans = some_spans()
    encoded = encoding.Encodeds(map(encoding.encode, spans))
    ours = by_place(encoding.encode_spans(encoded).resource_spans)
    assert ours == by_place(encode_theirs(spans).resource_spans)


def test_a_request_over_http_is_the_same() -> None:
    spans, records = some_spans(), some_records()
    of_spans = encoding.spans_over_http(spans).SerializePartialToString()
    assert ExportTraceServiceRequest.FromString(of_spans) == encoding.encode_spans(spans)
    of_records = encoding.records_over_http(records).SerializeToString()
    assert ExportLogsServiceRequest.FromString(of_records) == encoding.encode_records(records)


def some_records() -> Sequence[ReadableLogRecord]:
    """Log records that our encoder supports, and others, of two scopes and two resources."""
    records: list[ReadableLogRecord] = []
    span = set_span_in_context(remote())
    for name in ("one", "two"):
        exporter = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]
        provider = LoggerProvider(
            Resource({"service.name": name}),
            shutdown_on_exit=False,
            log_record_limits=LogRecordLimits(max_attributes=40),
        )
        provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
        for logger in (
            provider.get_logger("first", "1.0", "https://example.org/1.44.0", {"of": "scope"}),
            provider.get_logger("second"),
        ):
            for value in [*PLAIN, *OTHERS, None, {"a": 1}]:
                logger.emit(body=value, attributes={"key": value, "messaging.system": "kafka"})
            for severity in SeverityNumber:
                logger.emit(severity_number=severity, severity_text=severity.name, context=span)
            logger.emit(
                timestamp=1_700_000_000_000_000_000,
                body="with all",
                context=span,
                event_name="order.failed",
                attributes={"order": "o-1", "messaging.kafka.offset": 3},
            )
            with pytest.warns(LogRecordDroppedAttributesWarning):
                logger.emit(body="dropped", attributes={str(number): 1 for number in range(50)})
        records += exporter.get_finished_logs()
    return records


def test_records_are_encoded_like_the_exporters_own_encoder_does() -> None:
    records = some_records()
    for _ in range(2):  # the second time from the cache
        ours = records_by_place(encoding.encode_records(records))
        assert ours == records_by_place(encode_their_logs(records))
    assert sum(map(len, ours.values())) == len(records)
    assert len(ours) == 4


def test_records_that_were_encoded_before_make_the_same_request() -> None:
    records = some_records()
    encoded = encoding.Encodeds(map(encoding.encode_record, records))
    ours = records_by_place(encoding.encode_records(encoded))
    assert ours == records_by_place(encode_their_logs(records))


def records_by_place(
    request: ExportLogsServiceRequest,
) -> dict[tuple[bytes, bytes, str], list[bytes]]:
    found: dict[tuple[bytes, bytes, str], list[bytes]] = {}
    for group in request.resource_logs:
        for scope in group.scope_logs:
            place = (
                group.resource.SerializeToString(deterministic=True),
                scope.scope.SerializeToString(deterministic=True),
                scope.schema_url,
            )
            found.setdefault(place, []).extend(
                record.SerializeToString(deterministic=True) for record in scope.log_records
            )
    return {place: sorted(records) for place, records in found.items()}


def test_plain_records_do_not_use_the_exporters_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    exporter = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    for value in PLAIN:
        provider.get_logger("t").emit(body=value, attributes={"key": value})
    left: list[int] = []

    def count(records: Sequence[ReadableLogRecord]) -> object:
        left.append(len(records))
        return encode_their_logs(records)

    monkeypatch.setattr(encoding, "encode_any_records", count)
    encoding.encode_records(exporter.get_finished_logs())
    assert left == []


def test_plain_spans_do_not_use_the_exporters_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    provider = TracerProvider()
    exporter = recorded(provider)
    for value in PLAIN:
        provider.get_tracer("t").start_span("span", attributes={"key": value}).end()
    left: list[int] = []

    def count(spans: Sequence[ReadableSpan]) -> object:
        left.append(len(spans))
        return encode_theirs(spans)

    monkeypatch.setattr(encoding, "encode_any_spans", count)
    encoding.encode_spans(exporter.get_finished_spans())
    assert left == [1]  # for the common resource and scope


def test_no_spans_make_an_empty_request() -> None:
    assert encoding.encode_spans([]) == encode_theirs([])


def test_the_caches_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    provider = TracerProvider()
    exporter = recorded(provider)
    for number in range(30):
        provider.get_tracer("t").start_span(
            f"span {number}", attributes={"messaging.destination.name": str(number)}
        ).end()
    remembered: dict[bytes, dict[tuple[str, object], bytes]] = {
        tag: {} for tag in encoding._remembered
    }
    monkeypatch.setattr(encoding, "_remembered", remembered)
    for memory in ("_prefixes", "_places"):
        monkeypatch.setattr(encoding, memory, {})
    monkeypatch.setattr(encoding, "_LIMIT", 10)
    spans = exporter.get_finished_spans()
    assert by_place(encoding.encode_spans(spans).resource_spans) == by_place(
        encode_theirs(spans).resource_spans
    )
    assert max(map(len, remembered.values())) == len(encoding._prefixes) == 10


@pytest.mark.parametrize(
    ("protocol", "module", "ours"),
    [
        ("grpc", grpc, encoding.encode_spans),
        ("http/protobuf", http, encoding.spans_over_http),
    ],
    ids=["grpc", "http"],
)
def test_the_exporters_use_our_encoder(
    protocol: str, module: object, ours: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OTEL_TRACES_EXPORTER", raising=False)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
    exporter = make_exporter("traces", Delivery())
    assert exporter
    exporter.shutdown()
    assert getattr(module, "encode_spans", None) is ours
