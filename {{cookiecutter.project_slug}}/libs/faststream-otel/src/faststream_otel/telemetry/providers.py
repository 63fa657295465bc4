"""The three OpenTelemetry providers of a process, and their orderly shutdown."""

import asyncio
import atexit
import logging
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from weakref import WeakSet

from opentelemetry import _logs, metrics, trace
from opentelemetry.metrics import MeterProvider as AnyMeterProvider
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk._logs import LoggerProvider, LogRecordProcessor
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, LogRecordExporter
from opentelemetry.sdk.environment_variables import (
    OTEL_LOG_LEVEL,
    OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED,
    OTEL_SDK_DISABLED,
)
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricExporter, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter
from opentelemetry.semconv.attributes.service_attributes import SERVICE_NAME

from ._opentelemetry import is_bare, set_resource
from .batches import (
    Batches,
    EncodingLoggerProvider,
    EncodingLogRecordProcessor,
    EncodingSpanProcessor,
)
from .environment import (
    LOG_LEVELS,
    SIGNALS,
    Signal,
    batch_size,
    environment_warnings,
    prepare_environment,
    queue_size,
)
from .exporters import Delivery, make_exporters
from .limits import LimitedSpanProcessor, span_limits
from .logs import install_handler, remove_handler
from .metrics import VIEWS
from .resource import make_resource
from .runtime import EventLoopWatch, observe_runtime

IDLE_EXIT_SECONDS = 2.0

# Silent unless OTEL_LOG_LEVEL asks for them. The exporters log in hundreds of lines what `Delivery`
# logs in one. The others log bad headers of messages and requests, with their content: any sender
# could fill the log.
_QUIET = {
    "opentelemetry.exporter": logging.CRITICAL,
    "opentelemetry.baggage": logging.ERROR,
    "opentelemetry.trace.propagation": logging.ERROR,
    "opentelemetry.trace.span": logging.ERROR,  # of tracestate
}

logger = logging.getLogger(__name__)
_made: WeakSet[Any] = WeakSet()
"""Providers that a `Telemetry` of this process has made."""
_fed: WeakSet[Any] = WeakSet()
"""Providers that a `Telemetry` feeds with log records and with metrics of the process."""


