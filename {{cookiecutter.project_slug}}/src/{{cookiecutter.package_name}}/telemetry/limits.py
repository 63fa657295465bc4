"""Spans whose texts are too long are cut before they are queued.

Whatever an exception holds, OpenTelemetry writes it into the span three times; two of 2 MB, and the
receiver refuses the batch, with 510 other spans in it. Attributes are limited by
OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT.
"""

from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Status
from opentelemetry.util.types import AttributeValue

from .errors import MAX_STACK, MAX_TEXT, bounded


class LimitedSpanProcessor(BatchSpanProcessor):
    """OpenTelemetry's, but for the length of status descriptions and of events' texts."""

    def on_end(self, span: ReadableSpan) -> None:
        super().on_end(_limited(span) if span.status.description or span.events else span)


def _limited(span: ReadableSpan) -> ReadableSpan:
    description = span.status.description or ""
    if len(description) <= MAX_TEXT and not any(map(_is_long, span.events)):
        return span
    return ReadableSpan(
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
            for event in span.events
        ],
        links=span.links,
        kind=span.kind,
        status=Status(span.status.status_code, bounded(description, MAX_TEXT) or None),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _is_long(event: Event) -> bool:
    values = (event.attributes or {}).values()
    return any(isinstance(value, str) and len(value) > MAX_STACK for value in values)


def _cut(value: AttributeValue) -> AttributeValue:
    return bounded(value, MAX_STACK) if isinstance(value, str) else value
