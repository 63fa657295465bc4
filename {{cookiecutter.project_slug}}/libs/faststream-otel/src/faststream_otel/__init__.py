"""OpenTelemetry for FastStream services. What most people need of it:

- `Telemetry` and the middlewares of a broker's module, such as `faststream_otel.kafka`: telemetry
  for services that are there already.
- `Service`: a whole service, with health checks, retries, dead letters and an orderly end.

Nothing is imported before it is used, since OpenTelemetry reads some of its variables on import.
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
