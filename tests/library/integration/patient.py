"""A service that can be made to stall, for tests of the watchdog."""

import os
import time
from typing import Any

from faststream.asgi import AsgiResponse, Request, post
from faststream.asgi.response import JSONResponse
from faststream_otel.kafka.settings import KafkaSettings
from faststream_otel.service import Service
from opentelemetry.trace import format_trace_id

service = Service(os.environ.get("NAME", "patient"), KafkaSettings())
poked = service.publisher("pokes")
app = service.app


@service.subscriber("pokes")
async def take(poke: str) -> None:
    """Handle a message without doing anything."""


@post
async def block(request: Request) -> AsgiResponse:
    """Block the event loop, like a forgotten synchronous call."""
    time.sleep(60)  # noqa: ASYNC251
    return AsgiResponse(b"", 204)


@post
async def stick(request: Request) -> AsgiResponse:
    """Stall the consumer, which stays in its group."""
    subscriber: Any = service.broker.faststream.subscribers[0]
    consumer = subscriber.consumer
    consumer.pause(*consumer.assignment())
    return AsgiResponse(b"", 204)


@post
async def poke(request: Request) -> AsgiResponse:
    """Publish a message to this service itself, and respond with its trace id."""
    with service.tracer.start_as_current_span("poke") as span:
        await service.send(poked, "poke")
    trace_id = format_trace_id(span.get_span_context().trace_id)
    return JSONResponse({"trace_id": trace_id}, 202)


for path, handler in {"/block": block, "/poke": poke, "/stick": stick}.items():
    app.mount(path, handler)

if __name__ == "__main__":
    service.run()
