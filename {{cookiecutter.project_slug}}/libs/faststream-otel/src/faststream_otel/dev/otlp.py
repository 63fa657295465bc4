"""OTLP messages as plain values: ids as lower-case hex, times in nanoseconds since the epoch."""

import base64
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from google.protobuf.json_format import MessageToDict, ParseDict, ParseError
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1 import logs_pb2
from opentelemetry.proto.metrics.v1 import metrics_pb2
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1 import trace_pb2

Signal = Literal["traces", "metrics", "logs"]
Protocol = Literal["grpc", "http/protobuf"]
Status = Literal["UNSET", "OK", "ERROR"]
Attributes = Mapping[str, Any]


@dataclass(frozen=True)
class Event:
    """Something that happened during a span; an exception is one named `exception`."""

    name: str
    time_ns: int
    attributes: Attributes = field(default_factory=dict)


@dataclass(frozen=True)
class Link:
    """A span that caused this one without being its parent."""

    trace_id: str
    span_id: str
    attributes: Attributes = field(default_factory=dict)


@dataclass(frozen=True)
class Span:
    """One operation. `parent_id` is None at the root; `kind` is SERVER, CLIENT, PRODUCER,
    CONSUMER, INTERNAL or UNSPECIFIED; `service` is the resource's service.name, or ""."""

    trace_id: str
    span_id: str
    parent_id: str | None
    name: str
    kind: str
    start_ns: int
    end_ns: int
    service: str = ""
    attributes: Attributes = field(default_factory=dict)
    events: tuple[Event, ...] = ()
    links: tuple[Link, ...] = ()
    status: Status = "UNSET"
    status_message: str = ""
    resource: Attributes = field(default_factory=dict)
    scope: str = ""
    message: trace_pb2.ResourceSpans | None = field(default=None, repr=False, compare=False)
    """The span as it was sent, alone with its scope and resource."""

    @property
    def duration_ns(self) -> int:
        return self.end_ns - self.start_ns


@dataclass(frozen=True)
class LogRecord:
    """One log record. `trace_id` and `span_id` are None for a record outside of any span."""

    time_ns: int
    severity: str
    body: Any
    service: str = ""
    trace_id: str | None = None
    span_id: str | None = None
    attributes: Attributes = field(default_factory=dict)
    resource: Attributes = field(default_factory=dict)
    scope: str = ""
    event_name: str = ""


@dataclass(frozen=True)
class MetricPoint:
    """One data point. `kind` is gauge, sum, histogram, exponential_histogram or summary.

    `value` is the number of a gauge or sum. For the other kinds, it is the sum of `count`
    observations.
    """

    name: str
    kind: str
    time_ns: int
    value: float
    unit: str = ""
    service: str = ""
    attributes: Attributes = field(default_factory=dict)
    count: int = 0
    resource: Attributes = field(default_factory=dict)
    scope: str = ""


def spans(batches: Iterable[trace_pb2.ResourceSpans]) -> list[Span]:
    """Read the spans of a request."""
    return [
        _span(raw, scoped, batch.resource)
        for batch in batches
        for scoped in batch.scope_spans
        for raw in scoped.spans
    ]


def logs(batches: Iterable[logs_pb2.ResourceLogs]) -> list[LogRecord]:
    """Read the log records of a request."""
    return [
        LogRecord(
            time_ns=raw.time_unix_nano or raw.observed_time_unix_nano,
            severity=raw.severity_text
            or logs_pb2.SeverityNumber.Name(raw.severity_number).removeprefix("SEVERITY_NUMBER_"),
            body=_value(raw.body),
            service=_service(batch.resource),
            trace_id=raw.trace_id.hex() or None,
            span_id=raw.span_id.hex() or None,
            attributes=attributes(raw.attributes),
            resource=attributes(batch.resource.attributes),
            scope=scoped.scope.name,
            event_name=raw.event_name,
        )
        for batch in batches
        for scoped in batch.scope_logs
        for raw in scoped.log_records
    ]


def metrics(batches: Iterable[metrics_pb2.ResourceMetrics]) -> list[MetricPoint]:
    """Read the data points of a request."""
    found = []
    for batch in batches:
        for scoped in batch.scope_metrics:
            for metric in scoped.metrics:
                kind = metric.WhichOneof("data")
                data: Any = getattr(metric, kind) if kind else None
                found += [
                    MetricPoint(
                        name=metric.name,
                        kind=kind or "",
                        time_ns=raw.time_unix_nano,
                        value=_number(raw),
                        unit=metric.unit,
                        service=_service(batch.resource),
                        attributes=attributes(raw.attributes),
                        count=getattr(raw, "count", 0),
                        resource=attributes(batch.resource.attributes),
                        scope=scoped.scope.name,
                    )
                    for raw in (data.data_points if data else ())
                ]
    return found


