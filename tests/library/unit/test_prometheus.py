"""The metrics that FastStream lacks, and the labels of the service."""

import re
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from faststream import AckPolicy
from faststream.exceptions import AckMessage, NackMessage, RejectMessage, SkipMessage
from faststream.kafka import KafkaBroker, TestKafkaBroker
from faststream.kafka.prometheus import KafkaPrometheusMiddleware as StockMiddleware
from faststream_otel.kafka.prometheus import KafkaPrometheusMiddleware
from faststream_otel.messages.prometheus import FLOW_STARTED, MessagingMetrics
from faststream_otel.telemetry.prometheus import ServiceRegistry
from opentelemetry.sdk.resources import Resource
from prometheus_client import CollectorRegistry, Counter, ProcessCollector, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

DELAY = "messaging_receive_delay_seconds"
FLOW = "messaging_flow_duration_seconds"


class Measured:
    """A broker whose metrics can be read."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.metrics = MessagingMetrics(self.registry)
        self.broker = KafkaBroker(
            middlewares=[KafkaPrometheusMiddleware(registry=self.registry, metrics=self.metrics)],
            logger=None,
        )

    def read(self, name: str) -> dict[tuple[str, ...], float]:
        """The samples of a metric: values by label values."""
        return {
            tuple(sample.labels.values()): sample.value
            for metric in self.registry.collect()
            for sample in metric.samples
            if sample.name == name
        }


@pytest.fixture
def measured() -> Measured:
    return Measured()


async def count(middleware: Callable[..., Any], **options: Any) -> dict[tuple[Any, ...], float]:
    """FastStream's own metrics after messages with every possible outcome."""
    registry = CollectorRegistry()
    options = {"registry": registry, "app_name": "a", **options}
    broker = KafkaBroker(middlewares=[middleware(**options)], logger=None)
    ends: dict[str, Exception] = {
        "fails": LookupError("fails"),
        "rejects": RejectMessage(),
        "nacks": NackMessage(),
        "skips": SkipMessage(),
        "acknowledges": AckMessage(),
    }

    # The default policy acknowledges all messages before they are handled.
    @broker.subscriber("first", group_id="g", ack_policy=AckPolicy.NACK_ON_ERROR)
    @broker.publisher("second")
    async def first(body: str) -> str:
        if body in ends:
            raise ends[body]
        return body

    @broker.subscriber("batch", batch=True)
    async def batch(bodies: list[str]) -> None: ...

    @broker.subscriber("asked")
    async def asked(body: str) -> str:
        return body

    async with TestKafkaBroker(broker):
        for body in ("works", "works", *ends):
            with suppress(LookupError, *map(type, ends.values())):
                await broker.publish(body, "first")
        await broker.publish_batch("one", "two", topic="batch")
        await broker.request("question", "asked")
        broker.config.broker_config.producer = Refusing()  # type: ignore[assignment]
        with pytest.raises(ConnectionError):
            await broker.publish("lost", "first")
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for metric in registry.collect()
        for sample in metric.samples
        if sample.name.startswith("faststream_")
        and not sample.name.endswith(("_created", "_sum", "_bucket"))
    }


class Refusing:
    """A producer whose broker is unreachable."""

    async def publish(self, command: object) -> None:
        raise ConnectionError


@pytest.mark.parametrize("options", [{}, {"metrics_prefix": "other"}], ids=["plain", "prefix"])
async def test_faststreams_own_metrics_are_unchanged(options: dict[str, Any]) -> None:
    ours = await count(KafkaPrometheusMiddleware, **options)
    assert ours == await count(StockMiddleware, **options)
    if "metrics_prefix" not in options:
        statuses = {dict(labels).get("status") for _, *labels in ours}
        assert statuses >= {"acked", "rejected", "nacked", "skipped", "error", "success"}


async def test_a_flow_ends_at_a_handler_that_publishes_nothing(measured: Measured) -> None:
    @measured.broker.subscriber("first", group_id="service.first")
    @measured.broker.publisher("second")
    async def first(body: str) -> str:
        return body

    @measured.broker.subscriber("second", group_id="service.second")
    async def second(body: str) -> None: ...

    async with TestKafkaBroker(measured.broker):
        await measured.broker.publish("x", "first")
        await measured.broker.publish("x", "first")

    assert measured.read(f"{DELAY}_count") == {
        ("first", "service.first"): 2,
        ("second", "service.second"): 2,
    }
    assert measured.read(f"{FLOW}_count") == {("second", "succeeded"): 2}


