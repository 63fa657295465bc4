"""`extract` and `inject` of `opentelemetry.propagate`, faster for most messages.

The fast path handles a traceparent (W3C Trace Context, version 00) without tracestate and baggage,
with the default OTEL_PROPAGATORS. The propagators handle everything else.
"""

import logging
import re
from collections.abc import Mapping, MutableMapping
from functools import lru_cache
from typing import Any

from opentelemetry import baggage, propagate
from opentelemetry.context import Context
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.trace import (
    INVALID_SPAN_CONTEXT,
    NonRecordingSpan,
    SpanContext,
    TraceFlags,
    get_current_span,
    set_span_in_context,
)

logger = logging.getLogger(__name__)

_PARENT, _BAGGAGE = "traceparent", "baggage"
_TRACEPARENT = re.compile("00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_W3C = frozenset({_PARENT, "tracestate", _BAGGAGE})
# B3 has two forms, and readers accept either. They also read `x-b3-flags`, which writers may omit.
_B3 = frozenset(
    {"b3", "x-b3-traceid", "x-b3-spanid", "x-b3-parentspanid", "x-b3-sampled", "x-b3-flags"}
)


def extract(headers: Mapping[str, str]) -> Context:
    """The context in the headers; an empty one if there is none, or if it cannot be read."""
    if (
        _fields(propagate.get_global_textmap())[0]
        and "tracestate" not in headers
        and "baggage" not in headers
    ):
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
    except Exception as error:
        # Not a warning: any sender could fill the log with bad headers.
        logger.debug("Cannot read trace context from headers: %s: %s", type(error).__name__, error)
        return Context()


def inject(headers: MutableMapping[str, Any], context: Context) -> None:
    """Put the context into headers, and remove any other context from them.

    Headers that were copied from another message carry its context. None of it may remain beside
    the new trace: neither its `tracestate` nor its baggage. Headers that carry only baggage were
    set on purpose: their baggage stays unless the context has its own. If there is no trace to
    inject (tracing is off, or OTEL_PROPAGATORS=none), the headers stay as they are.
    """
    is_default, fields = _fields(propagate.get_global_textmap())
    if not fields.isdisjoint(map(str.lower, headers)):
        _replace(headers, context, fields)
        return
    current = get_current_span(context).get_span_context()
    if is_default and not current.trace_state and not baggage.get_all(context):
        if current is INVALID_SPAN_CONTEXT:
            return
        if current.is_valid:
            trace_id, span_id, flags = current.trace_id, current.span_id, current.trace_flags
            headers[_PARENT] = f"00-{trace_id:032x}-{span_id:016x}-{flags:02x}"
            return
    propagate.inject(headers, context=context)


def carries_context(header: str) -> bool:
    """Whether a header of this name carries a trace context or baggage, so `inject` replaces it."""
    return header.lower() in _fields(propagate.get_global_textmap())[1]


def _replace(headers: MutableMapping[str, Any], context: Context, fields: frozenset[str]) -> None:
    own: dict[str, Any] = {}
    propagate.inject(own, context=context)
    carried = {name: field for name in headers if (field := name.lower()) in fields}
    whole = bool(own.keys() - {_BAGGAGE}) and any(field != _BAGGAGE for field in carried.values())
    for name, field in carried.items():
        if whole or field in own:
            del headers[name]
    headers.update(own)


@lru_cache(maxsize=1)
def _fields(propagator: TextMapPropagator) -> tuple[bool, frozenset[str]]:
    """Whether the propagator is the default one; which headers, in lower case, carry a context.

    The W3C headers always do: FastStream's own middleware reads only those.
    """
    own = frozenset(field.lower() for field in propagator.fields)
    return own == _W3C, own | _W3C | (_B3 if own & _B3 else frozenset())
