"""`extract` and `inject` of `opentelemetry.propagate`, in less time for what most messages have.

That is a traceparent (W3C Trace Context, version 00) without tracestate and baggage, and the
default OTEL_PROPAGATORS. Whatever else comes is left to the propagators.
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
# Two forms of one context. Those who read it take either, and the flags, which nobody has to write.
_B3 = frozenset(
    {"b3", "x-b3-traceid", "x-b3-spanid", "x-b3-parentspanid", "x-b3-sampled", "x-b3-flags"}
)


def extract(headers: Mapping[str, str]) -> Context:
    """The context that headers carry; an empty one if they carry none, or none that can be read."""
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
    except Exception as error:  # the message is handled all the same
        # Not a warning: strangers choose what is in headers, and how often.
        logger.debug("No trace context taken from headers: %s: %s", type(error).__name__, error)
        return Context()


def inject(headers: MutableMapping[str, Any], context: Context) -> None:
    """Put the context into headers, in place of the one that they carry, however it is written.

    Headers that were copied from another message carry its whole context, of which nothing may be
    left beside another trace: not its `tracestate`, not its baggage. Baggage alone was put there on
    purpose, and stays unless the context has some. Where no trace is injected (tracing is off, or
    OTEL_PROPAGATORS=none), headers are passed on as they are.
    """
    is_default, fields = _fields(propagate.get_global_textmap())
    if not fields.isdisjoint(map(str.lower, headers)):
        _replace(headers, context, fields)
        return
    current = get_current_span(context).get_span_context()
    if is_default and current.is_valid and not current.trace_state and not baggage.get_all(context):
        trace_id, span_id, flags = current.trace_id, current.span_id, current.trace_flags
        headers[_PARENT] = f"00-{trace_id:032x}-{span_id:016x}-{flags:02x}"
    else:
        propagate.inject(headers, context=context)


def carries_context(header: str) -> bool:
    """Whether `inject` replaces a header of this name: it is about one publication's trace."""
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
    """Whether it is the default one; which headers, in lower case, carry a context.

    Those of W3C do in any case: FastStream's own middleware reads no others.
    """
    own = frozenset(field.lower() for field in propagator.fields)
    return own == _W3C, own | _W3C | (_B3 if own & _B3 else frozenset())
