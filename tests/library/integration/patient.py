"""A service that can be made to stand still, for tests of what then happens to it."""

import time
from typing import Any

from faststream.asgi import AsgiResponse, Request, post

from faststream_otel.kafka.settings import KafkaSettings
from faststream_otel.service import Service

service = Service("patient", KafkaSettings())
poked = service.publisher("pokes")
app = service.app


@service.subscriber("pokes")
async def take(poke: str) -> None:
    """Take a message, and do nothing with it."""


@post
async def block(request: Request) -> AsgiResponse:
    """Block the event loop, as a forgotten synchronous call does."""
    time.sleep(60)  # noqa: ASYNC251
    return AsgiResponse(b"", 204)


@post
async def stick(request: Request) -> AsgiResponse:
    """Let the consumer take nothing any more, though it stays in its group."""
    subscriber: Any = service.broker.faststream.subscribers[0]
    consumer = subscriber.consumer
    consumer.pause(*consumer.assignment())
    return AsgiResponse(b"", 204)


@post
async def poke(request: Request) -> AsgiResponse:
    """Send this service itself a message."""
    await service.send(poked, "poke")
    return AsgiResponse(b"", 204)


for path, handler in {"/block": block, "/poke": poke, "/stick": stick}.items():
    app.mount(path, handler)

if __name__ == "__main__":
    service.run()
