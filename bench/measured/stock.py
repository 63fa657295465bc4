"""The application that `faststream run` starts: FastStream's own, with a variant's middlewares."""

import gc
import logging
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

from faststream import AckPolicy, FastStream

from .brokers import BROKERS, Stock
from .flow import add_handlers
from .meter import Meter
from .plan import Plan


def make_app() -> FastStream:
    plan = Plan.read()
    kind = BROKERS[plan.broker]
    options: dict[str, Any] = {}
    if plan.acknowledge:
        options["ack_policy"] = AckPolicy[plan.acknowledge]
    if plan.tuned:
        options["log_level"] = logging.DEBUG
        gc.set_threshold(50_000, 20, 20)  # as faststream_otel.cli.run
    show_records()
    telemetry = Telemetry(kind)
    middlewares = [telemetry.middleware(name) for name in plan.middlewares]
    stock = kind(plan.url, middlewares=middlewares, **options)

    def evidence() -> dict[str, Any]:
        return {
            "acknowledges": sorted({one.ack_policy.name for one in stock.broker.subscribers}),
            "counted": received(telemetry.registry),
        }

    meter = Meter(plan, evidence)
    add_handlers(stock.subscriber, stock.publisher, meter)
    return FastStream(stock.broker, after_startup=[meter.ready], **telemetry.options)


def show_records() -> None:
    """Print the flow's records, as a service that logs anything does."""
    shown = logging.StreamHandler(sys.stdout)
    shown.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logger = logging.getLogger("flow")
    logger.addHandler(shown)
    logger.setLevel(logging.INFO)


def received(registry: Any) -> int:
    """How many messages a Prometheus registry has counted as received."""
    if registry is None:
        return 0
    return int(
        sum(
            sample.value
            for metric in registry.collect()
            for sample in metric.samples
            if sample.name.endswith("_received_messages_total")
        )
    )


class Telemetry:
    """The middlewares by their names, and what the application needs for them.

    - `recipe`: FastStream's documentation, "Tracing", to the letter;
    - `recipe-prometheus`: FastStream's documentation, "Prometheus";
    - `ours`, `ours-prometheus`: the library's docs/adopt.md.
    """

    def __init__(self, kind: type[Stock]) -> None:
        self._kind = kind
        self.registry: Any = None
        self.options: dict[str, Any] = {}

    def middleware(self, name: str) -> Any:
        made: dict[str, Callable[[], Any]] = {
            "recipe": self._recipe,
            "recipe-prometheus": self._recipe_prometheus,
            "ours": self._ours,
            "ours-prometheus": self._ours_prometheus,
        }
        return made[name]()

    def _recipe(self) -> Any:
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        provider = TracerProvider(resource=Resource.create({"service.name": "flow"}))
        trace.set_tracer_provider(provider)
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        return self._theirs("opentelemetry", "Telemetry")(tracer_provider=provider)

    def _recipe_prometheus(self) -> Any:
        from prometheus_client import CollectorRegistry

        self.registry = CollectorRegistry()
        return self._theirs("prometheus", "Prometheus")(registry=self.registry, app_name="flow")

    def _ours(self) -> Any:
        from faststream_otel import Telemetry

        self.telemetry = Telemetry("flow")
        self.options["lifespan"] = self.telemetry.lifespan
        return self._library("Telemetry")(**self.telemetry.providers)

    def _ours_prometheus(self) -> Any:
        from faststream_otel.telemetry import ServiceRegistry

        self.registry = ServiceRegistry(self.telemetry.resource)
        return self._library("Prometheus")(registry=self.registry, app_name="flow")

    def _theirs(self, module: str, what: str) -> Any:
        package = import_module(f"faststream.{self._kind.faststream}.{module}")
        return getattr(package, f"{self._kind.prefix}{what}Middleware")

    def _library(self, what: str) -> Any:
        package = import_module(f"faststream_otel.{self._kind.library}")
        return getattr(package, f"{self._kind.prefix}{what}Middleware")