def to_json(found: Sequence[Span]) -> dict[str, Any]:
    """Write received spans as OTLP in protobuf's JSON mapping, with ids in base64, like Tempo."""
    messages = [span.message for span in found if span.message]
    return MessageToDict(trace_pb2.TracesData(resource_spans=messages))


def spans_of_json(traces: Any, *, hex_ids: bool = False) -> list[Span]:
    """Read spans from the JSON of OTLP's TracesData, `{"resourceSpans": […]}`.

    Args:
        hex_ids: Whether ids are in hex, as in OTLP/JSON. By default they are in base64, as in
            protobuf's JSON mapping.

    Raises:
        ValueError: It is not OTLP in JSON.
    """
    try:
        data = ParseDict(
            _ids_in_base64(traces) if hex_ids else traces,
            trace_pb2.TracesData(),
            ignore_unknown_fields=True,
        )
    except ParseError as error:
        raise ValueError(f"not OTLP in JSON: {error}") from error
    return spans(data.resource_spans)


def span_problems(span: Span) -> Iterator[str]:
    """Describe what is invalid in a span, or would be shown wrongly by a backend."""
    ids = [("trace id", span.trace_id, 16), ("span id", span.span_id, 8)]
    if span.parent_id is not None:
        ids.append(("parent id", span.parent_id, 8))
    for link in span.links:
        ids += [("trace id of a link", link.trace_id, 16), ("span id of a link", link.span_id, 8)]
    for what, value, length in ids:
        if len(value) != 2 * length:
            yield f"{what} has {len(value) // 2} bytes instead of {length}"
        elif not value.strip("0"):
            yield f"{what} is zero"
    if span.parent_id == span.span_id:
        yield "is its own parent"
    if not span.service:
        yield "its resource has no service.name"
    if not span.name:
        yield "has no name"
    if not span.start_ns:
        yield "has no start time"
    if span.end_ns < span.start_ns:
        yield f"ends {span.start_ns - span.end_ns} ns before it starts"


def attributes(raw: Iterable[KeyValue]) -> dict[str, Any]:
    """Read attributes. Arrays become tuples, maps become dictionaries, an empty value None."""
    return {attribute.key: _value(attribute.value) for attribute in raw}


def _span(raw: trace_pb2.Span, scoped: trace_pb2.ScopeSpans, resource: Resource) -> Span:
    scope = trace_pb2.ScopeSpans(scope=scoped.scope, schema_url=scoped.schema_url, spans=[raw])
    return Span(
        trace_id=raw.trace_id.hex(),
        span_id=raw.span_id.hex(),
        parent_id=raw.parent_span_id.hex() or None,
        name=raw.name,
        kind=trace_pb2.Span.SpanKind.Name(raw.kind).removeprefix("SPAN_KIND_"),
        start_ns=raw.start_time_unix_nano,
        end_ns=raw.end_time_unix_nano,
        service=_service(resource),
        attributes=attributes(raw.attributes),
        events=tuple(
            Event(event.name, event.time_unix_nano, attributes(event.attributes))
            for event in raw.events
        ),
        links=tuple(
            Link(link.trace_id.hex(), link.span_id.hex(), attributes(link.attributes))
            for link in raw.links
        ),
        status=cast(
            "Status",
            trace_pb2.Status.StatusCode.Name(raw.status.code).removeprefix("STATUS_CODE_"),
        ),
        status_message=raw.status.message,
        resource=attributes(resource.attributes),
        scope=scoped.scope.name,
        message=trace_pb2.ResourceSpans(resource=resource, scope_spans=[scope]),
    )


def _service(resource: Resource) -> str:
    return str(attributes(resource.attributes).get("service.name") or "")


def _ids_in_base64(tree: Any) -> Any:
    if isinstance(tree, list):
        return [_ids_in_base64(one) for one in tree]
    if not isinstance(tree, dict):
        return tree
    return {
        key: base64.b64encode(bytes.fromhex(value)).decode()
        if key in {"traceId", "spanId", "parentSpanId"}
        else _ids_in_base64(value)
        for key, value in tree.items()
    }


def _value(raw: AnyValue) -> Any:
    kind = raw.WhichOneof("value")
    if kind is None:
        return None
    if kind == "array_value":
        return tuple(_value(item) for item in raw.array_value.values)
    if kind == "kvlist_value":
        return attributes(raw.kvlist_value.values)
    return getattr(raw, kind)


def _number(point: Any) -> float:
    """Read the number of a gauge or sum, or the sum of observations."""
    if "value" in point.DESCRIPTOR.oneofs_by_name:
        return cast("float", getattr(point, point.WhichOneof("value") or "as_double"))
    return cast("float", point.sum)