class Telemetry:
    """Traces, metrics and logs of one process, configured by `OTEL_*` environment variables.

    Args:
        service_name: `service.name`, unless OTEL_SERVICE_NAME is set.
        message_metrics: Whether the telemetry middleware records OTLP metrics of messages. Off by
            default, because FastStream's Prometheus middleware counts the same messages.
        span_exporter: Replaces the exporter that OTEL_TRACES_EXPORTER names; for tests. It gets its
            own provider, even if a global one is set.
        metric_exporter: Likewise.
        log_exporter: Likewise.
        make_global: True: this object and `opentelemetry.trace.get_tracer`, `get_meter` and
            `get_logger` share the global providers. If none is set, the first `Telemetry` of a
            process sets its own. If the application or `opentelemetry-instrument` has set one
            before, this object uses it: its exporters, limits and resource apply, so nothing is
            exported twice. It only gets the resource attributes and, if it has none, the exporters
            that it lacks. False: this object has its own providers, and sets no global ones.
        package: The name of a module of the service. `service.namespace` and `service.version` come
            from the distribution that installed it. Default: neither is set.

    Raises:
        BadVariable: A variable has a bad value, such as OTEL_TRACES_EXPORTER=jeager.
    """

    def __init__(
        self,
        service_name: str,
        *,
        message_metrics: bool = False,
        span_exporter: SpanExporter | None = None,
        metric_exporter: MetricExporter | None = None,
        log_exporter: LogRecordExporter | None = None,
        make_global: bool = True,
        package: str = "",
    ) -> None:
        prepare_environment()
        _set_diagnostic_level()
        for warning in environment_warnings():
            logger.warning("%s", warning)
        self.enabled = os.environ.get(OTEL_SDK_DISABLED, "").lower() != "true"
        self._closed = threading.Lock()
        self._event_loop_watch: EventLoopWatch | None = None

        given: dict[Signal, Any] = {
            "traces": span_exporter,
            "metrics": metric_exporter,
            "logs": log_exporter,
        }
        found = _set_by_others() if make_global else {}
        # Providers that other code has set, and will shut down.
        self._others = {signal: one for signal, one in found.items() if given[signal] is None}
        resource = _merged(make_resource(service_name, package), self._others.values())
        self._delivery = Delivery()
        self._queues: list[tuple[Signal, Batches]] = []
        exports = self._make_providers(given, resource)
        self._exports_metrics = exports["metrics"]
        self._log_handler = None
        if exports["logs"] and self.logger_provider not in _fed:
            self._log_handler = install_handler(self.logger_provider)
        if exports["metrics"] and self.meter_provider not in _fed:
            observe_runtime(self.meter_provider)
        _fed.update((self.logger_provider, self.meter_provider))

        self.message_meter_provider: AnyMeterProvider = (
            self.meter_provider if message_metrics and exports["metrics"] else NoOpMeterProvider()
        )
        _made.update(set(self._providers.values()) - set(self._others.values()))
        if make_global:
            self._make_global()
        self._log_shared_providers()
        self._exports_elsewhere = bool(self._others) or any(given.values())
        atexit.register(self._close_at_exit)

    def _make_providers(self, given: dict[Signal, Any], resource: Resource) -> dict[Signal, bool]:
        """Make the providers, with their exporters. Returns which signals are exported."""
        with _health_metrics():
            exporters = {signal: self._exporters(signal, given[signal]) for signal in SIGNALS}
            self.meter_provider: MeterProvider = self._others.get("metrics") or MeterProvider(
                [PeriodicExportingMetricReader(exporter) for exporter in exporters["metrics"]],
                resource=resource, views=VIEWS, shutdown_on_exit=False,
            )  # fmt: skip
        self.tracer_provider: TracerProvider = self._others.get("traces") or TracerProvider(
            resource=resource, shutdown_on_exit=False, meter_provider=self.meter_provider,
            span_limits=span_limits(),
        )  # fmt: skip
        self.logger_provider: LoggerProvider = self._others.get("logs") or EncodingLoggerProvider(
            resource=resource, shutdown_on_exit=False, meter_provider=self.meter_provider
        )
        with _health_metrics():
            self._add_processors(exporters)
        return {
            signal: self.enabled and (bool(exporters[signal]) or self._others_export(signal))
            for signal in SIGNALS
        }

    def _add_processors(self, exporters: dict[Signal, list[Any]]) -> None:
        for exporter in exporters["traces"]:
            spans: SpanProcessor
            if getattr(exporter, "takes_encoded", False):
                spans = encoding = EncodingSpanProcessor(exporter, self.meter_provider)
                self._queues.append(("traces", encoding.batches))
            else:
                spans = LimitedSpanProcessor(
                    exporter,
                    max_queue_size=queue_size("OTEL_BSP"),
                    max_export_batch_size=batch_size("OTEL_BSP"),
                    meter_provider=self.meter_provider,
                )
            self.tracer_provider.add_span_processor(spans)
        for exporter in exporters["logs"]:
            records: LogRecordProcessor
            if getattr(exporter, "takes_encoded", False):
                records = encoding_records = EncodingLogRecordProcessor(
                    exporter, self.meter_provider
                )
                self._queues.append(("logs", encoding_records.batches))
            else:
                records = BatchLogRecordProcessor(
                    exporter,
                    max_queue_size=queue_size("OTEL_BLRP"),
                    max_export_batch_size=batch_size("OTEL_BLRP"),
                    meter_provider=self.meter_provider,
                )
            self.logger_provider.add_log_record_processor(records)

    @property
    def resource(self) -> Resource:
        """Describes this process. A forked process has its own `service.instance.id`."""
        return self.tracer_provider.resource

    @property
    def providers(self) -> dict[str, Any]:
        """Arguments for a FastStream telemetry middleware: `tracer_provider`, `meter_provider`."""
        return {
            "tracer_provider": self.tracer_provider,
            "meter_provider": self.message_meter_provider,
        }

    @property
    def _providers(self) -> dict[Signal, Any]:
        return {
            "traces": self.tracer_provider,
            "metrics": self.meter_provider,
            "logs": self.logger_provider,
        }

    def _exporters(self, signal: Signal, given: Any | None) -> list[Any]:
        """Make the exporters of a signal; none if the provider of other code has exporters."""
        # A MeterProvider takes readers only when it is made.
        theirs = self._others_export(signal) or (signal == "metrics" and signal in self._others)
        if theirs or not self.enabled:
            return []
        return make_exporters(signal, self._delivery) if given is None else [given]

    def _others_export(self, signal: Signal) -> bool:
        return signal in self._others and not is_bare(self._others[signal])

    def _make_global(self) -> None:
        """Set the global providers that are not set yet: OpenTelemetry accepts each only once."""
        for signal, (get, put, kind) in _GLOBALS.items():
            if not isinstance(get(), kind):
                put(self._providers[signal])

    def _log_shared_providers(self) -> None:
        if not self._others:
            return
        logger.info(
            "Using the providers that opentelemetry-instrument or the application has set: %s."
            " Their exporters and limits apply (128 links per span unless"
            " OTEL_SPAN_LINK_COUNT_LIMIT allows more). Their resource has service.name=%s."
            " Telemetry(make_global=False) makes its own providers.",
            ", ".join(type(one).__name__ for one in self._others.values()),
            self.resource.attributes.get(SERVICE_NAME),
        )

    async def watch_event_loop(self) -> None:
        """Measure the running event loop's delay. Pass it to the application's `on_startup`."""
        if self._exports_metrics and self._event_loop_watch is None:
            self._event_loop_watch = EventLoopWatch(self.meter_provider)

    @asynccontextmanager
    async def lifespan(self, app: Any = None) -> AsyncIterator[None]:
        """Call `shutdown` at the end. Pass it as `lifespan` to a FastStream or FastAPI application.

        FastStream skips `after_shutdown` hooks if an earlier hook or the broker raises. It always
        runs the end of the lifespan.
        """
        try:
            yield
        finally:
            await self.shutdown()

    async def shutdown(self, seconds: float = 10.0) -> None:
        """Export what is queued, then stop. An alternative to `lifespan`, for `after_shutdown`.

        Uvicorn ends the process by raising SIGTERM again, so `atexit` never runs: without this the
        last spans are lost. It does not block the event loop.

        Args:
            seconds: The time-out for all signals together.
        """
        await asyncio.to_thread(self.close, seconds)

    def close(self, seconds: float = 10.0) -> None:
        """Like `shutdown`, for code without an event loop. Only the first call has an effect."""
        if not self._closed.acquire(blocking=False):
            return
        atexit.unregister(self._close_at_exit)
        if self._event_loop_watch:
            self._event_loop_watch.stop()
        remove_handler(self._log_handler)
        deadline = time.monotonic() + seconds
        before = self._delivery.lost.copy()
        ends: list[Callable[[], object]] = [
            _flush(provider, seconds) if signal in self._others else provider.shutdown
            for signal, provider in self._providers.items()
        ]
        # Daemon threads: one that hangs on an unreachable Collector must not delay the exit.
        threads = [threading.Thread(target=end, daemon=True) for end in ends]
        for thread in threads:
            try:
                thread.start()
            except RuntimeError:  # at exit, Python 3.12.0 to 3.12.2 start none
                thread.run()
        for thread in threads:
            if thread.is_alive():
                thread.join(max(0.0, deadline - time.monotonic()))
        lost = {signal: self._left(signal) - before[signal] for signal, _ in self._queues}
        if any(lost.values()):
            logger.warning(
                "Not all telemetry was exported within %s s: %d spans and %d log records are lost.",
                seconds, lost.get("traces", 0), lost.get("logs", 0),
            )  # fmt: skip
        elif any(thread.is_alive() for thread in threads):
            logger.warning("The last telemetry was not exported within %s s.", seconds)

    def _close_at_exit(self) -> None:
        """Hardly wait for a Collector that was never reached if only metrics are left.

        So it is with a process that only imports a service, such as `faststream docs gen`.
        """
        recorded = any(self._left(signal) for signal in SIGNALS)
        waits = self._exports_elsewhere or self._delivery.reached or recorded
        self.close(10.0 if waits else IDLE_EXIT_SECONDS)

    def _left(self, signal: Signal) -> int:
        """Number of spans or log records that are queued, in flight, or lost.

        One that changes its state during the count may be missed or counted twice.
        """
        waiting = sum(len(one) + one.in_flight for of, one in self._queues if of == signal)
        return waiting + self._delivery.lost[signal]


