"""A cheaper OTLP encoder: writes spans as protobuf bytes, and caches repeated parts.

Building protobuf objects is most of the cost of exporting a span. Most parts of a messaging span
repeat: its name, system, operation, destination, consumer group, partition. The bytes are those of
`opentelemetry.proto.trace.v1.Span` (OTLP 1.x, trace.proto and common.proto), in protobuf's wire
format (protobuf documentation, "Encoding").

A span is encoded when it ends. The bytes take a quarter of the memory that the span's objects take
in the queue, and the garbage collector does not look at them.
"""

import struct
from collections.abc import Sequence
from typing import Any

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans as encode_any_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.semconv.attributes import server_attributes as server
from opentelemetry.trace import Link, SpanContext, TraceFlags

from . import semconv as messaging
from . import values
from ._opentelemetry import encode_with

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

_remembered: dict[tuple[str, object], bytes] = {}
_prefixes: dict[tuple[bytes, str], bytes] = {}

_SHORT = [bytes((number,)) for number in range(128)]
_IDS = struct.Struct("<2s16s2s8s")
_TIMES = struct.Struct("<cQcQ")
_FLAGS = struct.Struct("<2sI")
_DOUBLE = struct.Struct("<cd")
# SpanFlags of trace.proto: whether the next bit is meaningful; whether the parent is remote.
_HAS_IS_REMOTE, _IS_REMOTE = 0x100, 0x200


def install_encoder(exporter: Any) -> bool:
    """Make an OTLP span exporter encode with `encode_spans`. Returns whether it does."""
    return encode_with(exporter, encode_any_spans, encode_spans)


class EncodedSpan:
    """An ended span, encoded. Of a `ReadableSpan` it has what a batch processor reads."""

    __slots__ = ("data", "resource", "scope")

    context = SpanContext(1, 1, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))
    links: Sequence[Link] = ()

    def __init__(self, data: bytes, resource: Resource, scope: InstrumentationScope | None) -> None:
        self.data = data
        self.resource = resource
        self.scope = scope


def encode(span: ReadableSpan) -> EncodedSpan | None:
    """Encode a sampled span. None for one that this encoder does not support. Never raises."""
    try:
        data = _encode(span)
    except Exception:  # an odd value, which the exporter's own encoder sees later
        return None
    return None if data is None else EncodedSpan(data, span.resource, span.instrumentation_scope)


def encode_spans(spans: Sequence[ReadableSpan | EncodedSpan]) -> ExportTraceServiceRequest:
    """A faster `encode_spans` of opentelemetry-exporter-otlp-proto-common, with the same result.

    That function still encodes spans that have events, links, or attributes that are neither text
    nor numbers. `values` first makes them encodable.
    """
    plain: dict[tuple[int, int], list[EncodedSpan]] = {}
    others: list[ReadableSpan] = []
    for span in spans:
        encoded = span if isinstance(span, EncodedSpan) else encode(span)
        if encoded is None:
            others.append(span)
        else:
            plain.setdefault((id(encoded.resource), id(encoded.scope)), []).append(encoded)
    request = encode_any_spans(values.spans(others))
    for together in plain.values():
        request.MergeFromString(_in_resource(together))
    return request


def _in_resource(spans: Sequence[EncodedSpan]) -> bytes:
    """A ResourceSpans field of the request, for spans of one resource and one scope."""
    first = ReadableSpan(
        "",
        EncodedSpan.context,
        resource=spans[0].resource,
        instrumentation_scope=spans[0].scope,
    )
    (around,) = encode_any_spans(values.spans([first])).resource_spans
    (scope,) = around.scope_spans
    around.ClearField("scope_spans")
    scope.ClearField("spans")
    whole_scope = scope.SerializeToString() + b"".join([span.data for span in spans])
    whole = around.SerializeToString() + _field(b"\x12", whole_scope)
    return _field(b"\x0a", whole)


def _encode(span: ReadableSpan) -> bytes | None:
    """A span as a field of ScopeSpans; None for a span that this encoder does not support.

    Raises any error if a value is not of the type that it should have.
    """
    context, parent, status = span.context, span.parent, span.status
    if context is None or context.trace_state or span.events or span.links or status.description:
        return None
    if span.dropped_attributes or span.dropped_events or span.dropped_links:
        return None
    # A copy is a plain dictionary; the SDK's own is several times slower to read.
    attributes = span.attributes.copy() if span.attributes else {}  # type: ignore[attr-defined]
    flags = _HAS_IS_REMOTE
    above = b""
    if parent:
        above = b"\x22\x08" + parent.span_id.to_bytes(8, "big")
        if parent.is_remote:
            flags |= _IS_REMOTE
    code = status.status_code.value
    parts = [
        _IDS.pack(
            b"\x0a\x10", context.trace_id.to_bytes(16, "big"),
            b"\x12\x08", context.span_id.to_bytes(8, "big"),
        ),
        above,
        _prefix(b"\x2a", span.name),
        b"\x30",
        _SHORT[span.kind.value + 1],
        _TIMES.pack(b"\x39", span.start_time or 0, b"\x41", span.end_time or 0),
        *[_attribute(key, value) for key, value in attributes.items()],
        b"\x7a\x02\x18" + _SHORT[code] if code else b"\x7a\x00",
        _FLAGS.pack(b"\x85\x01", flags),
    ]  # fmt: skip
    return _field(b"\x12", b"".join(parts))


def _attribute(key: str, value: object) -> bytes:
    """A KeyValue as a field of Span. Raises TypeError if the value is neither text nor a number."""
    if key in _CONSTANTS and (known := _remembered.get((key, value))) is not None:
        return known
    if isinstance(value, str):
        text = value.encode()
        content = b"\x0a" + _varint(len(text)) + text
    elif isinstance(value, bool):
        content = b"\x10\x01" if value else b"\x10\x00"
    elif isinstance(value, int) and -(2**63) <= value < 2**63:
        content = b"\x18" + _varint(value % 2**64)
    elif isinstance(value, float):
        content = _DOUBLE.pack(b"\x21", value)
    else:
        raise TypeError(type(value))
    pair = b"%b\x12%b%b" % (_prefix(b"\x0a", key), _varint(len(content)), content)
    encoded = b"\x4a" + _varint(len(pair)) + pair
    if key in _CONSTANTS and len(_remembered) < _LIMIT:
        _remembered[key, value] = encoded
    return encoded


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
