"""Every log record about a message has its trace id, FastStream's own records too."""

import asyncio
import logging
from uuid import uuid4

import pytest
from faststream import AckPolicy
from faststream.kafka import KafkaBroker
from faststream_otel.kafka.telemetry import KafkaTelemetryMiddleware
from faststream_otel.telemetry.logs import TraceContextFilter
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from ..spans import context, named

ABOUT_THE_MESSAGE = ("Received", "handling", "LookupError: hello", "Processed")


async def test_records_before_in_and_after_the_handler(
    kafka: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    records: list[logging.LogRecord] = []
    logger = logging.getLogger("faststream.tested")
    handler = logging.Handler()
    processed = asyncio.Event()

    def emit(record: logging.LogRecord) -> None:
        records.append(record)
        if record.getMessage() == "Processed":
            processed.set()

    monkeypatch.setattr(handler, "emit", emit)
    handler.addFilter(TraceContextFilter())
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False

    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    broker = KafkaBroker(
        kafka,
        middlewares=[
            KafkaTelemetryMiddleware(tracer_provider=provider, meter_provider=NoOpMeterProvider())
        ],
        logger=logger,
    )
    topic = f"logs-{uuid4()}"

    @broker.subscriber(topic, auto_offset_reset="earliest", ack_policy=AckPolicy.ACK)
    async def fails(body: str) -> None:
        logger.info("handling")
        raise LookupError(body)

    async with broker:
        await broker.start()
        await broker.publish("hello", topic)
        async with asyncio.timeout(20):
            await processed.wait()
        logger.info("between messages")
    logger.removeHandler(handler)

    process = named(exporter.get_finished_spans(), f"process {topic}")
    ids = {record.getMessage(): getattr(record, "span_id", None) for record in records}
    assert {text: ids.get(text) for text in ABOUT_THE_MESSAGE} == dict.fromkeys(
        ABOUT_THE_MESSAGE, f"{context(process).span_id:016x}"
    )
    assert ids["between messages"] == ""
