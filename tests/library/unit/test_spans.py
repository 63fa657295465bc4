"""A span processor or a sampler that raises harms neither requests nor attempts."""

from typing import Any

import pytest
from faststream.kafka import TestKafkaBroker
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider

from faststream_otel.service import Service
from faststream_otel.settings import Settings
from faststream_otel.http.tracing import serve_traced


class Faulty(SpanProcessor):
    """What a team may add to its tracer provider, and what may have a bug."""

    def __init__(self, where: str) -> None:
        self.where = where

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        if self.where == "start":
            raise LookupError("start")

    def on_end(self, span: Any) -> None:
        if self.where == "end":
            raise LookupError("end")


@pytest.mark.parametrize("where", ["start", "end"])
async def test_an_attempt_that_succeeds_is_the_last(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "false")
    for signal in ("TRACES", "METRICS", "LOGS"):
        monkeypatch.setenv(f"OTEL_{signal}_EXPORTER", "none")
    service = Service("faulty", Settings(retry_backoff_seconds=0))
    service.telemetry.tracer_provider.add_span_processor(Faulty(where))
    attempts = []

    @service.subscriber("numbers")
    async def handle(number: int) -> None:
        attempts.append(number)
        if len(attempts) == 1:
            raise ConnectionError("for now")

    async with TestKafkaBroker(service.broker) as broker:
        await broker.publish(1, "numbers")
    service.telemetry.close()
    assert attempts == [1, 1]


@pytest.mark.parametrize("where", ["start", "end"])
async def test_a_request_is_answered(where: str) -> None:
    provider = TracerProvider()
    provider.add_span_processor(Faulty(where))
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})

    async def send(message: Any) -> None:
        sent.append(message["status"])

    async def receive() -> Any:
        raise AssertionError

    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    await serve_traced(app, scope, receive, send, route="/", provider=provider)
    assert sent == [204]
