"""Contexts travel as the propagators of OpenTelemetry have them travel."""

from collections.abc import Iterator

import pytest
from opentelemetry import baggage, propagate, trace
from opentelemetry.context import Context
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from {{ cookiecutter.package_name }}.telemetry.propagation import extract, inject

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GOOD = f"00-{TRACE}-{SPAN}-01"
HEADERS: list[dict[str, str]] = [
    {},
    {"traceparent": GOOD},
    {"traceparent": f"00-{TRACE}-{SPAN}-00"},
    {"traceparent": f"00-{TRACE}-{SPAN}-ff"},
    {"traceparent": f"00-{'0' * 31}1-{'0' * 15}1-01"},
    {"traceparent": GOOD, "tracestate": "vendor=x,other=y"},
    {"traceparent": GOOD, "tracestate": "rubbish"},
    {"traceparent": GOOD, "baggage": "user=1,tier=gold"},
    {"baggage": "user=1"},
    {"tracestate": "vendor=x"},
    # Not valid, or of a version to come: W3C Trace Context, "Versioning of traceparent".
    {"traceparent": ""},
    {"traceparent": "rubbish"},
    {"traceparent": GOOD.upper()},
    {"traceparent": f" {GOOD} "},
    {"traceparent": f"{GOOD}-extra"},
    {"traceparent": f"01-{TRACE}-{SPAN}-01"},
    {"traceparent": f"01-{TRACE}-{SPAN}-01-extra"},
    {"traceparent": f"ff-{TRACE}-{SPAN}-01"},
    {"traceparent": f"00-{'0' * 32}-{SPAN}-01"},
    {"traceparent": f"00-{TRACE}-{'0' * 16}-01"},
    {"traceparent": f"00-{TRACE}-{SPAN}"},
    {"traceparent": f"00-{TRACE[:-1]}g-{SPAN}-01"},
    {"traceparent": f"00-{TRACE}-{SPAN}-0\u0661"},
]


@pytest.fixture(params=["default", "tracecontext alone"])
def propagator(request: pytest.FixtureRequest) -> Iterator[None]:
    before = propagate.get_global_textmap()
    if request.param != "default":
        propagate.set_global_textmap(CompositePropagator([TraceContextTextMapPropagator()]))
    yield
    propagate.set_global_textmap(before)


def carried(context: Context) -> tuple[SpanContext, bool, dict[str, object]]:
    span = trace.get_current_span(context).get_span_context()
    return span, span.is_remote, dict(baggage.get_all(context))


@pytest.mark.usefixtures("propagator")
@pytest.mark.parametrize("headers", HEADERS, ids=str)
def test_what_is_extracted(headers: dict[str, str]) -> None:
    theirs = propagate.extract(headers, context=Context())
    assert carried(extract(headers)) == carried(theirs)


@pytest.mark.usefixtures("propagator")
@pytest.mark.parametrize("flags", [TraceFlags.DEFAULT, TraceFlags.SAMPLED])
@pytest.mark.parametrize("state", [None, TraceState([("vendor", "x")])], ids=["", "tracestate"])
@pytest.mark.parametrize("items", [{}, {"user": "1"}], ids=["", "baggage"])
@pytest.mark.parametrize("trace_id", [0, 1, 2**128 - 1], ids=hex)
def test_what_is_injected(
    flags: int, state: TraceState | None, items: dict[str, str], trace_id: int
) -> None:
    span = SpanContext(trace_id, 2**60 + 1, False, TraceFlags(flags), state)
    context = trace.set_span_in_context(NonRecordingSpan(span), Context())
    for name, value in items.items():
        context = baggage.set_baggage(name, value, context)
    ours: dict[str, str] = {"kept": "yes"}
    theirs = dict(ours)
    inject(ours, context)
    propagate.inject(theirs, context=context)
    assert ours == theirs
