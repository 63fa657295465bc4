"""The receiver receives from the real exporters, over both protocols, and reports bad spans."""

import gzip
import http.client
import logging
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import pytest
from faststream_otel.dev import otlp
from faststream_otel.dev.receiver import OtlpReceiver
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as GrpcLogs
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcMetrics
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcSpans
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter as HttpLogs
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpMetrics
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpSpans
from opentelemetry.instrumentation.logging.handler import LoggingHandler
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1 import trace_pb2
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import Link, SpanKind, Status, StatusCode

RESOURCE = Resource({"service.name": "orders", "service.version": "1"})


@pytest.fixture
def receiver() -> Iterator[OtlpReceiver]:
    with OtlpReceiver() as running:
        yield running


def exporters(receiver: OtlpReceiver, protocol: str) -> tuple[Any, Any, Any]:
    if protocol == "grpc":
        options: dict[str, Any] = {
            "endpoint": receiver.grpc_endpoint,
            "headers": (("x-tenant", "one"),),
        }
        return GrpcSpans(**options), GrpcLogs(**options), GrpcMetrics(**options)
    url, headers, zipped = receiver.http_endpoint, {"x-tenant": "one"}, Compression.Gzip
    return (
        HttpSpans(endpoint=f"{url}/v1/traces", headers=headers, compression=zipped),
        HttpLogs(endpoint=f"{url}/v1/logs", headers=headers, compression=zipped),
        HttpMetrics(endpoint=f"{url}/v1/metrics", headers=headers, compression=zipped),
    )


def send_all(spans: Any, logs: Any, metrics: Any) -> None:
    """Send two spans, a log record and two metrics."""
    tracing = TracerProvider(resource=RESOURCE)
    tracing.add_span_processor(SimpleSpanProcessor(spans))
    logging_provider = LoggerProvider(resource=RESOURCE)
    logging_provider.add_log_record_processor(SimpleLogRecordProcessor(logs))
    meters = MeterProvider([PeriodicExportingMetricReader(metrics, 60_000)], RESOURCE)
    logger = logging.getLogger(f"{__name__}.sent")
    logger.handlers.clear()
    logger.addHandler(LoggingHandler(logger_provider=logging_provider))

    tracer = tracing.get_tracer("scope", "2")
    with tracer.start_as_current_span(
        "send", kind=SpanKind.PRODUCER, attributes={"n": 1, "f": 0.5, "b": True, "list": ["x", "y"]}
    ) as first:
        first.add_event("noted", {"why": "because"})
        logger.warning("said %s", "so")
    with tracer.start_as_current_span("process", links=[Link(first.get_span_context())]) as second:
        second.set_status(Status(StatusCode.ERROR, "broken"))
    meters.get_meter("scope").create_counter("sent", "1").add(2, {"to": "x"})
    meters.get_meter("scope").create_histogram("took", "s").record(0.25)
    tracing.shutdown()
    logging_provider.shutdown()
    meters.shutdown()


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_all_signals_arrive_as_they_were_sent(receiver: OtlpReceiver, protocol: str) -> None:
    send_all(*exporters(receiver, protocol))

    send, process = receiver.spans
    assert (send.name, send.kind, send.service) == ("send", "PRODUCER", "orders")
    assert send.attributes == {"n": 1, "f": 0.5, "b": True, "list": ("x", "y")}
    assert [(event.name, event.attributes) for event in send.events] == [
        ("noted", {"why": "because"})
    ]
    assert (send.scope, send.parent_id) == ("scope", None)
    assert [(link.trace_id, link.span_id) for link in process.links] == [
        (send.trace_id, send.span_id)
    ]
    assert (process.status, process.status_message) == ("ERROR", "broken")
    (record,) = receiver.logs
    assert (record.body, record.severity, record.service) == ("said so", "WARN", "orders")
    assert (record.trace_id, record.span_id) == (send.trace_id, send.span_id)
    points = {point.name: point for point in receiver.metrics}
    assert (points["sent"].kind, points["sent"].value, points["sent"].attributes) == (
        "sum", 2, {"to": "x"},
    )  # fmt: skip
    took = points["took"]
    assert (took.kind, took.unit, took.count, took.value) == ("histogram", "s", 1, 0.25)
    assert receiver.problems == []
    assert {export.signal for export in receiver.exports} == {"traces", "logs", "metrics"}
    for export in receiver.exports:
        assert export.protocol == protocol
        assert export.headers["x-tenant"] == "one"
        assert export.headers.get("content-encoding") == ("gzip" if "http" in protocol else None)


