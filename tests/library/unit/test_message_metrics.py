"""MESSAGING_METRICS chooses who counts messages: one of two middlewares, never both."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import pytest
from faststream.kafka import KafkaBroker, TestKafkaBroker
from faststream_otel.dev.receiver import OtlpReceiver
from faststream_otel.kafka.settings import KafkaSettings
from faststream_otel.kafka.telemetry import KafkaTelemetryMiddleware
from faststream_otel.service import Service
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, ScopeMetrics
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from ..memory import in_memory

PUSHED = {
    "messaging.client.operation.duration",
    "messaging.client.sent.messages",
    "messaging.process.duration",
    "messaging.client.consumed.messages",
}
# Messaging semantic conventions 1.44, "Messaging metrics".
BOUNDARIES = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
SEND = {
    "messaging.system": "kafka",
    "messaging.operation.name": "send",
    "messaging.operation.type": "send",
    "messaging.destination.name": "first",
    "messaging.destination.template": "first",
    "server.address": "kafka.example",
}
PROCESS = SEND | {
    "messaging.operation.name": "process",
    "messaging.operation.type": "process",
    "messaging.consumer.group.name": "group",
}


@pytest.fixture
def sink(monkeypatch: pytest.MonkeyPatch) -> Iterator[OtlpReceiver]:
    with OtlpReceiver() as receiver:
        monkeypatch.setenv("OTEL_METRICS_EXPORTER", "otlp")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.grpc_endpoint)
        yield receiver


async def who_counts(sink: OtlpReceiver) -> tuple[set[str], set[str]]:
    """Names of the metrics that a service pushes, and of those that Prometheus scrapes."""
    service = Service("tested", KafkaSettings())

    @service.subscriber("first")
    async def handle(body: str) -> None: ...

    async with in_memory(service):
        await service.broker.faststream.publish("x", "first")
    service.telemetry.close()
    scraped = {metric.name for metric in service.registry.collect() if metric.samples}
    return (
        {point.name for point in sink.metrics if point.name.startswith("messaging.")},
        {name for name in scraped if name.startswith("faststream_")},
    )


async def test_prometheus_by_default(sink: OtlpReceiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MESSAGING_METRICS", raising=False)
    pushed, scraped = await who_counts(sink)
    assert pushed == set()
    assert "faststream_received_processed_messages" in scraped


async def test_otlp(sink: OtlpReceiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """The telemetry middleware then gets the real meter provider."""
    monkeypatch.setenv("MESSAGING_METRICS", "otlp")
    pushed, scraped = await who_counts(sink)
    assert pushed == PUSHED
    assert scraped == set()


class Measured:
    """A broker with the telemetry middleware, whose meter provider has no views."""

    def __init__(self, **options: Any) -> None:
        self.reader = InMemoryMetricReader()
        self.spans = InMemorySpanExporter()
        traces = TracerProvider()
        traces.add_span_processor(SimpleSpanProcessor(self.spans))
        options = {"meter_provider": MeterProvider([self.reader]), **options}
        self.broker = KafkaBroker(
            middlewares=[
                KafkaTelemetryMiddleware(
                    tracer_provider=traces, server_address="kafka.example", **options
                )
            ],
            logger=None,
        )

    def scope(self) -> ScopeMetrics:
        data = self.reader.get_metrics_data()
        assert data is not None
        (resource,) = data.resource_metrics
        scopes = [  # the SDK measures itself, too
            scope
            for scope in resource.scope_metrics
            if scope.metrics[0].name.startswith("messaging.")
        ]
        (scope,) = scopes
        return scope

    def points(self, name: str) -> list[tuple[Mapping[str, Any], Any]]:
        """The attributes and the data point of each series."""
        (metric,) = [one for one in self.scope().metrics if one.name == name]
        return [(dict(point.attributes or {}), point) for point in metric.data.data_points]


async def handle_one(measured: Measured, body: str | None = "x", *, fails: bool = False) -> None:
    @measured.broker.subscriber("first", group_id="group")
    async def first(body: Any) -> None:
        if fails:
            raise LookupError

    async with TestKafkaBroker(measured.broker):
        with suppress(LookupError):
            await measured.broker.publish(body, "first", key=b"key")


async def test_names_units_and_buckets_are_those_of_the_conventions() -> None:
    measured = Measured()
    await handle_one(measured)
    scope = measured.scope()
    assert {metric.name: metric.unit for metric in scope.metrics} == {
        name: "s" if name.endswith("duration") else "{message}" for name in PUSHED
    }
    for name in ("messaging.client.operation.duration", "messaging.process.duration"):
        ((_, point),) = measured.points(name)
        assert tuple(point.explicit_bounds) == BOUNDARIES
        assert point.count == 1


async def test_spans_and_metrics_are_of_one_scope_with_one_schema() -> None:
    measured = Measured()
    await handle_one(measured)
    metrics = measured.scope()
    assert {span.instrumentation_scope for span in measured.spans.get_finished_spans()} == {
        metrics.scope
    }
    assert metrics.schema_url == "https://opentelemetry.io/schemas/1.44.0"


async def test_attributes_are_those_of_the_conventions() -> None:
    measured = Measured()
    await handle_one(measured)
    for name in ("messaging.client.operation.duration", "messaging.client.sent.messages"):
        ((attributes, _),) = measured.points(name)
        assert attributes == SEND
    for name in ("messaging.process.duration", "messaging.client.consumed.messages"):
        ((attributes, _),) = measured.points(name)
        assert attributes == PROCESS


async def test_a_failure_has_its_error_type() -> None:
    measured = Measured()
    await handle_one(measured, fails=True)
    for name in PUSHED:
        ((attributes, _),) = measured.points(name)
        assert attributes["error.type"] == "LookupError"


async def test_each_message_counts() -> None:
    """Including the messages of a batch, and a tombstone."""
    measured = Measured()
    seen: list[int] = []

    @measured.broker.subscriber("first", group_id="group", batch=True)
    async def first(bodies: list[Any]) -> None:
        seen.append(len(bodies))

    async with TestKafkaBroker(measured.broker):
        await measured.broker.publish_batch("a", "b", "c", topic="first")
        await measured.broker.publish(None, "first", key=b"key")
    ((_, sent),) = measured.points("messaging.client.sent.messages")
    ((_, consumed),) = measured.points("messaging.client.consumed.messages")
    assert sum(seen) == sent.value == consumed.value == 4
    ((_, sending),) = measured.points("messaging.client.operation.duration")
    assert sending.count == 2


async def test_messages_are_not_counted_unless_asked_for() -> None:
    measured = Measured(include_messages_counters=False)
    await handle_one(measured)
    assert {metric.name for metric in measured.scope().metrics} == {
        "messaging.client.operation.duration",
        "messaging.process.duration",
    }


async def test_a_meter_has_precedence_over_a_provider() -> None:
    reader = InMemoryMetricReader()
    meter = MeterProvider([reader]).get_meter("mine")
    measured = Measured(meter=meter, meter_provider=NoOpMeterProvider())
    measured.reader = reader
    await handle_one(measured)
    assert measured.scope().scope.name == "mine"
