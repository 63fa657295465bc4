"""Exports records of the `logging` module over OTLP, each with the trace that it belongs to."""

import logging
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import lru_cache
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

from .batches import Batches
from .correlation import record_context
from .encoding import Place, encode_text, place_of
from .errors import MAX_STACK, bounded, describe, error_text, error_type, stack
from .values import attributes, shown, text

logger = logging.getLogger(__name__)

# Records of these are not exported: a failed export would cause more exports.
_EXPORTING = {"opentelemetry", "grpc", "urllib3"}
# Loggers of these do not propagate to the root logger.
_NOT_PROPAGATED = {"faststream", "gunicorn", "hypercorn", "uvicorn"}

# Fields that every record has, or that our filter and uvicorn add. All others are attributes.
_FIELDS = {
    *vars(logging.LogRecord("", 0, "", 0, None, None, None)),
    *("message", "asctime", "trace_id", "span_id", "color_message"),
}
# Deprecated in favour of `otel.event.name`, but still in use.
_EVENT_NAME = "event.name"
_SEVERITIES = {"WARNING": "WARN", "CRITICAL": "FATAL"}

_handlers: list["TracedLoggingHandler"] = []
_emitting: ContextVar[bool] = ContextVar("emitting", default=False)


class TraceContextFilter(logging.Filter):
    """Adds `trace_id` and `span_id` to each record: lower-case hex, empty outside of a trace.

    Add it to a handler whose format contains `%(trace_id)s`.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        context = get_current_span(record_context()).get_span_context()
        record.trace_id = format_trace_id(context.trace_id) if context.is_valid else ""
        record.span_id = format_span_id(context.span_id) if context.is_valid else ""
        return True


class TracedLoggingHandler(logging.Handler):
    """Emits records to an OpenTelemetry provider, each with the trace of the message it is about.

    The logging call never raises because of this handler, whatever the record contains.

    A record that is only text goes directly into the queue of an `EncodingLoggerProvider`: the
    SDK's objects around it cost more than all the rest.
    """

    def __init__(self, provider: LoggerProvider) -> None:
        super().__init__()
        self._provider = provider
        self._places: dict[str, Place] = {}

    def emit(self, record: logging.LogRecord) -> None:
        try:
            _print_if_no_handler(record, self)
            # An argument whose `str` logs would otherwise recurse without end.
            if _top(record.name) not in _EXPORTING and not _emitting.get():
                self._export(record)
        except Exception:
            self.handleError(record)

    def _export(self, record: logging.LogRecord) -> None:
        token = _emitting.set(True)
        try:
            direct: Batches | None = getattr(self._provider, "direct", None)
            if direct is None or record.exc_info or not vars(record).keys() <= _FIELDS:
                self._provider.get_logger(record.name).emit(_translate(record))
            else:
                direct.add((_encode(record), self._place(record.name)))
        finally:
            _emitting.reset(token)

    def _place(self, name: str) -> Place:
        known = self._places.get(name)
        if known is None or known.resource is not self._provider.resource:  # a fork has its own
            logger: Any = self._provider.get_logger(name)
            known = place_of(logger.resource, logger.instrumentation_scope)
            self._places[name] = known
        return known

    def attach(self, name: str) -> None:
        """Make sure that each record of this logger reaches this handler exactly once."""
        if self not in logging.root.handlers:
            logging.root.addHandler(self)
        if _top(name) in _NOT_PROPAGATED:
            *below, last = _with_ancestors(name)
            if self not in last.handlers:
                last.addHandler(self)
            for logger in below:
                logger.removeHandler(self)


def message_of(record: logging.LogRecord) -> str:
    """The text of the record. `describe` replaces the text of the error that it was logged with.

    FastStream logs the text of a handler's error, which may quote the message. Never raises: if the
    arguments do not fit the format, the text has the format and the arguments.
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
    """The error that the record was logged with; None for none, or for a malformed `exc_info`."""
    match record.exc_info:
        case (_, BaseException() as error, _):
            return error
    return None


