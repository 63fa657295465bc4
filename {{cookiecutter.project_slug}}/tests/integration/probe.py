"""The smallest service that takes requests and sends a message, for tests of what all share."""

import time
from typing import Any

from faststream.asgi import AsgiResponse, Request, post
from faststream.asgi.response import JSONResponse
from opentelemetry import trace
from pydantic import BaseModel

from {{ cookiecutter.package_name }} import web
from {{ cookiecutter.package_name }}.service import Service

service = Service("probe")
pinged = service.publisher("pings")
poked = service.publisher("pokes")
app = service.app


@service.subscriber("pokes")
async def take(poke: str) -> None:
    """Take a message, and do nothing with it."""


@post
async def ping(request: Request) -> AsgiResponse:
    """Send a message, and answer with the trace that it is part of."""
    await pinged.publish("ping")
    trace_id = trace.get_current_span().get_span_context().trace_id
    return JSONResponse({"trace_id": trace.format_trace_id(trace_id)})


@post
async def block(request: Request) -> AsgiResponse:
    """Block the event loop, as a forgotten synchronous call does."""
    time.sleep(60)  # noqa: ASYNC251
    return AsgiResponse(b"", 204)


@post
async def stick(request: Request) -> AsgiResponse:
    """Let the consumer take nothing any more, though it stays in its group."""
    subscriber: Any = service.broker.subscribers[0]
    consumer = subscriber.consumer
    consumer.pause(*consumer.assignment())
    return AsgiResponse(b"", 204)


@post
async def poke(request: Request) -> AsgiResponse:
    """Send this service itself a message."""
    await poked.publish("poke")
    return AsgiResponse(b"", 204)


class Parcel(BaseModel):
    weight: int


@web.post(Parcel, service.settings)
async def weigh(parcel: Parcel, request: Request) -> AsgiResponse:
    return JSONResponse({"weight": parcel.weight})


service.route("/ping", ping)
app.mount("/block", block)
app.mount("/poke", poke)
app.mount("/stick", stick)
service.route("/weigh", weigh)

if __name__ == "__main__":
    service.run()
