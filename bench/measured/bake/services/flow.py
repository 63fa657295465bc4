"""The whole service."""

from faststream_otel import Service

from ..settings import Settings
from . import measured

service = Service("flow", Settings())
app = service.app
measured(service)
