"""OpenTelemetry for FastStream services: traces, metrics and logs over OTLP.

It knows no broker, and not FastStream: the middlewares of `messages` do. Five lines adopt both:

    from faststream_otel import Telemetry
    from faststream_otel.kafka import KafkaTelemetryMiddleware

    telemetry = Telemetry("my-service")
    broker = KafkaBroker(middlewares=[KafkaTelemetryMiddleware(**telemetry.providers)])
    app = FastStream(broker, lifespan=telemetry.lifespan)

The standard `OTEL_*` environment variables configure it. `BadVariable`, a ValueError, says at this
import or at `Telemetry(...)` which of them can't be honoured.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .environment import BadVariable, prepare_environment

if TYPE_CHECKING:
    from .logs import TraceContextFilter
    from .prometheus import ServiceRegistry
    from .providers import Telemetry

__all__ = (
    "BadVariable",
    "ServiceRegistry",
    "Telemetry",
    "TraceContextFilter",
    "prepare_environment",
)

_HOMES = {
    "ServiceRegistry": ".prometheus",
    "Telemetry": ".providers",
    "TraceContextFilter": ".logs",
}


def __getattr__(name: str) -> Any:
    """Import OpenTelemetry on use, since it reads some of the variables when it is imported."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    prepare_environment()
    return getattr(import_module(_HOMES[name], __name__), name)
