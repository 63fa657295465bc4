"""Which span a log record belongs to, even if it is logged after the span has ended."""

from collections.abc import Callable
from contextvars import ContextVar

from opentelemetry.context import Context, get_current
from opentelemetry.trace import Span, get_current_span, set_span_in_context

_last: ContextVar[Callable[[], Span | None] | None] = ContextVar("last", default=None)


def remember(span: Callable[[], Span | None]) -> None:
    """Set the span for log records while no span is current: `span` returns it, or None."""
    _last.set(span)


def record_context() -> Context:
    """The context for a log record that is created now."""
    current = get_current()
    if get_current_span(current).get_span_context().is_valid:
        return current
    last = _last.get()
    if last and (span := last()):
        return set_span_in_context(span, current)
    return current