_GLOBALS: dict[Signal, tuple[Callable[[], Any], Callable[[Any], None], type]] = {
    "traces": (trace.get_tracer_provider, trace.set_tracer_provider, TracerProvider),
    "metrics": (metrics.get_meter_provider, metrics.set_meter_provider, MeterProvider),
    "logs": (_logs.get_logger_provider, _logs.set_logger_provider, LoggerProvider),
}


@contextmanager
def _health_metrics() -> Iterator[None]:
    """Switch on the SDK's metrics of queues and exporters, unless the environment decides.

    They cost something per batch. The SDK reads the variable when it makes a component. Outside of
    this context it makes those whose metrics would double the cost of a span, such as
    `otel.sdk.span.live`.
    """
    if OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED in os.environ:
        yield
        return
    os.environ[OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED] = "true"
    try:
        yield
    finally:
        del os.environ[OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED]


def _set_by_others() -> dict[Signal, Any]:
    """The global providers of the SDK that no `Telemetry` has made."""
    found = {signal: get() for signal, (get, _, _) in _GLOBALS.items()}
    return {
        signal: provider
        for signal, provider in found.items()
        if isinstance(provider, _GLOBALS[signal][2]) and provider not in _made
    }


def _merged(resource: Resource, others: Iterable[Any]) -> Resource:
    """One resource for all signals: that of existing providers, completed with ours.

    The SDK's default `service.name`, `unknown_service`, does not count.
    """
    others = list(others)
    for other in others:
        theirs = dict(getattr(other, "resource", Resource({})).attributes)
        if str(theirs.get(SERVICE_NAME, "")).startswith("unknown_service"):
            del theirs[SERVICE_NAME]
        resource = resource.merge(Resource(theirs))
    for other in others:
        set_resource(other, resource)
    return resource


def _flush(provider: Any, seconds: float) -> Callable[[], object]:
    """A function that only flushes a provider: its creator shuts it down."""

    def flush() -> None:
        try:
            provider.force_flush(int(seconds * 1000))
        except Exception as error:  # a MeterProvider raises if an exporter fails
            logger.warning("%s was not flushed: %s", type(provider).__name__, error)

    return flush


def _set_diagnostic_level() -> None:
    """Apply OTEL_LOG_LEVEL to the SDK's log records; debug and info also show those of `_QUIET`."""
    wanted = os.environ.get(OTEL_LOG_LEVEL, "")
    level = logging.getLevelNamesMapping()[LOG_LEVELS[wanted] if wanted else "WARNING"]
    logging.getLogger("opentelemetry").setLevel(level)
    quiet = not wanted or level > logging.INFO
    for name, lowest in _QUIET.items():
        logging.getLogger(name).setLevel(lowest if quiet else logging.NOTSET)
