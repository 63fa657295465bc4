"""Span limits: enough links for a batch of messages, and no long texts.

OpenTelemetry writes the text of an exception into the span three times. Two spans with 2 MB each
make the receiver refuse the batch, with all other spans in it. OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT
limits attributes.
"""

import os
from collections.abc import Iterator, Sequence
from typing import Any, cast

from opentelemetry.sdk.environment_variables import OTEL_SPAN_LINK_COUNT_LIMIT
from opentelemetry.sdk.trace import Event, ReadableSpan, SpanLimits
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Status
from opentelemetry.util.types import AttributeValue

from .encoding import encode
from .errors import MAX_STACK, MAX_TEXT, bounded

# A link takes about 110 bytes. This many links, with their spans, stay below 4 MiB, the default
# limit of a receiver over gRPC.
MAX_LINKS_OF_EXPORT = 20_000
MAX_LINKS_OF_SPAN = MAX_LINKS_OF_EXPORT // 2


def span_limits() -> SpanLimits:
    """The limits of the `OTEL_*` variables, with a higher default of OTEL_SPAN_LINK_COUNT_LIMIT.

    The SDK's default of 128 links is too low: a batch may have more messages.
    """
    chosen = os.environ.get(OTEL_SPAN_LINK_COUNT_LIMIT)
    return SpanLimits(max_links=None if chosen else MAX_LINKS_OF_SPAN)


def export_in_parts(exporter: SpanExporter) -> None:
    """Make an exporter split spans with many links into several requests that receivers accept."""
    export = exporter.export

    def in_parts(spans: Sequence[ReadableSpan]) -> SpanExportResult:
        results = [export(part) for part in _parts(spans)]
        return max(results, key=lambda result: result.value)  # a failure, if there is one

    exporter.export = in_parts  # type: ignore[method-assign]


def _parts(spans: Sequence[ReadableSpan]) -> Iterator[Sequence[ReadableSpan]]:
    start = links = 0
    for position, span in enumerate(spans):
        links += len(span.links)
        if links > MAX_LINKS_OF_EXPORT and position > start:
            yield spans[start:position]
            start, links = position, len(span.links)
    yield spans[start:]


class LimitedSpanProcessor(BatchSpanProcessor):
    """A `BatchSpanProcessor` that cuts long status descriptions and long texts of events.

    If the exporter `takes_encoded` spans, it encodes most spans before they wait in the queue.
    """

    def __init__(self, exporter: SpanExporter, **options: Any) -> None:
        super().__init__(exporter, **options)
        self._encodes: bool = getattr(exporter, "takes_encoded", False)

    def on_end(self, span: ReadableSpan) -> None:
        if not (span.context and span.context.trace_flags.sampled):
            return
        span = _limited(span)
        encoded = encode(span) if self._encodes else None
        super().on_end(cast("ReadableSpan", encoded or span))


def _limited(span: ReadableSpan) -> ReadableSpan:
    description = span.status.description or ""
    if len(description) <= MAX_TEXT and not any(map(_is_long, span.events)):
        return span
    return _CutSpan(span, Status(span.status.status_code, bounded(description, MAX_TEXT) or None))


class _CutSpan(ReadableSpan):
    """A copy, since a span that has ended cannot be changed."""

    def __init__(self, span: ReadableSpan, status: Status) -> None:
        super().__init__(
            name=span.name,
            context=span.context,
            parent=span.parent,
            resource=span.resource,
            attributes=span.attributes,
            events=[
                Event(
                    event.name,
                    {name: _cut(value) for name, value in (event.attributes or {}).items()},
                    event.timestamp,
                )
                if _is_long(event)
                else event
                for event in span.events
            ],
            links=span.links,
            kind=span.kind,
            status=status,
            start_time=span.start_time,
            end_time=span.end_time,
            instrumentation_scope=span.instrumentation_scope,
        )
        # The constructor takes no counts: the SDK keeps them in its own collections.
        self._dropped = span.dropped_attributes, span.dropped_events, span.dropped_links

    @property
    def dropped_attributes(self) -> int:
        return self._dropped[0]

    @property
    def dropped_events(self) -> int:
        return self._dropped[1]

    @property
    def dropped_links(self) -> int:
        return self._dropped[2]


def _is_long(event: Event) -> bool:
    values = (event.attributes or {}).values()
    return any(isinstance(value, str) and len(value) > MAX_STACK for value in values)


def _cut(value: AttributeValue) -> AttributeValue:
    return bounded(value, MAX_STACK) if isinstance(value, str) else value
