"""The smallest service that takes requests and sends a message, for tests of what all share."""

from faststream.asgi import AsgiResponse, Request, post
from faststream.asgi.response import JSONResponse
from opentelemetry import trace
from pydantic import BaseModel

from faststream_otel.kafka import broker as messaging
from faststream_otel.http import web
from faststream_otel.http_limits import Scope
from faststream_otel.service import Service

service = Service("probe")
pinged = service.publisher("pings")
app = service.app


@post
async def ping(request: Request) -> AsgiResponse:
    """Send a message, and answer with the trace that it is part of."""
    try:
        await pinged.publish("ping")
    except messaging.Unreachable:
        return AsgiResponse(b"", 503)
    trace_id = trace.get_current_span().get_span_context().trace_id
    return JSONResponse({"trace_id": trace.format_trace_id(trace_id)})


class Parcel(BaseModel):
    weight: int


@web.post(Parcel)
async def weigh(parcel: Parcel, scope: Scope) -> AsgiResponse:
    return JSONResponse({"weight": parcel.weight})


service.route("/ping", ping)
service.route("/weigh", weigh)

if __name__ == "__main__":
    service.run()
