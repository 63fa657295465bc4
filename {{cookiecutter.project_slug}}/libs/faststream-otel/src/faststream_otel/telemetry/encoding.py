"""A cheaper OTLP encoder: writes protobuf bytes, and caches repeated parts.

Building protobuf objects is most of the cost of exporting a span or a log record. Most parts of a
messaging span repeat: its name, system, operation, destination, consumer group, partition. The
bytes are those of `opentelemetry.proto.trace.v1.Span` and `.logs.v1.LogRecord` (OTLP 1.x,
trace.proto, logs.proto and common.proto), in protobuf's wire format (protobuf documentation,
"Encoding").

A span is encoded when it ends. The bytes take a quarter of the memory that the span's objects take
in the queue, of a batch's links a tenth, and the garbage collector does not look at them.
"""

import struct
from collections.abc import Iterable, Sequence
from typing import Any

from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs as encode_any_records
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans as encode_any_spans
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.semconv.attributes import server_attributes as server
from opentelemetry.trace import Link, SpanContext, TraceFlags

from . import semconv as messaging
from . import values
from ._opentelemetry import encode_with
from .environment import Signal

_CONSTANTS = {
    messaging.MESSAGING_SYSTEM,
    messaging.MESSAGING_OPERATION_NAME,
    messaging.MESSAGING_OPERATION_TYPE,
    messaging.MESSAGING_DESTINATION_NAME,
    messaging.MESSAGING_DESTINATION_TEMPLATE,
    messaging.MESSAGING_DESTINATION_PARTITION_ID,
    messaging.MESSAGING_CONSUMER_GROUP_NAME,
    server.SERVER_ADDRESS,
    server.SERVER_PORT,
}
_LIMIT = 10_000  # far more than a service has destinations and partitions

_remembered: dict[tuple[bytes, str, object], bytes] = {}
_prefixes: dict[tuple[bytes, str], bytes] = {}

_SHORT = [bytes((number,)) for number in range(128)]
_IDS = struct.Struct("<2s16s2s8s")
_TIMES = struct.Struct("<cQcQ")
_FLAGS = struct.Struct("<2sI")
_DOUBLE = struct.Struct("<cd")
# SpanFlags of trace.proto: whether the next bit is meaningful; whether the parent is remote.
_HAS_IS_REMOTE, _IS_REMOTE = 0x100, 0x200


def install_encoder(exporter: Any, signal: Signal) -> bool:
    """Make an OTLP exporter of spans or log records encode with ours. Returns whether it does."""
    if signal == "traces":
        return encode_with(exporter, encode_any_spans, encode_spans)
    return signal == "logs" and encode_with(exporter, encode_any_records, encode_records)


class EncodedSpan:
    """An ended span, encoded. Of a `ReadableSpan` it has what a batch processor reads."""

    __slots__ = ("data", "links", "resource", "scope")

    context = SpanContext(1, 1, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))

    def __init__(self, data: bytes, span: ReadableSpan) -> None:
        self.data = data
        self.links = range(len(span.links))  # only their number is of use now
        self.resource = span.resource
        self.scope = span.instrumentation_scope


def encode(span: ReadableSpan) -> EncodedSpan | None:
    """Encode a sampled span. None for one that this encoder does not support. Never raises."""
    try:
        data = _encode(span)
    except Exception:  # an odd value, which the exporter's own encoder sees later
        return None
    return None if data is None else EncodedSpan(data, span)


def encode_spans(spans: Sequence[ReadableSpan | EncodedSpan]) -> ExportTraceServiceRequest:
    """A faster `encode_spans` of opentelemetry-exporter-otlp-proto-common, with the same result.

    That function still encodes spans with a trace state, or with attributes that are neither text
    nor numbers. `values` first makes them encodable.
    """
    plain: dict[tuple[int, int], list[EncodedSpan]] = {}
    others: list[ReadableSpan] = []
    for span in spans:
        if isinstance(span, EncodedSpan):
            encoded = span
        elif (now := encode(span)) is not None:
            encoded = now
        else:
            others.append(span)
            continue
        plain.setdefault((id(encoded.resource), id(encoded.scope)), []).append(encoded)
    request = encode_any_spans(values.spans(others))
    for together in plain.values():
        one = together[0]
        first = ReadableSpan(
            "", EncodedSpan.context, resource=one.resource, instrumentation_scope=one.scope
        )
        (around,) = encode_any_spans(values.spans([first])).resource_spans
        (scope,) = around.scope_spans
        around.ClearField("scope_spans")
        scope.ClearField("spans")
        request.MergeFromString(_in_resource(around, scope, (span.data for span in together)))
    return request


