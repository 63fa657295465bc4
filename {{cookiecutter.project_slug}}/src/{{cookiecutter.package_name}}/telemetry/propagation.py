"""`extract` and `inject` of `opentelemetry.propagate`, in less time for what most messages have.

That is a traceparent (W3C Trace Context, version 00) without tracestate and baggage, and the
default OTEL_PROPAGATORS. Whatever else comes is left to the propagators.
"""

import logging
import re
from collections.abc import Mapping, MutableMapping

from opentelemetry import baggage, propagate
from opentelemetry.context import Context
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    TraceFlags,
    get_current_span,
    set_span_in_context,
)

logger = logging.getLogger(__name__)

_PARENT = "traceparent"
_TRACEPARENT = re.compile("00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_DEFAULT_FIELDS = {_PARENT, "tracestate", "baggage"}

_default: TextMapPropagator | None = None
"""The global propagator, if it is the default one."""


def extract(headers: Mapping[str, str]) -> Context:
    """The context that headers carry; an empty one if they carry none, or none that can be read."""
    if _is_default() and "tracestate" not in headers and "baggage" not in headers:
        value = headers.get(_PARENT)
        if value is None:
            return Context()
        if found := _TRACEPARENT.fullmatch(value):
            trace_id, span_id, flags = (int(digits, 16) for digits in found.groups())
            if trace_id and span_id:
                parent = SpanContext(trace_id, span_id, True, TraceFlags(flags))
                return set_span_in_context(NonRecordingSpan(parent), Context())
    try:
        return propagate.extract(headers, context=Context())
    except Exception as error:  # the message is handled all the same
        logger.warning("No trace context taken from headers: %s: %s", type(error).__name__, error)
        return Context()


def inject(headers: MutableMapping[str, str], context: Context) -> None:
    """Put the context into headers."""
    current = get_current_span(context).get_span_context()
    if (
        current.is_valid
        and not current.trace_state
        and _is_default()
        and not baggage.get_all(context)
    ):
        trace_id, span_id, flags = current.trace_id, current.span_id, current.trace_flags
        headers[_PARENT] = f"00-{trace_id:032x}-{span_id:016x}-{flags:02x}"
    else:
        propagate.inject(headers, context=context)


def _is_default() -> bool:
    global _default
    propagator = propagate.get_global_textmap()
    if propagator is not _default:
        if set(propagator.fields) != _DEFAULT_FIELDS:
            return False
        _default = propagator
    return True
