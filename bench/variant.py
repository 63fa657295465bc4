"""One variant of the measured pipeline, in its own process: prints CPU seconds as JSON.

Three hops, first -> second -> third, whose handlers only publish to the next.
"""

import argparse
import asyncio
import gc
import importlib
import json
import logging
import time
import uuid
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from bench.pipelines import OPTIONS, PIPELINES, Pipeline

HOPS = 3
WARM_UP = 300  # messages


def middlewares(name: str, kind: type[Pipeline]) -> tuple[list[Any], Callable[[], None]]:
    """The middlewares of a variant, and a function that shuts down its telemetry."""
    if name == "bare":
        return [], lambda: None
    if name.startswith("ours"):
        from faststream_otel import Telemetry
        from faststream_otel.telemetry.prometheus import ServiceRegistry

        telemetry = Telemetry("bench")
        traces = library_middleware(kind, "Telemetry")(**telemetry.providers)
        counting = library_middleware(kind, "Prometheus")(
            registry=ServiceRegistry(telemetry.resource), app_name="bench"
        )
        return [traces, counting], telemetry.close

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
    stock = faststream_middleware(kind, "Telemetry")(tracer_provider=provider)
    prometheus = faststream_middleware(kind, "Prometheus")(
        registry=CollectorRegistry(), app_name="bench"
    )
    return ([stock] if name == "recipe" else [stock, prometheus]), provider.shutdown


def library_middleware(kind: type[Pipeline], what: str) -> Any:
    package = importlib.import_module(f"faststream_otel.{kind.library}")
    return getattr(package, f"{kind.prefix}{what}Middleware")


def faststream_middleware(kind: type[Pipeline], what: str) -> Any:
    module = {"Telemetry": "opentelemetry", "Prometheus": "prometheus"}[what]
    package = importlib.import_module(f"faststream.{kind.faststream}.{module}")
    return getattr(package, f"{kind.prefix}{what}Middleware")


async def run(
    name: str, kind: type[Pipeline], broker_url: str, messages: int, *, tuned: bool
) -> float:
    """CPU seconds of this process, all threads, for all messages over all hops."""
    chain, end = middlewares(name, kind)
    options: dict[str, Any] = {"log_level": logging.DEBUG} if tuned else {}
    pipeline = kind(broker_url, middlewares=chain, **OPTIONS, **options)
    run_id = uuid.uuid4().hex[:8]
    channels = [f"bench-{run_id}-{hop}" for hop in range(HOPS)]
    arrived = 0
    all_there = asyncio.Event()
    wanted = WARM_UP

    def passes_on(source: str, target: str) -> None:
        @pipeline.subscriber(source)
        async def handler(body: int) -> None:
            await pipeline.publish(body, target)

    for source, target in pairwise(channels):
        passes_on(source, target)

    @pipeline.subscriber(channels[-1])
    async def last(body: int) -> None:
        nonlocal arrived
        arrived += 1
        if arrived == wanted:
            all_there.set()

    async with pipeline.broker as broker:
        await pipeline.create(channels)
        await broker.start()
        for number in range(WARM_UP):
            await pipeline.publish(number, channels[0])
        await all_there.wait()
        all_there.clear()
        wanted = WARM_UP + messages
        started = time.process_time()
        for number in range(messages):
            await pipeline.publish(number, channels[0])
        await all_there.wait()
        await asyncio.to_thread(end)  # exporting what is queued is part of the cost
        spent = time.process_time() - started
        await pipeline.delete(channels)
    return spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=["bare", "recipe", "recipe+prometheus", "ours", "ours+all"])
    parser.add_argument("--broker", choices=PIPELINES, required=True)
    parser.add_argument("--broker-url", required=True)
    parser.add_argument("--messages", type=int, required=True)
    parser.add_argument("--tuned", action="store_true", help="loop, log level and gc as baked")
    chosen = parser.parse_args()
    factory = None
    if chosen.tuned:
        import uvloop

        factory = uvloop.new_event_loop
        gc.set_threshold(50_000, 20, 20)
    with asyncio.Runner(loop_factory=factory) as runner:
        seconds = runner.run(
            run(
                chosen.name,
                PIPELINES[chosen.broker],
                chosen.broker_url,
                chosen.messages,
                tuned=chosen.tuned,
            )
        )
    print(json.dumps({"cpu_seconds": seconds, "messages": chosen.messages, "hops": HOPS}))


if __name__ == "__main__":
    main()