def request(**changes: Any) -> ExportTraceServiceRequest:
    """Make a request with one good span, changed."""
    span = {
        "trace_id": b"t" * 16,
        "span_id": b"s" * 8,
        "name": "work",
        "kind": trace_pb2.Span.SPAN_KIND_INTERNAL,
        "start_time_unix_nano": 1,
        "end_time_unix_nano": 2,
        **changes,
    }
    made = ExportTraceServiceRequest()
    batch = made.resource_spans.add()
    batch.resource.attributes.add(key="service.name").value.string_value = "orders"
    batch.scope_spans.add().spans.add(**span)
    return made


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"trace_id": b"t" * 8}, "trace id has 8 bytes instead of 16"),
        ({"trace_id": bytes(16)}, "trace id is zero"),
        ({"span_id": b""}, "span id has 0 bytes instead of 8"),
        ({"parent_span_id": bytes(8)}, "parent id is zero"),
        ({"parent_span_id": b"s" * 8}, "is its own parent"),
        ({"name": ""}, "has no name"),
        ({"start_time_unix_nano": 0}, "has no start time"),
        ({"end_time_unix_nano": 0}, "ends 1 ns before it starts"),
        ({"links": [{"trace_id": b"x", "span_id": b"s" * 8}]}, "trace id of a link has 1 bytes"),
    ],
)
def test_bad_span_is_a_problem(
    receiver: OtlpReceiver, changes: dict[str, Any], problem: str
) -> None:
    receiver.receive("traces", request(), "grpc", ())
    assert receiver.problems == []
    receiver.clear()
    receiver.receive("traces", request(**changes), "grpc", ())
    assert len(receiver.problems) == 1, receiver.problems
    assert problem in receiver.problems[0]


def test_resource_without_a_name_and_a_repeated_span_are_problems(receiver: OtlpReceiver) -> None:
    nameless = request()
    nameless.resource_spans[0].ClearField("resource")
    receiver.receive("traces", nameless, "grpc", ())
    assert receiver.problems == [
        "span 'work' of an unnamed service: its resource has no service.name"
    ]
    receiver.receive("traces", request(), "grpc", ())
    assert "arrived twice" in receiver.problems[-1]


def test_waiting_says_what_did_not_come(receiver: OtlpReceiver) -> None:
    receiver.receive("traces", request(), "grpc", ())
    assert receiver.wait_for(lambda it: it.spans, "a span")[0].name == "work"
    with pytest.raises(
        TimeoutError, match=r"0\.2 s for a miracle; arrived: 1 spans \(orders: work"
    ):
        receiver.wait_for(lambda it: len(it.spans) > 1, "a miracle", timeout=0.2)


def test_oldest_are_forgotten() -> None:
    receiver = OtlpReceiver(capacity=2)
    for number in range(3):
        receiver.receive("traces", request(span_id=bytes([number + 1] * 8)), "grpc", ())
    assert [span.span_id[:2] for span in receiver.spans] == ["02", "03"]


BODY = request().SerializeToString()
PROTOBUF = {"Content-Type": "application/x-protobuf"}


