"""MESSAGING_METRICS says who counts messages: one of two, and never both."""

from collections.abc import Iterator

import pytest

from {{ cookiecutter.package_name }}.service import Service

from ..memory import in_memory
from devtools.sink import OtlpSink

PUSHED = {
    "messaging.publish.duration",
    "messaging.publish.messages",
    "messaging.process.duration",
    "messaging.process.messages",
}


@pytest.fixture
def sink(monkeypatch: pytest.MonkeyPatch) -> Iterator[OtlpSink]:
    with OtlpSink() as receiver:
        monkeypatch.setenv("OTEL_METRICS_EXPORTER", "otlp")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.grpc_endpoint)
        yield receiver


async def who_counts(sink: OtlpSink) -> tuple[set[str], set[str]]:
    """Names of what is pushed and of what is scraped of a service that handles a message."""
    service = Service("tested")

    @service.subscriber("first")
    async def handle(body: str) -> None: ...

    async with in_memory(service):
        await service.broker.publish("x", "first")
    service.telemetry.close()
    scraped = {metric.name for metric in service.registry.collect() if metric.samples}
    return (
        {point.name for point in sink.metrics if point.name.startswith("messaging.")},
        {name for name in scraped if name.startswith("faststream_")},
    )


async def test_prometheus_by_default(sink: OtlpSink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MESSAGING_METRICS", raising=False)
    pushed, scraped = await who_counts(sink)
    assert pushed == set()
    assert "faststream_received_processed_messages" in scraped


async def test_otlp(sink: OtlpSink, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the meter provider that the telemetry middleware is given then."""
    monkeypatch.setenv("MESSAGING_METRICS", "otlp")
    pushed, scraped = await who_counts(sink)
    assert pushed == PUSHED
    assert scraped == set()
