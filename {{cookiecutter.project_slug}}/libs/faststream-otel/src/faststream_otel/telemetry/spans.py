"""Keeps errors of telemetry away from the service: a sampler or a span processor may raise."""

import logging
from typing import Any

from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, Span, Tracer, get_current_span

logger = logging.getLogger(__name__)

_logged: set[type[Exception]] = set()


def start_span(
    tracer: Tracer, name: str, *, context: Context | None = None, **options: Any
) -> Span:
    """Like `Tracer.start_span`. If that raises, the span only passes on its parent's context."""
    try:
        return tracer.start_span(name, context=context, **options)
    except Exception as error:
        log_failure(error)
        return NonRecordingSpan(get_current_span(context).get_span_context())


def end_span(span: Span) -> None:
    """Like `Span.end`, but never raises."""
    try:
        span.end()
    except Exception as error:
        log_failure(error)


def log_failure(error: Exception) -> None:
    """Log that telemetry raised, once per class of error: it may fail for every message."""
    if type(error) not in _logged:
        _logged.add(type(error))
        logger.error("Telemetry failed; the service keeps working. Logged once.", exc_info=error)