@pytest.mark.parametrize(
    ("path", "headers", "body", "status"),
    [
        ("/v1/traces", PROTOBUF, BODY, 200),
        ("/v1/traces", {**PROTOBUF, "Content-Encoding": "gzip"}, gzip.compress(BODY, mtime=0), 200),
        ("/v1/traces", PROTOBUF, b"\xff\xff", 400),
        ("/v1/traces", {**PROTOBUF, "Content-Encoding": "gzip"}, BODY, 400),
        ("/v1/traces", {**PROTOBUF, "Content-Encoding": "br"}, BODY, 415),
        ("/v1/traces", {"Content-Type": "text/plain"}, BODY, 415),
        ("/v2/traces", PROTOBUF, BODY, 404),
    ],
)
def test_http_answers_as_the_specification_says(
    receiver: OtlpReceiver, path: str, headers: dict[str, str], body: bytes, status: int
) -> None:
    connection = http.client.HTTPConnection(urlsplit(receiver.http_endpoint).netloc, timeout=5)
    for _ in range(2):  # the connection stays usable
        connection.request("POST", path, body, headers)
        response = connection.getresponse()
        content = response.read()
        assert response.status == status
        assert response.headers["Content-Type"] == "application/x-protobuf"
    connection.close()
    if status == 200:
        ExportTraceServiceResponse.FromString(content)
        assert len(receiver.spans) == 2
    else:
        assert content[:1] == b"\x08", "a google.rpc.Status begins with its code"
        assert receiver.spans == []


def test_taken_port_is_an_error(receiver: OtlpReceiver) -> None:
    for taken in ("grpc", "http"):
        number = urlsplit(getattr(receiver, f"{taken}_endpoint")).port
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{number}"):
            OtlpReceiver(**{f"{taken}_port": number}).__enter__()


def test_queries_are_answered_like_tempo(receiver: OtlpReceiver) -> None:
    send_all(*exporters(receiver, "http/protobuf"))
    send, process = receiver.spans
    with httpx.Client(base_url=receiver.query_endpoint, trust_env=False) as client:

        def ask(path: str) -> Any:
            return client.get(path).raise_for_status().json()

        assert client.get("/ready").text == ""
        assert client.get("/metrics").text == ""
        for span in (send, process):
            assert otlp.spans_of_json(ask(f"/api/v2/traces/{span.trace_id}")["trace"]) == [span]
            short = span.trace_id.lstrip("0")
            assert otlp.spans_of_json(ask(f"/api/v2/traces/{short}")["trace"]) == [span]
        assert ask(f"/api/v2/traces/{'f' * 32}") == {"trace": {}}

        linking = quote('{ link:traceID = "%s" }' % send.trace_id.lstrip("0"))  # noqa: UP031
        assert ask(f"/api/search?q={linking}") == {"traces": [{"traceID": process.trace_id}]}
        assert client.get("/api/search?q=true").status_code == 400

        between = f"/api/spans?start={send.start_ns}&end={process.end_ns}"
        assert otlp.spans_of_json(ask(between)["trace"]) == [send, process]
        assert ask("/api/spans?start=0&end=1") == {"trace": {}}
        assert client.get("/api/spans").status_code == 400


def test_nobody_answers_afterwards() -> None:
    with OtlpReceiver() as receiver:
        assert httpx.get(f"{receiver.query_endpoint}/ready", trust_env=False).is_success
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{receiver.query_endpoint}/ready", trust_env=False)


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_it_logs_nothing_that_the_process_would_send_it(
    receiver: OtlpReceiver, protocol: str, caplog: pytest.LogCaptureFixture
) -> None:
    spans, _, _ = exporters(receiver, protocol)
    provider = TracerProvider(resource=RESOURCE)
    provider.add_span_processor(SimpleSpanProcessor(spans))
    with caplog.at_level(1):
        provider.get_tracer("scope").start_span("work").end()
        provider.shutdown()
        receiver.wait_for(lambda it: it.spans, "a span")
    loggers = {record.name.partition(".")[0] for record in caplog.records}
    assert loggers <= {"urllib3"}, "the exporter's"
