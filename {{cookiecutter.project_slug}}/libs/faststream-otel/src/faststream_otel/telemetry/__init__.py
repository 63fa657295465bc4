"""OpenTelemetry for FastStream services: traces, metrics and logs over OTLP.

This package imports neither FastStream nor a broker. The middlewares for messages build on it:

    from faststream_otel import Telemetry
    from faststream_otel.kafka import KafkaTelemetryMiddleware

    telemetry = Telemetry("my-service")
    broker = KafkaBroker(middlewares=[KafkaTelemetryMiddleware(**telemetry.providers)])
    app = FastStream(broker, lifespan=telemetry.lifespan)

The standard `OTEL_*` environment variables configure it. A variable with a bad value raises
`BadVariable`, a ValueError: at the import of `Telemetry`, or at `Telemetry(...)`.
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
    """Import OpenTelemetry on first use: it reads some variables when it is imported."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    prepare_environment()
    return getattr(import_module(_HOMES[name], __name__), name)
