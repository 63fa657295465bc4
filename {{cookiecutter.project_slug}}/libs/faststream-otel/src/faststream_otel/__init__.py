"""OpenTelemetry for FastStream services. The names that most projects need:

- `Telemetry`, and the middlewares of a broker's module such as `faststream_otel.kafka`: telemetry
  for existing services.
- `Service`: a whole service, with health checks, retries, dead letters and an orderly shutdown.

Names are imported on first use, because OpenTelemetry reads some environment variables on import.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .service import Service
    from .settings import BadSetting, Settings
    from .telemetry import BadVariable, Telemetry

__all__ = ("BadSetting", "BadVariable", "Service", "Settings", "Telemetry")

_HOMES = {
    "BadSetting": "settings",
    "BadVariable": "telemetry",
    "Service": "service",
    "Settings": "settings",
    "Telemetry": "telemetry",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
