"""NATS with nats-py: middlewares for any FastStream broker, and settings for a `Service`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..messages.retry import RetryPolicy
    from .prometheus import NatsPrometheusMiddleware
    from .retry import NatsRetryMiddleware
    from .settings import NatsSettings
    from .telemetry import NatsTelemetryMiddleware

__all__ = (
    "NatsPrometheusMiddleware",
    "NatsRetryMiddleware",
    "NatsSettings",
    "NatsTelemetryMiddleware",
    "RetryPolicy",
)

_HOMES = {
    "NatsPrometheusMiddleware": ".prometheus",
    "NatsRetryMiddleware": ".retry",
    "NatsSettings": ".settings",
    "NatsTelemetryMiddleware": ".telemetry",
    "RetryPolicy": "..messages.retry",
}


def __getattr__(name: str) -> Any:
    """Import on first use: the variables must be checked before OpenTelemetry is imported."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name], __name__), name)
