"""OpenTelemetry for FastStream services: traces, metrics and logs over OTLP.

It knows no broker, and not FastStream: the middlewares of `messages` do. Five lines adopt both:

    from faststream_otel import Telemetry
    from faststream_otel.kafka import KafkaTelemetryMiddleware

    telemetry = Telemetry("my-service")
    broker = KafkaBroker(middlewares=[KafkaTelemetryMiddleware(**telemetry.providers)])
    app = AsgiFastStream(broker, lifespan=telemetry.lifespan)

The standard `OTEL_*` environment variables configure it. `BadVariable`, a ValueError, says at this
import or at `Telemetry(...)` which of them can't be honoured.
"""

from typing import TYPE_CHECKING, Any

from .environment import BadVariable, prepare_environment

if TYPE_CHECKING:
    from .providers import Telemetry

__all__ = ("BadVariable", "Telemetry", "prepare_environment")


def __getattr__(name: str) -> Any:
    """Import OpenTelemetry on use, since it reads some of the variables when it is imported."""
    if name != "Telemetry":
        raise AttributeError(name)
    prepare_environment()
    from .providers import Telemetry

    return Telemetry
