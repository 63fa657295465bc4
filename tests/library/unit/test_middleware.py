"""The telemetry middleware: one small broker for each promise."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from faststream.exceptions import SkipMessage
from faststream.kafka import KafkaBroker, KafkaMessage, TestKafkaBroker
from faststream.opentelemetry import CurrentBaggage
from faststream_otel.kafka.telemetry import KafkaConventions, KafkaTelemetryMiddleware
from opentelemetry import baggage
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_ON,
    DEFAULT_ON,
    Decision,
    ParentBased,
    ParentBasedTraceIdRatio,
    Sampler,
    SamplingResult,
    TraceIdRatioBased,
)
from opentelemetry.trace import StatusCode, get_current_span

from ..records import record
from ..spans import context, named, tree

MakeBroker = Callable[..., KafkaBroker]


@pytest.fixture
def provider(exporter: InMemorySpanExporter) -> Iterator[TracerProvider]:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield provider
    provider.shutdown()


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def make_broker(provider: TracerProvider) -> MakeBroker:
    def make(**options: Any) -> KafkaBroker:
        options = {
            "tracer_provider": provider,
            "meter_provider": NoOpMeterProvider(),
            **options,
        }
        return KafkaBroker(middlewares=[KafkaTelemetryMiddleware(**options)], logger=None)

    return make


async def test_both_publishing_styles_continue_the_trace(
    make_broker: MakeBroker, exporter: InMemorySpanExporter
) -> None:
    broker = make_broker()

    @broker.subscriber("first")
    @broker.publisher("second")
    async def returns(body: str) -> str:
        return body

    @broker.subscriber("second")
    async def publishes(body: str) -> None:
        await broker.publish(body, "third")

    @broker.subscriber("third")
    async def ends(body: str) -> None: ...

    async with TestKafkaBroker(broker):
        await broker.publish("hello", "first")

    assert tree(exporter.get_finished_spans()) == {
        "send first": {
            "process first": {
                "send second": {"process second": {"send third": {"process third": {}}}}
            }
        }
    }


async def test_head_sampling_keeps_traces_whole(exporter: InMemorySpanExporter) -> None:
    provider = TracerProvider(sampler=ParentBased(TraceIdRatioBased(0.2)))
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    broker = KafkaBroker(
        middlewares=[
            KafkaTelemetryMiddleware(tracer_provider=provider, meter_provider=NoOpMeterProvider())
        ],
        logger=None,
    )

    @broker.subscriber("first")
    @broker.publisher("second")
    async def first(body: int) -> int:
        return body

    @broker.subscriber("second")
    async def second(body: int) -> None: ...

    async with TestKafkaBroker(broker):
        for number in range(300):
            await broker.publish(number, "first")

    traces: dict[int, list[str]] = {}
    for span in exporter.get_finished_spans():
        traces.setdefault(context(span).trace_id, []).append(span.name)
    assert 20 < len(traces) < 120
    whole = {"send first", "process first", "send second", "process second"}
    assert all(set(names) == whole for names in traces.values())


class Rules(Sampler):
    """A sampler that decides by itself, and describes another that it contains."""

    def should_sample(self, *arguments: Any, **options: Any) -> SamplingResult:
        return ALWAYS_ON.should_sample(*arguments, **options)

    def get_description(self) -> str:
        return str(DEFAULT_ON.get_description())  # type: ignore[no-untyped-call]


UNSAMPLED = ParentBased(ALWAYS_ON, remote_parent_not_sampled=ALWAYS_ON)


@pytest.mark.parametrize(
    ("sampler", "recorded"),
    [(DEFAULT_ON, 0), (ParentBasedTraceIdRatio(1), 0), (UNSAMPLED, 2),
     (ParentBased(DEFAULT_ON, remote_parent_not_sampled=ALWAYS_ON), 2), (ALWAYS_ON, 2),
     (Rules(), 2)],
    ids=["the default", "by ratio", "another for unsampled parents", "which contains the default",
         "one that ignores parents", "one that contains the default"],
)  # fmt: skip
async def test_a_message_of_an_unsampled_trace_stays_in_it(
    exporter: InMemorySpanExporter, sampler: Sampler, recorded: int
) -> None:
    provider = TracerProvider(sampler=sampler)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    middleware = KafkaTelemetryMiddleware(
        tracer_provider=provider, meter_provider=NoOpMeterProvider()
    )
    broker = KafkaBroker(middlewares=[middleware], logger=None)
    seen: list[str] = []

    subscriber = broker.subscriber("first")

    @subscriber
    @broker.publisher("second")
    async def first(body: str) -> str:
        assert get_current_span().get_span_context().trace_id == 1
        return body

    @broker.subscriber("second", parser=keep(seen))
    async def second(body: str) -> None: ...

    async with TestKafkaBroker(broker):
        headers = [("traceparent", f"00-{1:032x}-{2:016x}-00".encode())]
        await subscriber.process_message(record("first", 0, headers))

    (passed_on,) = seen
    assert passed_on.startswith(f"00-{1:032x}-")
    assert passed_on.endswith("-01" if recorded else "-00")
    spans = [one.name for one in exporter.get_finished_spans()]
    assert len([one for one in spans if one in ("process first", "send second")]) == recorded
    provider.shutdown()


def keep(seen: list[str]) -> Callable[..., Any]:
    async def parser(message: Any, parse: Callable[[Any], Any]) -> Any:
        seen.append(dict(message.headers)["traceparent"].decode())
        return await parse(message)

    return parser


async def test_a_published_batch_adds_no_baggage_to_later_hops(
    make_broker: MakeBroker, exporter: InMemorySpanExporter
) -> None:
    broker = make_broker()
    publisher = broker.publisher("first", batch=True)
    seen: list[str] = []

    @broker.subscriber("first")
    async def first(body: str) -> None:
        await broker.publish(body, "second")

    @broker.subscriber("second")
    async def second(body: str, message: KafkaMessage) -> None:
        seen.append(message.headers.get("baggage", ""))

    async with TestKafkaBroker(broker):
        await publisher.publish("a", "b")

    send = named(exporter.get_finished_spans(), "send first")
    assert (send.attributes or {})["messaging.batch.message_count"] == 2
    assert {context(span).trace_id for span in exporter.get_finished_spans()} == {
        context(send).trace_id
    }
    assert seen == ["", ""]


async def test_a_batch_links_to_each_message_even_with_equal_correlation_ids(
    make_broker: MakeBroker, exporter: InMemorySpanExporter
) -> None:
    broker = make_broker()
    headers = [f"00-{number:032x}-{number:016x}-01".encode() for number in (1, 2, 3)]

    @broker.subscriber("many", batch=True)
    async def many(bodies: list[str]) -> None: ...

    async with TestKafkaBroker(broker):
        subscriber = next(iter(broker.subscribers))
        records = tuple(
            record("many", offset, [("traceparent", value), ("correlation_id", b"same")])
            for offset, value in enumerate(headers)
        )
        await subscriber.process_message(records)

    process = named(exporter.get_finished_spans(), "process many")
    assert process.parent is None
    assert [link.context.span_id for link in process.links] == [1, 2, 3]
    assert [dict(link.attributes or {})["messaging.kafka.offset"] for link in process.links] == [
        0,
        1,
        2,
    ]
    assert (process.attributes or {})["messaging.batch.message_count"] == 3


async def test_baggage_of_both_apis_is_propagated(make_broker: MakeBroker) -> None:
    broker = make_broker()
    seen: dict[str, Any] = {}

    @broker.subscriber("first")
    async def first(body: str, current: CurrentBaggage) -> None:
        seen["opentelemetry"] = baggage.get_all().get("tenant")
        current.set("added", "yes")
        current.remove("secret")
        await broker.publish(body, "second")

    @broker.subscriber("second")
    async def second(body: str, current: CurrentBaggage) -> None:
        seen["faststream"] = current.get_all()

    async with TestKafkaBroker(broker):
        await broker.publish("x", "first", headers={"baggage": "tenant=acme,secret=1"})

    assert seen == {"opentelemetry": "acme", "faststream": {"tenant": "acme", "added": "yes"}}


@pytest.mark.parametrize("traceparent", ["", "rubbish", "00-0-0-01", "00-" + "0" * 32 + "-1-01"])
async def test_a_malformed_traceparent_starts_a_new_trace(
    make_broker: MakeBroker, exporter: InMemorySpanExporter, traceparent: str
) -> None:
    broker = make_broker()

    @broker.subscriber("first")
    async def first(body: str) -> None: ...

    async with TestKafkaBroker(broker):
        subscriber = next(iter(broker.subscribers))
        headers = [("traceparent", traceparent.encode())]
        await subscriber.process_message(record("first", 0, headers))

    process = named(exporter.get_finished_spans(), "process first")
    assert process.parent is None
    assert process.status.status_code is StatusCode.UNSET


async def test_a_message_that_cannot_be_parsed_has_an_error_span(
    make_broker: MakeBroker, exporter: InMemorySpanExporter
) -> None:
    broker = make_broker()

    @broker.subscriber("first")
    async def first(body: str) -> None: ...

    async with TestKafkaBroker(broker):
        subscriber = next(iter(broker.subscribers))
        with pytest.raises(UnicodeDecodeError):
            await subscriber.process_message(record("first", 0, [("name", b"\xff")]))

    process = named(exporter.get_finished_spans(), "process first")
    assert process.status.status_code is StatusCode.ERROR
    assert (process.attributes or {})["error.type"] == "UnicodeDecodeError"


async def test_an_error_is_recorded_and_a_skip_is_not(
    make_broker: MakeBroker, exporter: InMemorySpanExporter
) -> None:
    broker = make_broker()

    @broker.subscriber("fails")
    async def fails(body: str) -> None:
        raise LookupError(body)

    @broker.subscriber("skips")
    async def skips(body: str) -> None:
        raise SkipMessage

    async with TestKafkaBroker(broker):
        with pytest.raises(LookupError):
            await broker.publish("x", "fails")
        with pytest.raises(SkipMessage):
            await broker.publish("x", "skips")

    failed = named(exporter.get_finished_spans(), "process fails")
    skipped = named(exporter.get_finished_spans(), "process skips")
    assert (failed.attributes or {})["error.type"] == "LookupError"
    assert [event.name for event in failed.events] == ["exception"]
    assert skipped.status.status_code is StatusCode.UNSET
    assert not skipped.events


def test_a_header_that_is_not_utf8_does_not_lose_the_others() -> None:
    received = KafkaConventions().received(record("t", 0, [("a", b"\xff"), ("b", b"ok")]))
    assert received.headers == ({"a": "�", "b": "ok"},)


@pytest.mark.parametrize(("timestamp", "published"), [(1500, [1.5]), (0, []), (-1, [])])
def test_a_message_without_a_timestamp_has_no_delay(timestamp: int, published: list[float]) -> None:
    one = replace(record("t", 0, []), timestamp=timestamp)
    assert list(KafkaConventions().published_at(one)) == published
    assert list(KafkaConventions().published_at((one, one))) == published * 2


class _Faulty(Sampler, SpanProcessor):
    """A sampler and span processor with a bug, which a team may add to its tracer provider."""

    def __init__(self, where: str) -> None:
        self.where = where

    def should_sample(self, *arguments: Any, **options: Any) -> SamplingResult:
        if self.where == "sampler":
            raise LookupError("sampler")
        return SamplingResult(Decision.RECORD_AND_SAMPLE)

    def get_description(self) -> str:
        return "faulty"

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        if self.where == "start":
            raise LookupError("start")

    def on_end(self, span: Any) -> None:
        if self.where == "end":
            raise LookupError("end")


@pytest.mark.parametrize("where", ["sampler", "start", "end"])
async def test_telemetry_that_raises_does_not_fail_the_message(
    where: str,
    make_broker: MakeBroker,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("faststream_otel.telemetry.spans._logged", set())
    faulty = _Faulty(where)
    provider = TracerProvider(sampler=faulty)
    provider.add_span_processor(faulty)
    broker = make_broker(tracer_provider=provider)
    handled = []

    @broker.subscriber("first")
    @broker.publisher("second")
    async def returns(body: str) -> str:
        return body

    @broker.subscriber("second")
    async def ends(body: str) -> None:
        handled.append(body)

    async with TestKafkaBroker(broker):
        for body in ("one", "two"):
            await broker.publish(body, "first")

    assert handled == ["one", "two"]
    assert [one.getMessage() for one in caplog.records] == [
        "Telemetry failed; the service keeps working. Logged once."
    ]
    assert not get_current_span().get_span_context().is_valid