async def publish_plainly(measured: Measured, value: str) -> float:
    """Publish a message with this header, and return the duration of its flow."""
    plain = KafkaBroker(logger=None)

    @measured.broker.subscriber("first")
    @measured.broker.publisher("second")
    async def first(body: str) -> str:
        return body

    @measured.broker.subscriber("second")
    async def second(body: str) -> None: ...

    async with TestKafkaBroker(measured.broker, plain):
        await plain.publish("x", "first", headers={FLOW_STARTED: value})
    (duration,) = measured.read(f"{FLOW}_sum").values()
    return duration


async def test_a_flow_starts_at_its_first_publication(measured: Measured) -> None:
    a_minute_ago = str(int((time.time() - 60) * 1000))
    assert 59 < await publish_plainly(measured, a_minute_ago) < 65


@pytest.mark.parametrize("value", ["", "yesterday", "-5", "1e4", "٣", "9" * 400])
async def test_a_malformed_start_of_a_flow_is_ignored(measured: Measured, value: str) -> None:
    assert 0 <= await publish_plainly(measured, value) < 5


async def test_the_callers_headers_are_not_modified(measured: Measured) -> None:
    headers = {"mine": "kept"}
    async with TestKafkaBroker(measured.broker):
        await measured.broker.publish("x", "first", headers=headers)
    assert headers == {"mine": "kept"}


@pytest.mark.parametrize(
    ("raised", "ended"),
    [
        (LookupError(), {("first", "failed"): 1}),
        (RejectMessage(), {("first", "succeeded"): 1}),  # a decision, not an error
        (NackMessage(), {}),  # redelivered
    ],
)
async def test_how_a_flow_ends_in_an_error(
    measured: Measured, raised: Exception, ended: dict[tuple[str, str], int]
) -> None:
    @measured.broker.subscriber("first")
    async def first(body: str) -> None:
        raise raised

    async with TestKafkaBroker(measured.broker):
        with suppress(type(raised)):
            await measured.broker.publish("x", "first")
    assert measured.read(f"{FLOW}_count") == ended


async def test_each_message_of_a_batch_ends_its_own_flow(measured: Measured) -> None:
    @measured.broker.subscriber("first", batch=True)
    async def first(bodies: list[str]) -> None:
        with measured.metrics.dead_letter("first", ValueError(), {}):
            await measured.broker.publish("bad", "dead-letters")
        raise RejectMessage from ValueError()

    async with TestKafkaBroker(measured.broker):
        with suppress(RejectMessage):
            await measured.broker.publish_batch("good", "good", "bad", topic="first")
    assert measured.read(f"{FLOW}_count") == {("first", "failed"): 1, ("first", "succeeded"): 2}
    assert measured.read("messaging_dead_letters_total") == {("first", "ValueError"): 1}


async def test_a_dead_letter_that_cannot_be_published_is_not_counted(measured: Measured) -> None:
    with pytest.raises(ConnectionError), measured.metrics.dead_letter("first", ValueError(), {}):
        raise ConnectionError
    assert measured.read("messaging_dead_letters_total") == {}


def test_every_series_has_the_labels_of_its_service() -> None:
    registry = ServiceRegistry(
        Resource(
            {
                "service.name": "orders",
                "service.instance.id": "one",
                "deployment.environment.name": "test",
                "process.pid": 1,
            }
        )
    )
    Counter("mine", "Of a user's own.", ["kind", "service_name"], registry=registry).labels(
        "a", "another"
    ).inc()
    series = (
        'mine_total{deployment_environment_name="test",kind="a",'
        'service_instance_id="one",service_name="another"} 1.0'
    )
    for exposition in (generate_latest, generate_openmetrics):
        text = exposition(registry).decode()
        assert series in text
        assert text.count("\ntarget_info{") == 1


@pytest.mark.parametrize("registered", [False, True], ids=["alone", "with ProcessCollector"])
def test_a_restart_shows_in_the_start_time(registered: bool) -> None:
    def started() -> float:
        registry = ServiceRegistry(Resource({"service.name": "orders"}))
        if registered:
            ProcessCollector(registry=registry)
        text = generate_latest(registry).decode()
        (line,) = re.findall(r"^process_start_time_seconds\{.*", text, re.MULTILINE)
        assert 'service_name="orders"' in line
        return float(line.split()[-1])

    before = time.time()
    assert 0 < started() <= time.time()
    if not registered:
        assert before <= started() <= time.time()
