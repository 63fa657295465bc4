"""Telemetry that raises harms nobody, be it a sampler, a propagator or a span processor."""

import logging
from typing import Any

from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, Span, Tracer, get_current_span

logger = logging.getLogger(__name__)

_noted: set[type[Exception]] = set()


def start_span(
    tracer: Tracer, name: str, *, context: Context | None = None, **options: Any
) -> Span:
    """As `Tracer.start_span`; where that raises, one that only passes on its parent's context."""
    try:
        return tracer.start_span(name, context=context, **options)
    except Exception as error:
        note_failure(error)
        return NonRecordingSpan(get_current_span(context).get_span_context())


def end_span(span: Span) -> None:
    """As `Span.end`, but never raises."""
    try:
        span.end()
    except Exception as error:
        note_failure(error)


def note_failure(error: Exception) -> None:
    """Log that telemetry raised: once per class of error, since it may do so for each message."""
    if type(error) not in _noted:
        _noted.add(type(error))
        logger.error("Telemetry failed; work goes on without it. Logged once.", exc_info=error)
