"""The services that are measured."""

from typing import Any

from faststream_otel import Service

from ...flow import add_handlers
from ...meter import Meter
from ...plan import Plan
from ...stock import received


def measured(service: Service) -> None:
    """Add the flow to a service."""

    def evidence() -> dict[str, Any]:
        subscribers: Any = service.broker.faststream.subscribers
        return {
            "acknowledges": sorted({one.ack_policy.name for one in subscribers}),
            "counted": received(service.registry),
        }

    meter = Meter(Plan.read(), evidence)
    add_handlers(service.subscriber, service.publisher, meter)
    service.faststream.after_startup(meter.ready)
