"""The smallest service that takes a request and sends a message, for tests of what all share."""

from faststream.asgi import AsgiResponse, Request, post
from faststream.asgi.response import JSONResponse
from opentelemetry import trace

from {{ cookiecutter.package_name }}.service import Service

service = Service("probe")
pinged = service.publisher("pings")
app = service.app


@post
async def ping(request: Request) -> AsgiResponse:
    """Send a message, and answer with the trace that it is part of."""
    await pinged.publish("ping")
    trace_id = trace.get_current_span().get_span_context().trace_id
    return JSONResponse({"trace_id": trace.format_trace_id(trace_id)})


service.route("/ping", ping)

if __name__ == "__main__":
    service.run()
