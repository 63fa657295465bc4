"""The whole service, with a route of its own: FastAPI's."""

from faststream_otel.http import HttpService

from ..settings import Settings
from . import measured

service = HttpService("flow", Settings())
app = service.app
measured(service)


@service.http.post("/events", status_code=202)
async def accept() -> dict[str, str]:
    return {}
