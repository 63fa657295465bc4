"""Logs: records of the `logging` module over OTLP, each with the trace it belongs to."""

import logging

from opentelemetry._logs import LogRecord
from opentelemetry.context import attach, detach
from opentelemetry.instrumentation.logging.handler import LoggingHandler
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs import LoggingHandler as SdkLoggingHandler
from opentelemetry.semconv.attributes.exception_attributes import (
    EXCEPTION_MESSAGE,
    EXCEPTION_STACKTRACE,
)
from opentelemetry.trace import format_span_id, format_trace_id, get_current_span
from opentelemetry.util.types import AnyValue

from .correlation import record_context
from .errors import MAX_STACK, bounded, describe, stack

logger = logging.getLogger(__name__)

# FastStream's loggers do not propagate to the root logger.
_LOGGERS = ("", "faststream", *(f"faststream.access.{name}" for name in
            ("kafka", "confluent", "rabbit", "nats", "redis")))  # fmt: skip


class TraceContextFilter(logging.Filter):
    """Gives each record `trace_id` and `span_id` (lower-case hex, empty outside of a trace).

    For a handler whose format shows them: `%(trace_id)s`.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        context = get_current_span(record_context()).get_span_context()
        record.trace_id = format_trace_id(context.trace_id) if context.is_valid else ""
        record.span_id = format_span_id(context.span_id) if context.is_valid else ""
        return True


class TracedLoggingHandler(LoggingHandler):
    """OpenTelemetry's handler, which takes the trace of the message that a record is about."""

    def emit(self, record: logging.LogRecord) -> None:
        # What the SDK logs while it exports must not be exported: an absent Collector would feed
        # itself.
        if record.name.startswith(("opentelemetry.", "grpc", "urllib3")):
            return
        token = attach(record_context())
        try:
            super().emit(record)
        finally:
            detach(token)

    def _translate(self, record: logging.LogRecord) -> LogRecord:
        translated = super()._translate(record)
        translated.body = bounded(message_of(record), MAX_STACK)
        return translated

    def _get_attributes(self, record: logging.LogRecord) -> tuple[dict[str, AnyValue], str | None]:
        attributes, event = super()._get_attributes(record)
        if error := _error_of(record):
            attributes[EXCEPTION_MESSAGE] = describe(error)
            attributes[EXCEPTION_STACKTRACE] = stack(error)
        for name in ("trace_id", "span_id"):  # the record carries them as fields of its own
            attributes.pop(name, None)
        return attributes, event


def message_of(record: logging.LogRecord) -> str:
    """What the record says, in which `describe` stands for the text of the error that it is about.

    FastStream logs a handler's error with its text, which may quote the message.
    """
    message, error = record.getMessage(), _error_of(record)
    if error and (text := str(error)):
        message = message.replace(text, describe(error))
    return message


def _error_of(record: logging.LogRecord) -> BaseException | None:
    return record.exc_info[1] if record.exc_info else None


def install_handler(provider: LoggerProvider) -> TracedLoggingHandler:
    """Send what is logged to the provider, FastStream's own records included."""
    handler = TracedLoggingHandler(logger_provider=provider)
    for name in _LOGGERS:
        logging.getLogger(name).addHandler(handler)
    _replace_others()
    return handler


def _replace_others() -> None:
    """Remove OpenTelemetry's own handler from the root logger, or each record leaves twice.

    `opentelemetry-instrument` puts it there: that of opentelemetry-instrumentation-logging, or the
    SDK's older one.
    """
    root = logging.getLogger()
    for other in root.handlers.copy():
        if isinstance(other, LoggingHandler | SdkLoggingHandler) and not isinstance(
            other, TracedLoggingHandler
        ):
            root.removeHandler(other)
            logger.info(
                "OpenTelemetry's logging handler was on the root logger (opentelemetry-instrument"
                " puts it there); this service's own replaces it."
            )


def remove_handler(handler: TracedLoggingHandler | None) -> None:
    """Undo `install_handler`."""
    if handler:
        for name in _LOGGERS:
            logging.getLogger(name).removeHandler(handler)
