"""OTLP's protobuf messages read into `model` values, with whatever is wrong with them.

Each function returns the values and a list of problems in plain words. The rules are those of
opentelemetry-proto's comments and of the specification's "Trace", "Logs" and "Metrics" data models.
"""

import base64
from collections.abc import Iterable, Sequence
from typing import Any, cast

from google.protobuf.json_format import ParseDict, ParseError
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1 import logs_pb2
from opentelemetry.proto.metrics.v1 import metrics_pb2
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1 import trace_pb2

from .model import Event, Link, LogRecord, MetricPoint, Span, Status

_KIND = "SPAN_KIND_"
_STATUS = "STATUS_CODE_"


def spans(batches: Iterable[trace_pb2.ResourceSpans]) -> tuple[list[Span], list[str]]:
    """Read the spans of a request."""
    found: list[Span] = []
    problems: list[str] = []
    for batch in batches:
        resource, service = _resource(batch.resource, problems)
        for scoped in batch.scope_spans:
            for raw in scoped.spans:
                span = Span(
                    trace_id=raw.trace_id.hex(),
                    span_id=raw.span_id.hex(),
                    parent_id=raw.parent_span_id.hex() or None,
                    name=raw.name,
                    kind=trace_pb2.Span.SpanKind.Name(raw.kind).removeprefix(_KIND),
                    start_ns=raw.start_time_unix_nano,
                    end_ns=raw.end_time_unix_nano,
                    service=service,
                    attributes=_attributes(raw.attributes),
                    events=tuple(
                        Event(event.name, event.time_unix_nano, _attributes(event.attributes))
                        for event in raw.events
                    ),
                    links=tuple(
                        Link(link.trace_id.hex(), link.span_id.hex(), _attributes(link.attributes))
                        for link in raw.links
                    ),
                    status=cast(
                        "Status",
                        trace_pb2.Status.StatusCode.Name(raw.status.code).removeprefix(_STATUS),
                    ),
                    status_message=raw.status.message,
                    resource=resource,
                    scope=scoped.scope.name,
                    scope_version=scoped.scope.version,
                    schema_url=scoped.schema_url,
                )
                found.append(span)
                where = f"span {span.name!r} of {service or 'an unnamed service'}"
                problems += [f"{where}: {problem}" for problem in _span_problems(span)]
                problems += [f"{where}: {problem}" for problem in _key_problems(raw.attributes)]
    return found, problems


def spans_of_json(traces: Any, *, hex_ids: bool = False) -> list[Span]:
    """Read spans from the JSON of OTLP's TracesData, `{"resourceSpans": […]}`.

    Args:
        hex_ids: Whether ids are in hex, as OTLP's own JSON has them, or in base64, as protobuf's
            JSON mapping writes bytes.

    Raises:
        ValueError: It is no such JSON.
    """
    try:
        data = ParseDict(
            _ids_in_base64(traces) if hex_ids else traces,
            trace_pb2.TracesData(),
            ignore_unknown_fields=True,
        )
    except ParseError as error:
        raise ValueError(f"no OTLP in JSON: {error}") from error
    return spans(data.resource_spans)[0]


def logs(batches: Iterable[logs_pb2.ResourceLogs]) -> tuple[list[LogRecord], list[str]]:
    """Read the log records of a request."""
    found: list[LogRecord] = []
    problems: list[str] = []
    for batch in batches:
        resource, service = _resource(batch.resource, problems)
        for scoped in batch.scope_logs:
            for raw in scoped.log_records:
                number = raw.severity_number
                named = logs_pb2.SeverityNumber.Name(number).removeprefix("SEVERITY_NUMBER_")
                record = LogRecord(
                    time_ns=raw.time_unix_nano or raw.observed_time_unix_nano,
                    severity=raw.severity_text or named,
                    severity_number=number,
                    body=_value(raw.body),
                    service=service,
                    trace_id=raw.trace_id.hex() or None,
                    span_id=raw.span_id.hex() or None,
                    attributes=_attributes(raw.attributes),
                    resource=resource,
                    scope=scoped.scope.name,
                    event_name=raw.event_name,
                )
                found.append(record)
                where = f"log record {str(record.body)[:60]!r} of {service or 'an unnamed service'}"
                problems += [f"{where}: {problem}" for problem in _log_problems(record)]
                problems += [f"{where}: {problem}" for problem in _key_problems(raw.attributes)]
    return found, problems


