"""The smallest service with a route and a publisher, for tests of what all services share."""

from faststream_otel.http import HttpService
from faststream_otel.kafka import KafkaSettings
from opentelemetry import trace
from pydantic import BaseModel

service = HttpService("probe", KafkaSettings())
pinged = service.publisher("pings")
app = service.app


class Parcel(BaseModel):
    weight: int


@service.http.post("/ping")
async def ping() -> dict[str, str]:
    """Publish a message, and respond with its trace id."""
    await service.send(pinged, "ping")
    trace_id = trace.get_current_span().get_span_context().trace_id
    return {"trace_id": trace.format_trace_id(trace_id)}


@service.http.post("/weigh")
async def weigh(parcel: Parcel) -> Parcel:
    return parcel


if __name__ == "__main__":
    service.run()
