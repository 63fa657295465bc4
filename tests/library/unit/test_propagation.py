"""Trace contexts are extracted and injected like OpenTelemetry's propagators do it."""

from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from faststream import BaseMiddleware
from faststream.kafka import KafkaBroker, KafkaMessage, KafkaResponse, TestKafkaBroker
from faststream_otel.kafka.telemetry import KafkaTelemetryMiddleware
from faststream_otel.telemetry.propagation import extract, inject
from opentelemetry import baggage, propagate, trace
from opentelemetry.context import Context
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.propagators.textmap import (
    CarrierT,
    Getter,
    Setter,
    TextMapPropagator,
    default_getter,
    default_setter,
)
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON
from opentelemetry.trace import (
    NonRecordingSpan,
    NoOpTracerProvider,
    SpanContext,
    TraceFlags,
    TraceState,
)
from opentelemetry.trace import (
    TracerProvider as AnyTracerProvider,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

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
    # Invalid, or of a later version: W3C Trace Context, "Versioning of traceparent".
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
def test_extract_returns_what_the_propagators_extract(headers: dict[str, str]) -> None:
    theirs = propagate.extract(headers, context=Context())
    assert carried(extract(headers)) == carried(theirs)


@pytest.mark.usefixtures("propagator")
@pytest.mark.parametrize("flags", [TraceFlags.DEFAULT, TraceFlags.SAMPLED])
@pytest.mark.parametrize("state", [None, TraceState([("vendor", "x")])], ids=["", "tracestate"])
@pytest.mark.parametrize("items", [{}, {"user": "1"}], ids=["", "baggage"])
@pytest.mark.parametrize("trace_id", [0, 1, 2**128 - 1], ids=hex)
def test_inject_writes_what_the_propagators_inject(
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


# The headers of a received message, which a handler copies into a new one.
STALE = {"traceparent": GOOD, "tracestate": "vendor=x", "baggage": "user=1"}
B3 = {"b3": f"{TRACE}-{SPAN}-1", "X-B3-TraceId": TRACE, "x-b3-spanid": SPAN, "x-b3-flags": "1"}
OWN = {"mine": "kept"}

Headers = dict[str, Any]
Publish = Callable[[KafkaBroker, Headers], Awaitable[Any]]


class B3Multi(TextMapPropagator):
    """Like opentelemetry-propagator-b3: lists three fields, and reads more."""

    def extract(
        self,
        carrier: CarrierT,
        context: Context | None = None,
        getter: Getter[CarrierT] = default_getter,
    ) -> Context:
        return context or Context()

    def inject(
        self,
        carrier: CarrierT,
        context: Context | None = None,
        setter: Setter[CarrierT] = default_setter,
    ) -> None:
        span = trace.get_current_span(context).get_span_context()
        if span.is_valid:
            setter.set(carrier, "x-b3-traceid", trace.format_trace_id(span.trace_id))
            setter.set(carrier, "x-b3-spanid", trace.format_span_id(span.span_id))
            setter.set(carrier, "x-b3-sampled", "1")

    @property
    def fields(self) -> set[str]:
        return {"x-b3-traceid", "x-b3-spanid", "x-b3-sampled"}


@pytest.fixture
def use_propagator() -> Iterator[Callable[[TextMapPropagator], None]]:
    before = propagate.get_global_textmap()
    yield propagate.set_global_textmap
    propagate.set_global_textmap(before)


async def by_broker(broker: KafkaBroker, headers: Headers) -> None:
    await broker.publish("x", "target", headers=headers)


async def by_broker_as_batch(broker: KafkaBroker, headers: Headers) -> None:
    await broker.publish_batch("x", topic="target", headers=headers)


async def by_publisher(broker: KafkaBroker, headers: Headers) -> None:
    await broker.publisher("target").publish("x", headers=headers)


async def by_publisher_of_batches(broker: KafkaBroker, headers: Headers) -> None:
    await broker.publisher("target", batch=True).publish("x", headers=headers)


async def by_publishers_own_headers(broker: KafkaBroker, headers: Headers) -> None:
    await broker.publisher("target", headers=headers).publish("x")


async def by_returning(broker: KafkaBroker, headers: Headers) -> None:
    await broker.publish("returns", "start")


async def by_decorators_own_headers(broker: KafkaBroker, headers: Headers) -> None:
    await broker.publish("decorated", "decorated")


async def by_replying(broker: KafkaBroker, headers: Headers) -> None:
    await broker.publish("x", "answers", reply_to="target")


async def by_requesting(broker: KafkaBroker, headers: Headers) -> None:
    await broker.request("x", "target", headers=headers)


STYLES = [
    by_broker,
    by_broker_as_batch,
    by_publisher,
    by_publisher_of_batches,
    by_publishers_own_headers,
    by_returning,
    by_decorators_own_headers,
    by_replying,
    by_requesting,
]


async def arrived(
    provider: AnyTracerProvider, headers: Headers, publish: Publish = by_broker
) -> Headers:
    """The headers of the published message, except FastStream's own, if these are given."""
    middleware = KafkaTelemetryMiddleware(
        tracer_provider=provider, meter_provider=NoOpMeterProvider()
    )
    seen: list[Headers] = []

    class Spy(BaseMiddleware[Any]):
        async def on_receive(self) -> None:
            if self.msg is not None and self.msg.topic == "target":
                seen.append({name: value.decode() for name, value in self.msg.headers})
            await super().on_receive()

    broker = KafkaBroker(middlewares=[middleware, Spy], logger=None)

    @broker.subscriber("start")
    @broker.publisher("target")
    async def returns(body: str) -> KafkaResponse:
        return KafkaResponse(body, headers=headers)

    @broker.subscriber("decorated")
    @broker.publisher("target", headers=headers)
    async def decorated(body: str) -> str:
        return body

    @broker.subscriber("answers")
    async def answers(body: str) -> KafkaResponse:
        return KafkaResponse(body, headers=headers)

    @broker.subscriber("target")
    async def target(body: Any) -> str:
        return "done"

    given = dict(headers)
    async with TestKafkaBroker(broker):
        await publish(broker, headers)
    assert headers == given  # the caller's dictionary is not modified
    found, *_ = seen  # a reply to a request has the same topic
    return {
        name: value
        for name, value in found.items()
        if name not in ("correlation_id", "content-type", "reply_to")
    }


@pytest.mark.parametrize("sampler", [ALWAYS_ON, ALWAYS_OFF], ids=["sampled", "unsampled"])
@pytest.mark.parametrize("publish", STYLES)
async def test_the_context_of_another_message_is_not_sent(sampler: Any, publish: Publish) -> None:
    provider = TracerProvider(sampler=sampler)
    found = await arrived(provider, STALE | OWN, publish)
    assert found.keys() == {"traceparent", "mine"}
    assert TRACE not in found["traceparent"]
    assert extract(found) != Context()


@pytest.mark.parametrize("change", [str.upper, str.title])
async def test_header_names_of_a_context_may_have_any_case(change: Callable[[str], str]) -> None:
    stale = {change(name): value for name, value in STALE.items()}
    assert (await arrived(TracerProvider(), stale)).keys() == {"traceparent"}


async def test_the_whole_current_context_replaces_it() -> None:
    state = TraceState([("current", "y")])
    span = SpanContext(1, 2, True, TraceFlags(TraceFlags.SAMPLED), state)
    current = trace.set_span_in_context(NonRecordingSpan(span), Context())
    headers = {"Baggage": "user=1", **STALE, **OWN}
    inject(headers, baggage.set_baggage("tenant", "acme", current))
    assert headers == OWN | {
        "traceparent": f"00-{1:032x}-{2:016x}-01",
        "tracestate": "current=y",
        "baggage": "tenant=acme",
    }


async def test_headers_with_only_baggage_keep_it() -> None:
    """As FastStream documents it: `headers=Baggage({"tenant": "acme"}).to_headers()`."""
    found = await arrived(TracerProvider(), {"baggage": "tenant=acme"})
    assert found.keys() == {"traceparent", "baggage"}
    assert found["baggage"] == "tenant=acme"


async def test_headers_of_b3_and_w3c_are_replaced_together(
    use_propagator: Callable[[TextMapPropagator], None],
) -> None:
    use_propagator(B3Multi())
    found = await arrived(TracerProvider(), STALE | B3 | OWN)
    assert found.keys() == {"x-b3-traceid", "x-b3-spanid", "x-b3-sampled", "mine"}
    assert found["x-b3-traceid"] != TRACE


async def test_a_service_without_tracing_passes_on_the_given_headers(
    use_propagator: Callable[[TextMapPropagator], None],
) -> None:
    assert await arrived(NoOpTracerProvider(), STALE | OWN) == STALE | OWN
    use_propagator(CompositePropagator([]))  # OTEL_PROPAGATORS=none
    assert await arrived(TracerProvider(), STALE | OWN) == STALE | OWN


@pytest.mark.parametrize("headers", [{}, {"traceparent": f"00-{1:032x}-{2:016x}-01"}], ids=str)
async def test_a_service_without_tracing_passes_on_the_context_of_its_message(
    headers: Headers,
) -> None:
    middleware = KafkaTelemetryMiddleware(
        tracer_provider=NoOpTracerProvider(), meter_provider=NoOpMeterProvider()
    )
    broker = KafkaBroker(middlewares=[middleware], logger=None)
    seen: list[Headers] = []

    @broker.subscriber("first")
    async def first(body: str) -> None:
        await broker.publish(body, "second", headers=headers)

    @broker.subscriber("second")
    async def second(body: str, message: KafkaMessage) -> None:
        seen.append({name: message.headers.get(name) for name in STALE})

    async with TestKafkaBroker(broker):
        await broker.publish("x", "first", headers=STALE)
    assert seen == [STALE]
