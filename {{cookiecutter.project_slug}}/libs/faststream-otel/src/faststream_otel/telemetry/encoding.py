"""A cheaper OTLP encoder: writes protobuf bytes, and caches repeated parts.

Building protobuf objects is most of the cost of exporting a span or a log record. Most parts of a
messaging span repeat: its name, system, operation, destination, consumer group, partition. The
bytes are those of `opentelemetry.proto.trace.v1.Span` and `.logs.v1.LogRecord` (OTLP 1.x,
trace.proto, logs.proto and common.proto), in protobuf's wire format (protobuf documentation,
"Encoding").

A span is encoded when it ends, a log record when it is emitted. The bytes take a quarter of the
memory that their objects take in a queue, of a batch's links a tenth, and the garbage collector
does not look at them.
"""

import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias

from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs as encode_any_records
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans as encode_any_spans
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk._logs import ReadableLogRecord, ReadWriteLogRecord
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.semconv.attributes import server_attributes as server
from opentelemetry.trace import Link, SpanContext, TraceFlags

from . import semconv as messaging
from . import values
from ._opentelemetry import encode_with
from .environment import Signal
from .limits import limited

_CONSTANTS = {
    messaging.MESSAGING_SYSTEM,
    messaging.MESSAGING_OPERATION_NAME,
    messaging.MESSAGING_OPERATION_TYPE,
    messaging.MESSAGING_DESTINATION_NAME,
    messaging.MESSAGING_DESTINATION_TEMPLATE,
    messaging.MESSAGING_DESTINATION_PARTITION_ID,
    messaging.MESSAGING_CONSUMER_GROUP_NAME,
    server.SERVER_ADDRESS,
}
_LIMIT = 10_000  # far more than a service has destinations and partitions

_remembered: dict[bytes, dict[tuple[str, object], bytes]] = {
    tag: {} for tag in (b"\x4a", b"\x32", b"\x1a", b"\x22")
}
"""Whole attributes, by the tag of their field: of a span, a log record, an event, a link."""
_prefixes: dict[tuple[bytes, str], bytes] = {}
_places: dict[tuple[int, int], "Place"] = {}

_SHORT = [bytes((number,)) for number in range(128)]
_IDS = struct.Struct("<2s16s2s8s")
_TIMES = struct.Struct("<cQcQ")
_FLAGS = struct.Struct("<2sI")
_DOUBLE = struct.Struct("<cd")
_SOME = SpanContext(1, 1, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))
# SpanFlags of trace.proto: whether the next bit is meaningful; whether the parent is remote.
_HAS_IS_REMOTE, _IS_REMOTE = 0x100, 0x200


Encoded: TypeAlias = "tuple[bytes, Place]"
"""A span as a field of ScopeSpans, or a log record as a field of ScopeLogs; and its place."""


class Encodeds(list[Encoded]):
    """Encoded spans or log records, as exporters with our encoder take them."""


class Place(NamedTuple):
    """A resource and a scope, and what a request has of them around encoded items."""

    resource: Resource
    scope: InstrumentationScope | None
    of_resource: bytes
    of_scope: bytes

    def around(self, items: Iterable[bytes]) -> bytes:
        """A field of a request. Those of spans and of log records have the same numbers."""
        scoped = self.of_scope + b"".join(items)
        return _field(b"\x0a", self.of_resource + _field(b"\x12", scoped))


