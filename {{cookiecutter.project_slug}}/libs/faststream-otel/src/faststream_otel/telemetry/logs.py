"""Logs: records of the `logging` module over OTLP, each with the trace it belongs to."""

import logging
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from time import time_ns
from typing import Any

from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.semconv.attributes.exception_attributes import (
    EXCEPTION_MESSAGE,
    EXCEPTION_STACKTRACE,
    EXCEPTION_TYPE,
)
from opentelemetry.semconv.attributes.otel_attributes import OTEL_EVENT_NAME
from opentelemetry.trace import format_span_id, format_trace_id, get_current_span

from .correlation import record_context
from .errors import MAX_STACK, bounded, describe, error_text, error_type, stack
from .values import attributes, shown, text

logger = logging.getLogger(__name__)

# What these log while they export must not be exported: an absent Collector would feed itself.
_EXPORTING = {"opentelemetry", "grpc", "urllib3"}
# Their loggers do not propagate to the root logger.
_APART = {"faststream", "gunicorn", "hypercorn", "uvicorn"}

# Of each record, and what our filter and uvicorn's colours add: no attributes of its own.
_FIELDS = {
    *vars(logging.LogRecord("", 0, "", 0, None, None, None)),
    *("message", "asctime", "trace_id", "span_id", "color_message"),
}
# Deprecated in favour of `otel.event.name`, and still in use.
_EVENT_NAME = "event.name"
_SEVERITIES = {"WARNING": "WARN", "CRITICAL": "FATAL"}

_handlers: list["TracedLoggingHandler"] = []
_emitting: ContextVar[bool] = ContextVar("emitting", default=False)


