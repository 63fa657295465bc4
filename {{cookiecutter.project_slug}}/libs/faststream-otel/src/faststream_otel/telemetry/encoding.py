"""Cheaper OTLP: spans are written as protobuf's bytes, what repeats from memory.

Building protobuf objects is most of what exporting a span costs. Most of a messaging span repeats:
its name, system, operation, destination, consumer group, partition. The bytes are those of
`opentelemetry.proto.trace.v1.Span` (OTLP 1.x, trace.proto and common.proto), in the wire format
that protobuf specifies ("Encoding").
"""

import struct
from collections.abc import Sequence
from typing import Any

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans as encode_any_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.semconv.attributes import server_attributes as server

from . import semconv as messaging
from . import values
from ._opentelemetry import encode_with

_CONSTANTS = {
    messaging.MESSAGING_SYSTEM,
    messaging.MESSAGING_OPERATION_NAME,
    messaging.MESSAGING_OPERATION_TYPE,
    messaging.MESSAGING_DESTINATION_NAME,
    messaging.MESSAGING_DESTINATION_PARTITION_ID,
    messaging.MESSAGING_CONSUMER_GROUP_NAME,
    server.SERVER_ADDRESS,
}
_LIMIT = 10_000  # far more than a service has destinations and partitions

_remembered: dict[tuple[str, object], bytes] = {}
_prefixes: dict[tuple[bytes, str], bytes] = {}

_SHORT = [bytes((number,)) for number in range(128)]
_IDS = struct.Struct("<2s16s2s8s")
_TIMES = struct.Struct("<cQcQ")
_FLAGS = struct.Struct("<2sI")
_DOUBLE = struct.Struct("<cd")
# SpanFlags of trace.proto: whether it is known that the parent is remote, and that it is.
_HAS_IS_REMOTE, _IS_REMOTE = 0x100, 0x200


def install_encoder(exporter: Any) -> bool:
    """Have an OTLP span exporter encode with `encode_spans`; return whether it does."""
    return encode_with(exporter, encode_any_spans, encode_spans)


def encode_spans(spans: Sequence[ReadableSpan]) -> ExportTraceServiceRequest:
    """As the function of this name in opentelemetry-exporter-otlp-proto-common, in less time.

    Spans with events or links, and values that are no plain text or number, are left to that one,
    as `values` makes them fit for it.
    """
    plain: dict[tuple[int, int], list[bytes]] = {}
    firsts: dict[tuple[int, int], ReadableSpan] = {}
    others: list[ReadableSpan] = []
    for span in spans:
        encoded = _encode(span)
        if encoded is None:
            others.append(span)
            continue
        same = (id(span.resource), id(span.instrumentation_scope))
        if same not in plain:
            plain[same] = []
            firsts[same] = span
        plain[same].append(encoded)
    request = encode_any_spans(values.spans(others))
    for same, encoded_spans in plain.items():
        request.MergeFromString(_in_resource(firsts[same], encoded_spans))
    return request


def _in_resource(first: ReadableSpan, spans: list[bytes]) -> bytes:
    """One ResourceSpans of a request, with the resource and the scope of its first span."""
    (around,) = encode_any_spans(values.spans([first])).resource_spans
    (scope,) = around.scope_spans
    around.ClearField("scope_spans")
    scope.ClearField("spans")
    whole_scope = scope.SerializeToString() + b"".join(spans)
    whole = around.SerializeToString() + _field(b"\x12", whole_scope)
    return _field(b"\x0a", whole)


def _encode(span: ReadableSpan) -> bytes | None:
    """A span as a field of ScopeSpans; None if it is more than this can write."""
    context, parent, status = span.context, span.parent, span.status
    if context is None or context.trace_state or span.events or span.links or status.description:
        return None
    if span.dropped_attributes or span.dropped_events or span.dropped_links:
        return None
    try:
        attributes = [_attribute(key, value) for key, value in (span.attributes or {}).items()]
        name = _prefix(b"\x2a", span.name)
        times = _TIMES.pack(b"\x39", span.start_time or 0, b"\x41", span.end_time or 0)
        kind = _SHORT[span.kind.value + 1]
    except (AttributeError, TypeError, UnicodeEncodeError, struct.error):
        return None
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
        name,
        b"\x30",
        kind,
        times,
        *attributes,
        b"\x7a\x02\x18" + _SHORT[code] if code else b"\x7a\x00",
        _FLAGS.pack(b"\x85\x01", flags),
    ]  # fmt: skip
    return _field(b"\x12", b"".join(parts))


def _attribute(key: str, value: object) -> bytes:
    """A KeyValue as a field of Span. Raises TypeError for what is no plain value."""
    if key in _CONSTANTS and (known := _remembered.get((key, value))) is not None:
        return known
    if isinstance(value, str):
        content = _field(b"\x0a", value.encode())
    elif isinstance(value, bool):
        content = b"\x10\x01" if value else b"\x10\x00"
    elif isinstance(value, int) and -(2**63) <= value < 2**63:
        content = b"\x18" + _varint(value % 2**64)
    elif isinstance(value, float):
        content = _DOUBLE.pack(b"\x21", value)
    else:
        raise TypeError(type(value))
    encoded = _field(b"\x4a", _prefix(b"\x0a", key) + _field(b"\x12", content))
    if key in _CONSTANTS and len(_remembered) < _LIMIT:
        _remembered[key, value] = encoded
    return encoded


def _prefix(tag: bytes, text: str) -> bytes:
    """A field with a text that repeats, such as a name."""
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
