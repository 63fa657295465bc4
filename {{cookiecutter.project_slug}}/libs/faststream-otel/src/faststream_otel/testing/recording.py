"""Records spans and log records, and shows spans as a tree."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from opentelemetry.context import Context
from opentelemetry.sdk._logs import LoggerProvider, LogRecordProcessor, ReadWriteLogRecord
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.trace import SpanContext, format_span_id, format_trace_id

from ..telemetry.logs import install_handler, remove_handler


@dataclass(frozen=True, slots=True)
class Log:
    """A log record as it is exported.

    Attributes:
        message: Its text, with its arguments.
        severity: OpenTelemetry's: DEBUG, INFO, WARN, ERROR or FATAL.
        logger: Name of its logger.
        trace_id: 32 hex digits; empty outside of any trace.
        span_id: 16 hex digits; empty outside of any span.
        attributes: Those of `extra=`, and of the error that it was logged with.
    """

    message: str
    severity: str
    logger: str
    trace_id: str
    span_id: str
    attributes: Mapping[str, Any]


class Trace:
    """Recorded log records, and recorded spans that have ended, in the order of their start.

    A test may create several traces; `of` selects one.
    """

    def __init__(self) -> None:
        self._spans: list[ReadableSpan] = []
        self._known = self._spans
        self._logs: list[Log] = []

    @property
    def spans(self) -> list[ReadableSpan]:
        """OpenTelemetry's own span objects."""
        return [span for span in self._spans if span.end_time is not None]

    @property
    def logs(self) -> list[Log]:
        """Log records of the whole process, in order."""
        return self._logs.copy()

    @property
    def trace_ids(self) -> list[str]:
        """Each trace once, as 32 hex digits, in the order of start."""
        return list(dict.fromkeys(_trace_id(span) for span in self.spans))

    def of(self, trace_id: str) -> "Trace":
        """One trace: its spans so far, and its log records."""
        one = Trace()
        one._known = self._known
        one._spans = [span for span in self._spans if _trace_id(span) == trace_id]
        one._logs = [log for log in self._logs if log.trace_id == trace_id]
        return one

    def edges(self) -> list[tuple[str, str]]:
        """Pairs of names: each span's parent, and the span."""
        names = _names(self.spans)
        return [
            (names[span.parent.span_id], span.name)
            for span in self.spans
            if span.parent and span.parent.span_id in names
        ]

    def links(self) -> list[tuple[str, str]]:
        """Pairs of names: the span that a link points to, and the span with the link."""
        names = _names(self._known)
        return [
            (names.get(link.context.span_id, "not recorded"), span.name)
            for span in self.spans
            for link in span.links
        ]

    def roots(self) -> list[str]:
        """The names of spans without a parent, or whose parent was not recorded."""
        names = _names(self.spans)
        return [
            span.name
            for span in self.spans
            if span.parent is None or span.parent.span_id not in names
        ]

    def span(self, name: str) -> ReadableSpan:
        """The one span of this name.

        Raises:
            AssertionError: There is none, or several. The text has the tree of all spans.
        """
        found = [span for span in self.spans if span.name == name]
        if len(found) != 1:
            raise AssertionError(f"{len(found)} spans are named {name!r}:\n{self}")
        return found[0]

    def attributes(self, name: str) -> dict[str, Any]:
        """The attributes of the one span of this name."""
        return dict(self.span(name).attributes or {})

    def record(self, tracer_provider: TracerProvider) -> None:
        """Also record the spans of this provider, until the test ends."""
        # A processor cannot be removed, so each provider gets one for all tests.
        if tracer_provider not in _recorders:
            _recorders[tracer_provider] = _SpanRecorder()
            tracer_provider.add_span_processor(_recorders[tracer_provider])
        _recorders[tracer_provider].trace = self

    def __str__(self) -> str:
        """The tree of spans as text, for failing tests."""
        spans = self.spans
        ids = {_context(span).span_id for span in spans}

        def below(parent: int | None, depth: int) -> Iterator[str]:
            for span in spans:
                above = span.parent.span_id if span.parent else None
                if (above if above in ids else None) == parent:
                    yield "  " * depth + span.name
                    yield from below(_context(span).span_id, depth + 1)

        return "\n".join(below(None, 0)) or "no spans"

    __repr__ = __str__


@contextmanager
def recording() -> Iterator[Trace]:
    """A Trace that records the logs of the process, and the spans of added providers."""
    trace = Trace()
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(_LogRecorder(trace))
    handler = install_handler(provider)
    try:
        yield trace
    finally:
        remove_handler(handler)
        for recorder in _recorders.values():
            recorder.trace = None


class _SpanRecorder(SpanProcessor):
    trace: Trace | None = None

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        if self.trace is not None:
            self.trace._spans.append(span)  # noqa: SLF001


class _LogRecorder(LogRecordProcessor):
    def __init__(self, trace: Trace) -> None:
        self._trace = trace

    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        record, scope = log_record.log_record, log_record.instrumentation_scope
        self._trace._logs.append(  # noqa: SLF001
            Log(
                message=str(record.body),
                severity=record.severity_text or "",
                logger=scope.name if scope else "",
                trace_id=format_trace_id(record.trace_id) if record.trace_id else "",
                span_id=format_span_id(record.span_id) if record.span_id else "",
                attributes=dict(record.attributes or {}),
            )
        )

    def shutdown(self) -> None: ...

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return True


_recorders: "WeakKeyDictionary[TracerProvider, _SpanRecorder]" = WeakKeyDictionary()


def _context(span: ReadableSpan) -> SpanContext:
    context: SpanContext | None = span.context
    assert context is not None, "every span of the SDK has one"
    return context


def _trace_id(span: ReadableSpan) -> str:
    return format_trace_id(_context(span).trace_id)


def _names(spans: Iterable[ReadableSpan]) -> dict[int, str]:
    return {_context(span).span_id: span.name for span in spans}
