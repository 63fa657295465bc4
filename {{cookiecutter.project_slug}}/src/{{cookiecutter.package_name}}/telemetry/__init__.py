"""OpenTelemetry for FastStream services: traces, metrics and logs over OTLP.

Self-contained: copy this folder into any FastStream service. Five lines adopt it:

    from .telemetry import Telemetry
    from .telemetry.kafka import KafkaTelemetryMiddleware

    telemetry = Telemetry("my-service")
    broker = KafkaBroker(middlewares=[KafkaTelemetryMiddleware(**telemetry.providers)])
    app = AsgiFastStream(broker, lifespan=telemetry.lifespan)

The standard `OTEL_*` environment variables configure it.
"""

from .providers import Telemetry

__all__ = ("Telemetry",)