def encode_records(records: Sequence[ReadableLogRecord]) -> ExportLogsServiceRequest:
    """A faster `encode_logs` of opentelemetry-exporter-otlp-proto-common, with the same result.

    That function still encodes records whose body or attributes are neither texts nor numbers.
    """
    plain: dict[tuple[int, int], list[bytes]] = {}
    firsts: dict[tuple[int, int], ReadableLogRecord] = {}
    others: list[ReadableLogRecord] = []
    for record in records:
        try:
            encoded = _encode_record(record)
        except Exception:  # an odd value, which `values` converts
            others.append(record)
            continue
        same = (id(record.resource), id(record.instrumentation_scope))
        firsts.setdefault(same, record)
        plain.setdefault(same, []).append(encoded)
    request = encode_any_records(values.records(others))
    for same, together in plain.items():
        (around,) = encode_any_records(values.records([firsts[same]])).resource_logs
        (scope,) = around.scope_logs
        around.ClearField("scope_logs")
        scope.ClearField("log_records")
        request.MergeFromString(_in_resource(around, scope, together))
    return request


def _in_resource(around: Any, scope: Any, encoded: Iterable[bytes]) -> bytes:
    """A field of the request: encoded spans or records, in their scope and resource."""
    whole_scope = scope.SerializeToString() + b"".join(encoded)
    return _field(b"\x0a", around.SerializeToString() + _field(b"\x12", whole_scope))


def _encode(span: ReadableSpan) -> bytes | None:
    """A span as a field of ScopeSpans; None for a span that this encoder does not support.

    Raises any error if a value is not of the type that it should have.
    """
    context, parent, status = span.context, span.parent, span.status
    if context is None or context.trace_state:
        return None
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
        *[_field(b"\x5a", _event(event)) for event in span.events],
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


def _encode_record(readable: ReadableLogRecord) -> bytes:
    """A log record as a field of ScopeLogs. Raises if this encoder does not support a value."""
    record = readable.log_record
    if readable.dropped_attributes:
        raise ValueError
    parts = [
        _TIMES.pack(b"\x09", record.timestamp or 0, b"\x59", record.observed_timestamp or 0),
        b"\x10" + _varint(record.severity_number.value) if record.severity_number else b"",
        _prefix(b"\x1a", record.severity_text) if record.severity_text else b"",
        _field(b"\x2a", b"" if record.body is None else _any_value(record.body)),
        *_attributes(b"\x32", record.attributes),
        _field(b"\x62", record.event_name.encode()) if record.event_name else b"",
    ]
    if record.trace_id:
        parts.append(b"\x4a\x10" + record.trace_id.to_bytes(16, "big"))
    if record.span_id:
        parts.append(b"\x52\x08" + record.span_id.to_bytes(8, "big"))
    if record.trace_flags:
        parts.append(b"\x45" + record.trace_flags.to_bytes(4, "little"))
    return _field(b"\x12", b"".join(parts))


def _attributes(tag: bytes, attributes: Any) -> list[bytes]:
    if not attributes:
        return []
    # A copy is a plain dictionary; the SDK's own is several times slower to read.
    return [_attribute(tag, key, value) for key, value in attributes.copy().items()]


def _attribute(tag: bytes, key: str, value: object) -> bytes:
    """A KeyValue as a field. Raises TypeError if the value is neither text nor a number."""
    if key in _CONSTANTS and (known := _remembered.get((tag, key, value))) is not None:
        return known
    content = _any_value(value)
    pair = b"%b\x12%b%b" % (_prefix(b"\x0a", key), _varint(len(content)), content)
    encoded = tag + _varint(len(pair)) + pair
    if key in _CONSTANTS and len(_remembered) < _LIMIT:
        _remembered[tag, key, value] = encoded
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