def install_handler(provider: LoggerProvider) -> TracedLoggingHandler:
    """Send all log records to the provider, including those of FastStream and of HTTP servers.

    It works whether logging is configured before or after. Configuring logging removes handlers
    (uvicorn's configuration, `basicConfig(force=True)`, `dictConfig`), and `basicConfig` does
    nothing if it finds one. So this attaches the handler, if it is missing, when a record is made.
    """
    _remove_opentelemetry_handlers()
    handler = TracedLoggingHandler(provider)
    if logging.root.handlers:  # configured already
        handler.attach("root")
    factory = logging.getLogRecordFactory()
    if not isinstance(factory, _AttachingFactory):
        logging.setLogRecordFactory(_AttachingFactory(factory))
    _handlers.append(handler)
    return handler


def _remove_opentelemetry_handlers() -> None:
    """Remove OpenTelemetry's handlers from the root logger: they would export each record again.

    `opentelemetry-instrument` adds one.
    """
    for other in logging.root.handlers.copy():
        ours = isinstance(other, TracedLoggingHandler)
        if _top(type(other).__module__) == "opentelemetry" and not ours:
            logging.root.removeHandler(other)
            logger.info(
                "Replaced the handler that opentelemetry-instrument added to the root"
                " logger with this service's own."
            )


def remove_handler(handler: TracedLoggingHandler | None) -> None:
    """Undo `install_handler`."""
    if handler not in _handlers:
        return
    _handlers.remove(handler)
    for logger in (logging.root, *logging.root.manager.loggerDict.values()):
        if isinstance(logger, logging.Logger):  # others are placeholders for parents
            logger.removeHandler(handler)
    factory = logging.getLogRecordFactory()
    if not _handlers and isinstance(factory, _AttachingFactory):
        logging.setLogRecordFactory(factory.make)


class _AttachingFactory:
    """A factory of log records that also attaches our handlers if they are missing."""

    def __init__(self, make: Callable[..., logging.LogRecord]) -> None:
        self.make = make

    def __call__(self, name: Any, *arguments: Any, **options: Any) -> logging.LogRecord:
        for handler in _handlers:
            handler.attach(name)
        return self.make(name, *arguments, **options)


def _translate(record: logging.LogRecord) -> LogRecord:
    fields, event, older = vars(record), None, None
    own: dict[str, Any] = {}
    if not fields.keys() <= _FIELDS:
        own = attributes({name: of for name, of in fields.items() if name not in _FIELDS})
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


def _encode(record: logging.LogRecord) -> bytes:
    """Encode a record without attributes of its own, as `_translate` and the SDK would."""
    context = get_current_span(record_context()).get_span_context()
    return encode_text(
        int(record.created * 1e9), time_ns(),
        _severity(record.levelno).value, _severity_text(record),
        bounded(message_of(record), MAX_STACK), b"",
        context.trace_id, context.span_id, context.trace_flags,
    )  # fmt: skip


def _severity_text(record: logging.LogRecord) -> str:
    level = record.levelname
    if "\x1b" in level:  # FastStream's formatter colours it in the record that all handlers share
        level = logging.getLevelName(record.levelno)
    return _SEVERITIES.get(level, level)


@lru_cache(maxsize=100)
def _severity(level: int) -> SeverityNumber:
    """Four severity numbers for each of Python's levels ("Logs Data Model", "SeverityNumber")."""
    return SeverityNumber(min(1 + level // 10 * 4 + min(level % 10, 3), 24) if level > 0 else 0)


def _print_if_no_handler(record: logging.LogRecord, handler: logging.Handler) -> None:
    """Print a warning if only our handlers are configured, as `logging` does if there is none."""
    last = logging.lastResort
    if last and record.levelno >= last.level:
        found = {one for logger in _with_ancestors(record.name) for one in logger.handlers}
        if found.issubset(_handlers) and _handlers[:1] == [handler]:  # only once
            last.handle(record)


def _with_ancestors(name: str) -> Iterator[logging.Logger]:
    """The logger and its ancestors, as far as records propagate."""
    logger: logging.Logger | None = logging.getLogger(name)
    while logger:
        yield logger
        logger = logger.parent if logger.propagate else None


def _top(name: object) -> str:
    """The first part of a dotted name: `grpc` for `grpc.aio`, but not for `grpc_bridge`."""
    return str(name).partition(".")[0]
