"""One variant of the measured pipeline, in its own process: prints CPU seconds as JSON.

Three hops over Kafka, first -> second -> third, whose handlers only publish to the next.
"""

import argparse
import asyncio
import gc
import json
import logging
import time
import uuid
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any

from faststream.kafka import KafkaBroker

HOPS = 3
WARM_UP = 300  # messages


def middlewares(name: str) -> tuple[list[Any], Callable[[], None]]:
    """The middlewares of a variant, and a function that shuts down its telemetry."""
    if name == "bare":
        return [], lambda: None
    if name.startswith("ours"):
        from faststream_otel import Telemetry, kafka
        from faststream_otel.telemetry.prometheus import ServiceRegistry

        telemetry = Telemetry("bench")
        counting = kafka.KafkaPrometheusMiddleware(
            registry=ServiceRegistry(telemetry.resource), app_name="bench"
        )
        return [kafka.KafkaTelemetryMiddleware(**telemetry.providers), counting], telemetry.close

    from faststream.kafka.opentelemetry import KafkaTelemetryMiddleware
    from faststream.kafka.prometheus import KafkaPrometheusMiddleware
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from prometheus_client import CollectorRegistry

    # FastStream's documentation, "Tracing", to the letter.
    provider = TracerProvider(resource=Resource.create({"service.name": "bench"}))
    trace.set_tracer_provider(provider)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    stock = KafkaTelemetryMiddleware(tracer_provider=provider)
    prometheus = KafkaPrometheusMiddleware(registry=CollectorRegistry(), app_name="bench")
    return ([stock] if name == "recipe" else [stock, prometheus]), provider.shutdown


async def run(name: str, broker_url: str, messages: int, *, tuned: bool) -> float:
    """CPU seconds of this process, all threads, for all messages over all hops."""
    chain, end = middlewares(name)
    options: dict[str, Any] = {"log_level": logging.DEBUG} if tuned else {}
    broker = KafkaBroker(broker_url, middlewares=chain, **options)
    run_id = uuid.uuid4().hex[:8]
    topics = [f"bench-{run_id}-{hop}" for hop in range(HOPS)]
    arrived = 0
    all_there = asyncio.Event()
    wanted = WARM_UP

    def passes_on(source: str, target: str) -> None:
        @broker.subscriber(source, group_id=source, auto_offset_reset="earliest")
        async def handler(body: int) -> None:
            await publish(body, target)

    publish: Callable[..., Awaitable[Any]] = broker.publish
    for source, target in pairwise(topics):
        passes_on(source, target)

    @broker.subscriber(topics[-1], group_id=topics[-1], auto_offset_reset="earliest")
    async def last(body: int) -> None:
        nonlocal arrived
        arrived += 1
        if arrived == wanted:
            all_there.set()

    async with broker:
        await broker.start()
        for number in range(WARM_UP):
            await broker.publish(number, topics[0])
        await all_there.wait()
        all_there.clear()
        wanted = WARM_UP + messages
        started = time.process_time()
        for number in range(messages):
            await broker.publish(number, topics[0])
        await all_there.wait()
        await asyncio.to_thread(end)  # exporting what is queued is part of the cost
        return time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=["bare", "recipe", "recipe+prometheus", "ours", "ours+all"])
    parser.add_argument("--broker", required=True)
    parser.add_argument("--messages", type=int, required=True)
    parser.add_argument("--tuned", action="store_true", help="loop, log level and gc as baked")
    chosen = parser.parse_args()
    factory = None
    if chosen.tuned:
        import uvloop

        factory = uvloop.new_event_loop
        gc.set_threshold(50_000, 20, 20)
    with asyncio.Runner(loop_factory=factory) as runner:
        seconds = runner.run(run(chosen.name, chosen.broker, chosen.messages, tuned=chosen.tuned))
    print(json.dumps({"cpu_seconds": seconds, "messages": chosen.messages, "hops": HOPS}))


if __name__ == "__main__":
    main()
