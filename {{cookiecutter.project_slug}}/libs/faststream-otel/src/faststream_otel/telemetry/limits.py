"""Span limits: enough links for a batch of messages, and no long texts.

OpenTelemetry writes the text of an exception into the span three times. Two spans with 2 MB each
make the receiver refuse the batch, with all other spans in it. OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT
limits attributes.
"""

import os

from opentelemetry.sdk.environment_variables import OTEL_SPAN_LINK_COUNT_LIMIT
from opentelemetry.sdk.trace import Event, ReadableSpan, SpanLimits
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Status
from opentelemetry.util.types import AttributeValue

from .errors import MAX_STACK, MAX_TEXT, bounded

# A link takes about 110 bytes: this many stay far below 4 MiB, the default limit of a receiver over
# gRPC.
MAX_LINKS_OF_SPAN = 10_000


def span_limits() -> SpanLimits:
    """The limits of the `OTEL_*` variables, with a higher default of OTEL_SPAN_LINK_COUNT_LIMIT.

    The SDK's default of 128 links is too low: a batch may have more messages.
    """
    chosen = os.environ.get(OTEL_SPAN_LINK_COUNT_LIMIT)
    return SpanLimits(max_links=None if chosen else MAX_LINKS_OF_SPAN)


class LimitedSpanProcessor(BatchSpanProcessor):
    """A `BatchSpanProcessor` whose spans are `limited`, for an exporter of any kind."""

    def on_end(self, span: ReadableSpan) -> None:
        super().on_end(limited(span))


def limited(span: ReadableSpan) -> ReadableSpan:
    """The span, with a long status description and long texts of events cut."""
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