def metrics(batches: Iterable[metrics_pb2.ResourceMetrics]) -> tuple[list[MetricPoint], list[str]]:
    """Read the data points of a request."""
    found: list[MetricPoint] = []
    problems: list[str] = []
    for batch in batches:
        resource, service = _resource(batch.resource, problems)
        for scoped in batch.scope_metrics:
            for metric in scoped.metrics:
                where = f"metric {metric.name!r} of {service or 'an unnamed service'}"
                kind = metric.WhichOneof("data")
                if not metric.name:
                    problems.append(f"{where}: has no name")
                if kind is None:
                    problems.append(f"{where}: has no data")
                    continue
                data: Any = getattr(metric, kind)
                temporality = getattr(data, "aggregation_temporality", None)
                if temporality == metrics_pb2.AGGREGATION_TEMPORALITY_UNSPECIFIED:
                    problems.append(f"{where}: its temporality is unspecified")
                for raw in data.data_points:
                    found.append(
                        MetricPoint(
                            name=metric.name,
                            kind=kind,
                            time_ns=raw.time_unix_nano,
                            value=_number(raw),
                            unit=metric.unit,
                            service=service,
                            attributes=_attributes(raw.attributes),
                            count=getattr(raw, "count", 0),
                            bounds=tuple(getattr(raw, "explicit_bounds", ())),
                            bucket_counts=tuple(getattr(raw, "bucket_counts", ())),
                            cumulative=temporality != metrics_pb2.AGGREGATION_TEMPORALITY_DELTA,
                            monotonic=getattr(data, "is_monotonic", False),
                            resource=resource,
                            scope=scoped.scope.name,
                        )
                    )
                    problems += [f"{where}: {problem}" for problem in _point_problems(found[-1])]
                    problems += [f"{where}: {problem}" for problem in _key_problems(raw.attributes)]
    return found, problems


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


def _resource(raw: Resource, problems: list[str]) -> tuple[dict[str, Any], str]:
    attributes = _attributes(raw.attributes)
    service = attributes.get("service.name")
    if not isinstance(service, str) or not service:
        problems.append(f"resource without service.name: {attributes}")
        service = ""
    problems += [f"resource of {service!r}: {one}" for one in _key_problems(raw.attributes)]
    return attributes, service


def _span_problems(span: Span) -> list[str]:
    problems = [
        *_id_problems("trace id", span.trace_id, 16),
        *_id_problems("span id", span.span_id, 8),
    ]
    if span.parent_id is not None:
        problems += _id_problems("parent id", span.parent_id, 8)
        if span.parent_id == span.span_id:
            problems.append("is its own parent")
    for link in span.links:
        problems += _id_problems("trace id of a link", link.trace_id, 16)
        problems += _id_problems("span id of a link", link.span_id, 8)
    if not span.name:
        problems.append("has no name")
    if span.kind == "UNSPECIFIED":
        problems.append("its kind is unspecified")
    if not span.start_ns:
        problems.append("has no start time")
    if span.end_ns < span.start_ns:
        problems.append(f"ends {span.start_ns - span.end_ns} ns before it starts")
    if any(not event.name for event in span.events):
        problems.append("has an event without a name")
    return problems


def _log_problems(record: LogRecord) -> list[str]:
    problems = []
    if record.trace_id is not None:
        problems += _id_problems("trace id", record.trace_id, 16)
    if record.span_id is not None:
        problems += _id_problems("span id", record.span_id, 8)
        if record.trace_id is None:
            problems.append("has a span id but no trace id")
    if not record.time_ns:
        problems.append("has no time")
    return problems


def _point_problems(point: MetricPoint) -> list[str]:
    problems = []
    if not point.time_ns:
        problems.append("a point has no time")
    if point.kind == "histogram" and point.bucket_counts:
        if len(point.bucket_counts) != len(point.bounds) + 1:
            problems.append(f"{len(point.bounds)} bounds, {len(point.bucket_counts)} buckets")
        if sum(point.bucket_counts) != point.count:
            problems.append(f"its buckets hold {sum(point.bucket_counts)}, not {point.count}")
        if list(point.bounds) != sorted(set(point.bounds)):
            problems.append("its bounds do not increase")
    return problems


def _id_problems(what: str, value: str, length: int) -> list[str]:
    if len(value) != 2 * length:
        return [f"{what} has {len(value) // 2} bytes instead of {length}"]
    if not value.strip("0"):
        return [f"{what} is zero"]
    return []


def _key_problems(attributes: Sequence[KeyValue]) -> list[str]:
    keys = [attribute.key for attribute in attributes]
    problems = [f"has attribute {key!r} twice" for key in sorted(set(keys)) if keys.count(key) > 1]
    if "" in keys:
        problems.append("has an attribute without a name")
    return problems


def _attributes(raw: Iterable[KeyValue]) -> dict[str, Any]:
    return {attribute.key: _value(attribute.value) for attribute in raw}


def _value(raw: AnyValue) -> Any:
    """Read a value; arrays become tuples, maps become dictionaries, an empty one None."""
    kind = raw.WhichOneof("value")
    if kind is None:
        return None
    if kind == "array_value":
        return tuple(_value(item) for item in raw.array_value.values)
    if kind == "kvlist_value":
        return _attributes(raw.kvlist_value.values)
    return getattr(raw, kind)


def _number(point: Any) -> float:
    """Read the number of a gauge or sum, or the sum of what was observed."""
    kinds = point.DESCRIPTOR.oneofs_by_name
    if "value" in kinds:
        return cast("float", getattr(point, point.WhichOneof("value") or "as_double"))
    return cast("float", point.sum)