class EncodedRequest:
    """An encoded export request, for an exporter over HTTP, which only serializes it.

    Making one of protobuf from it takes several times as long as joining what is encoded.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data

    def SerializeToString(self) -> bytes:  # noqa: N802 (protobuf's name)
        return self._data

    SerializePartialToString = SerializeToString


def install_encoder(exporter: Any, signal: Signal, protocol: str) -> bool:
    """Make an OTLP exporter of spans or log records encode with ours. Returns whether it does.

    Such an exporter also takes `Encodeds`.
    """
    grpc = protocol == "grpc"
    if signal == "traces":
        return encode_with(exporter, encode_any_spans, encode_spans if grpc else spans_over_http)
    return signal == "logs" and encode_with(
        exporter, encode_any_records, encode_records if grpc else records_over_http
    )


def encode(span: ReadableSpan) -> Encoded:
    """Encode an ended span, within the limits of `limits`.

    The exporter's own encoder still encodes one with a trace state, or with attributes that are
    neither text nor numbers. `values` first makes it encodable. Raises if nothing does.
    """
    events = span.events
    if events or span.status.description:
        span = limited(span)
        events = span.events
    try:
        data = _encode(span, events)
    except Exception:
        (of_resource,) = encode_any_spans(values.spans([span])).resource_spans
        data = _field(b"\x12", of_resource.scope_spans[0].spans[0].SerializeToString())
    return data, place_of(span.resource, span.instrumentation_scope)


def encode_record(record: ReadableLogRecord | ReadWriteLogRecord) -> Encoded:
    """Encode a log record.

    The exporter's own encoder still encodes one whose body or attributes are neither texts nor
    numbers. `values` first makes it encodable. Raises if nothing does.
    """
    resource = record.resource or Resource.get_empty()
    try:
        data = _encode_record(record)
    except Exception:
        readable = ReadableLogRecord(
            record.log_record, resource, record.instrumentation_scope, record.limits
        )
        (of_resource,) = encode_any_records(values.records([readable])).resource_logs
        data = _field(b"\x12", of_resource.scope_logs[0].log_records[0].SerializeToString())
    return data, place_of(resource, record.instrumentation_scope)


def encode_spans(spans: Sequence[ReadableSpan] | Encodeds) -> ExportTraceServiceRequest:
    """A faster `encode_spans` of opentelemetry-exporter-otlp-proto-common, with the same result."""
    return ExportTraceServiceRequest.FromString(_request(spans, encode))


def encode_records(records: Sequence[ReadableLogRecord] | Encodeds) -> ExportLogsServiceRequest:
    """A faster `encode_logs` of opentelemetry-exporter-otlp-proto-common, with the same result."""
    return ExportLogsServiceRequest.FromString(_request(records, encode_record))


def spans_over_http(spans: Sequence[ReadableSpan] | Encodeds) -> EncodedRequest:
    """As `encode_spans`, for an exporter over HTTP."""
    return EncodedRequest(_request(spans, encode))


def records_over_http(records: Sequence[ReadableLogRecord] | Encodeds) -> EncodedRequest:
    """As `encode_records`, for an exporter over HTTP."""
    return EncodedRequest(_request(records, encode_record))


def _request(items: Any, encode: Callable[[Any], Encoded]) -> bytes:
    if not isinstance(items, Encodeds):
        items = Encodeds(map(encode, items))
    together: dict[int, tuple[Place, list[bytes]]] = {}
    for data, place in items:
        together.setdefault(id(place), (place, []))[1].append(data)
    return b"".join(place.around(of_place) for place, of_place in together.values())


def place_of(resource: Resource, scope: InstrumentationScope | None) -> Place:
    key = id(resource), id(scope)  # a place refers to both, so that their ids stay theirs
    if (known := _places.get(key)) is None:
        span = ReadableSpan("", _SOME, resource=resource, instrumentation_scope=scope)
        (around,) = encode_any_spans(values.spans([span])).resource_spans
        (scoped,) = around.scope_spans
        around.ClearField("scope_spans")
        scoped.ClearField("spans")
        known = Place(resource, scope, around.SerializeToString(), scoped.SerializeToString())
        if len(_places) >= _LIMIT:
            _places.clear()
        _places[key] = known
    return known


def _encode(span: ReadableSpan, events: Sequence[Event]) -> bytes:
    """A span as a field of ScopeSpans. Raises if this encoder does not support it."""
    context, parent, status = span.context, span.parent, span.status
    if context is None or context.trace_state:
        raise ValueError
    state = b"\x18" + _SHORT[status.status_code.value] if status.status_code.value else b""
    if status.description:
        state += _field(b"\x12", status.description.encode())
    parts = [
        _IDS.pack(
            b"\x0a\x10", context.trace_id.to_bytes(16, "big"),
            b"\x12\x08", context.span_id.to_bytes(8, "big"),
        ),
        b"\x22\x08" + parent.span_id.to_bytes(8, "big") if parent else b"",
        _prefix(b"\x2a", span.name),
        b"\x30",
        _SHORT[span.kind.value + 1],
        _TIMES.pack(b"\x39", span.start_time or 0, b"\x41", span.end_time or 0),
        *_attributes(b"\x4a", span.attributes),
        _count(b"\x50", span.dropped_attributes),
        *[_field(b"\x5a", _event(event)) for event in events],
        _count(b"\x60", span.dropped_events),
        *[_field(b"\x6a", _link(link)) for link in span.links],
        _count(b"\x70", span.dropped_links),
        _field(b"\x7a", state),
        _FLAGS.pack(b"\x85\x01", _flags(parent)),
    ]  # fmt: skip
    return _field(b"\x12", b"".join(parts))


def _event(event: Event) -> bytes:
    parts = [
        b"\x09" + event.timestamp.to_bytes(8, "little"),
        _prefix(b"\x12", event.name),
        *_attributes(b"\x1a", event.attributes),
        _count(b"\x20", event.dropped_attributes),
    ]
    return b"".join(parts)


def _link(link: Link) -> bytes:
    parts = [
        _IDS.pack(
            b"\x0a\x10", link.context.trace_id.to_bytes(16, "big"),
            b"\x12\x08", link.context.span_id.to_bytes(8, "big"),
        ),
        *_attributes(b"\x22", link.attributes),
        _count(b"\x28", link.dropped_attributes),
        b"\x35" + _flags(link.context).to_bytes(4, "little"),
    ]  # fmt: skip
    return b"".join(parts)


def _flags(context: SpanContext | None) -> int:
    return _HAS_IS_REMOTE | (_IS_REMOTE if context and context.is_remote else 0)


def _count(tag: bytes, number: int) -> bytes:
    return tag + _varint(number) if number else b""


def _encode_record(readable: ReadableLogRecord | ReadWriteLogRecord) -> bytes:
    """A log record as a field of ScopeLogs. Raises if this encoder does not support a value."""
    record = readable.log_record
    if readable.dropped_attributes:
        raise ValueError
    more = b"".join(_attributes(b"\x32", record.attributes))
    if record.event_name:
        more += _field(b"\x62", record.event_name.encode())
    return encode_text(
        record.timestamp or 0, record.observed_timestamp or 0,
        record.severity_number.value if record.severity_number else 0, record.severity_text,
        record.body, more, record.trace_id or 0, record.span_id or 0, record.trace_flags or 0,
    )  # fmt: skip


def encode_text(
    timestamp: int, observed: int, severity: int, severity_text: str | None, body: object,
    more: bytes, trace_id: int, span_id: int, flags: int,
) -> bytes:  # fmt: skip
    """A log record as a field of ScopeLogs.

    Args:
        timestamp: Nanoseconds since 1970, as the next one.
        severity: The number.
        body: Raises TypeError if it is neither text nor a number.
        more: Further fields, encoded.
    """
    parts = [
        _TIMES.pack(b"\x09", timestamp, b"\x59", observed),
        b"\x10" + _SHORT[severity] if severity else b"",
        _prefix(b"\x1a", severity_text) if severity_text else b"",
        _field(b"\x2a", b"" if body is None else _any_value(body)),
        more,
        b"\x4a\x10" + trace_id.to_bytes(16, "big") if trace_id else b"",
        b"\x52\x08" + span_id.to_bytes(8, "big") if span_id else b"",
        b"\x45" + flags.to_bytes(4, "little") if flags else b"",
    ]
    return _field(b"\x12", b"".join(parts))


def _attributes(tag: bytes, attributes: Any) -> list[bytes]:
    """Each attribute as a field. Raises if a value is neither text nor a number."""
    if not attributes:
        return []
    # A copy is a plain dictionary; the SDK's own is several times slower to read.
    known = _remembered[tag]
    return [known.get(one) or _attribute(tag, *one) for one in attributes.copy().items()]


def _attribute(tag: bytes, key: str, value: object) -> bytes:
    content = _any_value(value)
    pair = b"".join((_prefix(b"\x0a", key), b"\x12", _varint(len(content)), content))
    encoded = tag + _varint(len(pair)) + pair
    known = _remembered[tag]
    # Not numbers: 1, 1.0 and True are equal.
    if key in _CONSTANTS and isinstance(value, str) and len(known) < _LIMIT:
        known[key, value] = encoded
    return encoded


def _any_value(value: object) -> bytes:
    """An AnyValue. Raises TypeError if the value is neither text nor a number."""
    if isinstance(value, str):
        text = value.encode()
        return b"\x0a" + _varint(len(text)) + text
    if isinstance(value, bool):
        return b"\x10\x01" if value else b"\x10\x00"
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return b"\x18" + _varint(value % 2**64)
    if isinstance(value, float):
        return _DOUBLE.pack(b"\x21", value)
    raise TypeError(type(value))


def _prefix(tag: bytes, text: str) -> bytes:
    """A text field whose value repeats, such as a name; cached."""
    known = _prefixes.get((tag, text))
    if known is None:
        known = _field(tag, text.encode())
        if len(_prefixes) < _LIMIT:
            _prefixes[tag, text] = known
    return known


def _field(tag: bytes, content: bytes) -> bytes:
    return tag + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    if number < 128:
        return _SHORT[number]
    digits = bytearray()
    while number > 127:
        digits.append(number & 127 | 128)
        number >>= 7
    digits.append(number)
    return bytes(digits)
