"""A sink that answers in Tempo's place."""

from collections.abc import Callable, Iterator

import pytest
from google.protobuf.json_format import ParseDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from devtools.model import Span
from devtools.query import QueryServer, resource_spans
from devtools.sink import OtlpSink

Keep = Callable[..., None]


@pytest.fixture
def keep(monkeypatch: pytest.MonkeyPatch) -> Iterator[Keep]:
    """Have spans kept where the commands ask Tempo for them."""
    sink = OtlpSink()
    query = QueryServer(sink)
    query.start()
    monkeypatch.setenv("TEMPO_PORT", str(query.server_port))
    monkeypatch.setenv("GRAFANA_PORT", "3001")

    def receive(*spans: Span) -> None:
        request = ParseDict({"resourceSpans": resource_spans(spans)}, ExportTraceServiceRequest())
        sink.receive("traces", request, "grpc", ())

    yield receive
    query.stop()
