"""Spans that harm nobody where telemetry itself raises: a sampler, or a span processor."""

import logging
from typing import Any

from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, Span, Tracer, get_current_span

logger = logging.getLogger(__name__)

_failed: set[str] = set()


def start_span(
    tracer: Tracer, name: str, *, context: Context | None = None, **options: Any
) -> Span:
    """As `Tracer.start_span`; where that raises, one that only passes on its parent's context."""
    try:
        return tracer.start_span(name, context=context, **options)
    except Exception as error:
        _note("start", error)
        return NonRecordingSpan(get_current_span(context).get_span_context())


def end_span(span: Span) -> None:
    """As `Span.end`, but never raises."""
    try:
        span.end()
    except Exception as error:
        _note("end", error)


def _note(step: str, error: Exception) -> None:
    if step not in _failed:
        _failed.add(step)
        logger.error(
            "A span did not %s; the service goes on without it. Logged once.", step, exc_info=error
        )