class TraceContextFilter(logging.Filter):
    """Gives each record `trace_id` and `span_id` (lower-case hex, empty outside of a trace).

    For a handler whose format shows them: `%(trace_id)s`.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        context = get_current_span(record_context()).get_span_context()
        record.trace_id = format_trace_id(context.trace_id) if context.is_valid else ""
        record.span_id = format_span_id(context.span_id) if context.is_valid else ""
        return True


class TracedLoggingHandler(logging.Handler):
    """Emits records to an OpenTelemetry provider, each with the trace of the message it is about.

    Whatever a record holds, the call that logged it does not raise because of this handler.
    """

    def __init__(self, provider: LoggerProvider) -> None:
        super().__init__()
        self._provider = provider

    def emit(self, record: logging.LogRecord) -> None:
        try:
            _print_where_nobody_does(record, self)
            # An argument whose `str` logs itself must not go on for ever.
            if _top(record.name) not in _EXPORTING and not _emitting.get():
                self._export(record)
        except Exception:
            self.handleError(record)

    def _export(self, record: logging.LogRecord) -> None:
        token = _emitting.set(True)
        try:
            self._provider.get_logger(record.name).emit(_translate(record))
        finally:
            _emitting.reset(token)

    def attach(self, name: str) -> None:
        """See to it that records of this logger come here, once each."""
        if self not in logging.root.handlers:
            logging.root.addHandler(self)
        if _top(name) in _APART:
            *below, last = _way(name)
            if self not in last.handlers:
                last.addHandler(self)
            for logger in below:
                logger.removeHandler(self)


def message_of(record: logging.LogRecord) -> str:
    """What the record says, in which `describe` stands for the text of the error that it is about.

    FastStream logs a handler's error with its text, which may quote the message. Never raises:
    where arguments do not fit their format, or cannot be shown, both are shown as they are.
    """
    try:
        message = text(record.getMessage())
    except Exception as problem:
        given = record.args if isinstance(record.args, tuple) else (record.args,)
        message = (
            f"{text(record.msg)} (not formatted, {type(problem).__name__};"
            f" arguments: {', '.join(map(shown, given))})"
        )
    error = error_of(record)
    if error is not None and (of_error := error_text(error)):
        message = message.replace(of_error, describe(error))
    return message


def error_of(record: logging.LogRecord) -> BaseException | None:
    """The error that the record was logged with; `exc_info` takes any tuple."""
    match record.exc_info:
        case (_, BaseException() as error, _):
            return error
    return None


def install_handler(provider: LoggerProvider) -> TracedLoggingHandler:
    """Send what is logged to the provider, records of FastStream and of HTTP servers included.

    However logging is configured before or after. Its configuration takes handlers away (uvicorn's
    own, `basicConfig(force=True)`, `dictConfig`), and `basicConfig` does nothing where it finds
    one. So the handler is attached as a record is made, wherever it is missing on its way.
    """
    _remove_others()
    handler = TracedLoggingHandler(provider)
    if logging.root.handlers:  # configured already
        handler.attach("root")
    factory = logging.getLogRecordFactory()
    if not isinstance(factory, _AttachingFactory):
        logging.setLogRecordFactory(_AttachingFactory(factory))
    _handlers.append(handler)
    return handler


def _remove_others() -> None:
    """Remove OpenTelemetry's own handlers from the root logger, or each record leaves twice.

    `opentelemetry-instrument` puts one there.
    """
    for other in logging.root.handlers.copy():
        ours = isinstance(other, TracedLoggingHandler)
        if _top(type(other).__module__) == "opentelemetry" and not ours:
            logging.root.removeHandler(other)
            logger.info(
                "OpenTelemetry's logging handler was on the root logger (opentelemetry-instrument"
                " puts it there); this service's own replaces it."
            )


def remove_handler(handler: TracedLoggingHandler | None) -> None:
    """Undo `install_handler`."""
    if handler not in _handlers:
        return
    _handlers.remove(handler)
    for logger in (logging.root, *logging.root.manager.loggerDict.values()):
        if isinstance(logger, logging.Logger):  # others are but names of parents
            logger.removeHandler(handler)
    factory = logging.getLogRecordFactory()
    if not _handlers and isinstance(factory, _AttachingFactory):
        logging.setLogRecordFactory(factory.make)


class _AttachingFactory:
    """Makes records, and attaches the handlers of this process wherever one is missing."""

    def __init__(self, make: Callable[..., logging.LogRecord]) -> None:
        self.make = make

    def __call__(self, name: Any, *arguments: Any, **options: Any) -> logging.LogRecord:
        for handler in _handlers:
            handler.attach(name)
        return self.make(name, *arguments, **options)


def _translate(record: logging.LogRecord) -> LogRecord:
    own = attributes({name: of for name, of in vars(record).items() if name not in _FIELDS})
    event, older = own.pop(OTEL_EVENT_NAME, None), own.pop(_EVENT_NAME, None)
    if (error := error_of(record)) is not None:
        own |= {
            EXCEPTION_TYPE: error_type(error),
            EXCEPTION_MESSAGE: describe(error),
            EXCEPTION_STACKTRACE: stack(error),
        }
    return LogRecord(
        timestamp=int(record.created * 1e9),
        observed_timestamp=time_ns(),
        context=record_context(),
        severity_text=_severity_text(record),
        severity_number=_severity(record.levelno),
        body=bounded(message_of(record), MAX_STACK),
        attributes=own,
        event_name=None if event is None and older is None else text(event or older),
    )


def _severity_text(record: logging.LogRecord) -> str:
    level = record.levelname
    if "\x1b" in level:  # FastStream's formatter colours it in the record that all handlers share
        level = logging.getLevelName(record.levelno)
    return _SEVERITIES.get(level, level)


def _severity(level: int) -> SeverityNumber:
    """Four numbers for each of Python's tens, as the "Logs Data Model" compares them."""
    return SeverityNumber(min(1 + level // 10 * 4 + min(level % 10, 3), 24) if level > 0 else 0)


def _print_where_nobody_does(record: logging.LogRecord, handler: logging.Handler) -> None:
    """`logging` prints a warning where no handler was configured, but it takes ours for one."""
    last = logging.lastResort
    if last and record.levelno >= last.level:
        found = {one for logger in _way(record.name) for one in logger.handlers}
        if found.issubset(_handlers) and _handlers[:1] == [handler]:  # none as telemetry ends
            last.handle(record)


def _way(name: str) -> Iterator[logging.Logger]:
    """The loggers whose handlers get the records of this one."""
    logger: logging.Logger | None = logging.getLogger(name)
    while logger:
        yield logger
        logger = logger.parent if logger.propagate else None


def _top(name: object) -> str:
    """The first part of a logger's name: `grpc` of `grpc.aio`, and not of `grpc_bridge`."""
    return str(name).partition(".")[0]
