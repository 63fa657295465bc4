"""Which span a log record belongs to, also where FastStream logs after the span has ended."""

from contextvars import ContextVar

from faststream import ContextRepo
from opentelemetry.context import Context, get_current
from opentelemetry.trace import Span, get_current_span, set_span_in_context

from ._faststream import current_subscriber

_processed: ContextVar[tuple[ContextRepo, Span] | None] = ContextVar("processed", default=None)


def remember(repository: ContextRepo, span: Span) -> None:
    """Keep the span of the message that was just processed.

    FastStream's outermost middleware logs "Processed" and a failed handler's traceback when every
    other middleware is done, hence when the span is no longer current.
    """
    _processed.set((repository, span))


def record_context() -> Context:
    """The context that a log record made now belongs to."""
    current = get_current()
    if get_current_span(current).get_span_context().is_valid:
        return current
    if processed := _processed.get():
        repository, span = processed
        # There is one for as long as FastStream is busy with a message, and none between two.
        if current_subscriber(repository) is not None:
            return set_span_in_context(span, current)
    return current
