"""The three OpenTelemetry providers of a process, and their one orderly end."""

import asyncio
import atexit
import logging
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any
from weakref import WeakSet

from opentelemetry import _logs, metrics, trace
from opentelemetry.metrics import MeterProvider as AnyMeterProvider
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, LogRecordExporter
from opentelemetry.sdk.environment_variables import (
    OTEL_LOG_LEVEL,
    OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED,
    OTEL_SDK_DISABLED,
)
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricExporter, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.semconv.attributes.service_attributes import SERVICE_NAME

from ._opentelemetry import is_bare, queue_length, set_resource
from .environment import (
    LOG_LEVELS,
    SIGNALS,
    Signal,
    batch_size,
    environment_warnings,
    prepare_environment,
)
from .exporters import Delivery, make_exporters
from .limits import LimitedSpanProcessor, span_limits
from .logs import install_handler, remove_handler
from .metrics import VIEWS
from .resource import make_resource
from .runtime import EventLoopWatch, observe_runtime

# Silent unless OTEL_LOG_LEVEL asks for them. The exporters say in hundreds of lines what `Delivery`
# says in one. The others tell of headers that strangers send, a line or more for each, with what
# was in them: whoever wants to fill a log could.
_QUIET = {
    "opentelemetry.exporter": logging.CRITICAL,
    "opentelemetry.baggage": logging.ERROR,
    "opentelemetry.trace.propagation": logging.ERROR,
    "opentelemetry.trace.span": logging.ERROR,  # of tracestate
}

logger = logging.getLogger(__name__)
_made: WeakSet[Any] = WeakSet()
"""The providers that a `Telemetry` of this process has made."""
_served: WeakSet[Any] = WeakSet()
"""Those that a `Telemetry` gives log records and measurements of the process to."""


class Telemetry:
    """Traces, metrics and logs of one process, configured by `OTEL_*` environment variables.

    Args:
        service_name: `service.name`, unless OTEL_SERVICE_NAME says otherwise.
        message_metrics: Whether the telemetry middleware records its OTLP metrics. Off, because
            FastStream's Prometheus middleware counts the same messages.
        span_exporter: Instead of the one that OTEL_TRACES_EXPORTER names; for tests. It gets a
            provider of its own, whatever the global one is.
        metric_exporter: Likewise.
        log_exporter: Likewise.
        make_global: Whether `opentelemetry.trace.get_tracer` and its siblings use the same
            providers as this object. One that was set before, by the application or by
            `opentelemetry-instrument`, is used here too: its exporters, limits and resource apply,
            and no other exporter sends the same once more. Of the resource it gets what it does
            not say itself, and where it has no exporter, the exporters of the variables. Where no
            provider was set, the first `Telemetry` of a process sets its own. False: this object
            has providers of its own in any case, and sets none.
        package: A module of the service: the distribution that it was installed from gives
            `service.namespace` and `service.version`. Default: neither is known.

    Raises:
        BadVariable: A variable can't be honoured, say OTEL_TRACES_EXPORTER=jeager.
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
        # The SDK's counters of what it drops are off unless asked for; we show them on a board.
        os.environ.setdefault(OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED, "true")
        _set_diagnostic_level()
        for warning in environment_warnings():
            logger.warning("%s", warning)
        self.enabled = os.environ.get(OTEL_SDK_DISABLED, "").lower() != "true"
        self._closed = threading.Lock()
        self._event_loop_watch: EventLoopWatch | None = None

        given = {"traces": span_exporter, "metrics": metric_exporter, "logs": log_exporter}
        found = _set_by_others() if make_global else {}
        # Providers that others have set and shut down.
        self._others = {signal: one for signal, one in found.items() if given[signal] is None}
        resource = _merged(make_resource(service_name, package), self._others.values())
        self._delivery = Delivery()
        self._queues: list[tuple[Signal, BatchSpanProcessor | BatchLogRecordProcessor]] = []
        exporters = {signal: self._exporters(signal, given[signal]) for signal in SIGNALS}
        exports = {
            signal: self.enabled and (bool(exporters[signal]) or self._others_export(signal))
            for signal in SIGNALS
        }

        self.meter_provider: MeterProvider = self._others.get("metrics") or MeterProvider(
            [PeriodicExportingMetricReader(exporter) for exporter in exporters["metrics"]],
            resource=resource, views=VIEWS, shutdown_on_exit=False,
        )  # fmt: skip
        self.tracer_provider: TracerProvider = self._others.get("traces") or TracerProvider(
            resource=resource, shutdown_on_exit=False, meter_provider=self.meter_provider,
            span_limits=span_limits(),
        )  # fmt: skip
        self.logger_provider: LoggerProvider = self._others.get("logs") or LoggerProvider(
            resource=resource, shutdown_on_exit=False, meter_provider=self.meter_provider
        )
        for exporter in exporters["traces"]:
            spans = LimitedSpanProcessor(
                exporter,
                max_export_batch_size=batch_size("OTEL_BSP"),
                meter_provider=self.meter_provider,
            )
            self.tracer_provider.add_span_processor(spans)
            self._queues.append(("traces", spans))
        for exporter in exporters["logs"]:
            records = BatchLogRecordProcessor(
                exporter,
                max_export_batch_size=batch_size("OTEL_BLRP"),
                meter_provider=self.meter_provider,
            )
            self.logger_provider.add_log_record_processor(records)
            self._queues.append(("logs", records))
        self._exports_metrics = exports["metrics"]
        self._log_handler = None
        if exports["logs"] and self.logger_provider not in _served:
            self._log_handler = install_handler(self.logger_provider)
        if exports["metrics"] and self.meter_provider not in _served:
            observe_runtime(self.meter_provider)
        _served.update((self.logger_provider, self.meter_provider))

        self.message_meter_provider: AnyMeterProvider = (
            self.meter_provider if message_metrics and exports["metrics"] else NoOpMeterProvider()
        )
        _made.update(set(self._providers.values()) - set(self._others.values()))
        if make_global:
            self._make_global()
        self._say_whose()
        atexit.register(self.close)

    @property
    def resource(self) -> Resource:
        """What describes this process; in a fork with a `service.instance.id` of its own."""
        return self.tracer_provider.resource

    @property
    def providers(self) -> dict[str, Any]:
        """What a FastStream telemetry middleware takes: `tracer_provider` and `meter_provider`."""
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
        """Make the exporters of a signal; none where another's provider has some already."""
        # A MeterProvider takes its readers, which it shuts down, only as it is made.
        theirs = self._others_export(signal) or (signal == "metrics" and signal in self._others)
        if theirs or not self.enabled:
            return []
        return make_exporters(signal, self._delivery) if given is None else [given]

    def _others_export(self, signal: Signal) -> bool:
        return signal in self._others and not is_bare(self._others[signal])

    def _make_global(self) -> None:
        """OpenTelemetry takes each global provider once."""
        for signal, (get, put, kind) in _GLOBALS.items():
            if not isinstance(get(), kind):
                put(self._providers[signal])

    def _say_whose(self) -> None:
        if not self._others:
            return
        logger.info(
            "Using the providers that were set before, as opentelemetry-instrument or an"
            " application does: %s. What they export, where to, and their limits (128 links per"
            " span unless OTEL_SPAN_LINK_COUNT_LIMIT says more) are their own. Their resource has"
            " service.name=%s. Telemetry(make_global=False) has providers of its own.",
            ", ".join(type(one).__name__ for one in self._others.values()),
            self.resource.attributes.get(SERVICE_NAME),
        )

    async def watch_event_loop(self) -> None:
        """Measure the delay of the running event loop; for `on_startup` of the application."""
        if self._exports_metrics and self._event_loop_watch is None:
            self._event_loop_watch = EventLoopWatch(self.meter_provider)

    @asynccontextmanager
    async def lifespan(self, app: Any = None) -> AsyncIterator[None]:
        """Call `shutdown` at the end; for `lifespan` of FastStream's application, or FastAPI's.

        FastStream runs no `after_shutdown` where a hook or the broker raises while it stops, or a
        hook as it starts. The end of the lifespan it always comes to.
        """
        try:
            yield
        finally:
            await self.shutdown()

    async def shutdown(self, seconds: float = 10.0) -> None:
        """Export what is queued, then stop; for `after_shutdown`, where `lifespan` is taken.

        Uvicorn ends the process by raising SIGTERM once more, so `atexit` never runs there: without
        this the last spans are lost. The event loop is not blocked.

        Args:
            seconds: For all signals together.
        """
        await asyncio.to_thread(self.close, seconds)

    def close(self, seconds: float = 10.0) -> None:
        """As `shutdown`, for code without an event loop. Only the first call does something."""
        if not self._closed.acquire(blocking=False):
            return
        atexit.unregister(self.close)
        if self._event_loop_watch:
            self._event_loop_watch.stop()
        remove_handler(self._log_handler)
        deadline = time.monotonic() + seconds
        before = self._delivery.lost.copy()
        ends: list[Callable[[], object]] = [
            _flush(provider, seconds) if signal in self._others else provider.shutdown
            for signal, provider in self._providers.items()
        ]
        # Daemon threads: one that hangs on a dead Collector must not keep the process.
        threads = [threading.Thread(target=end, daemon=True) for end in ends]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        lost = {signal: self._left(signal) - before[signal] for signal, _ in self._queues}
        if any(lost.values()) or any(thread.is_alive() for thread in threads):
            logger.warning(
                "Telemetry was not all exported within %s s: %d spans and %d log records are lost"
                " with this process.",
                seconds, lost.get("traces", 0), lost.get("logs", 0),
            )  # fmt: skip

    def _left(self, signal: Signal) -> int:
        """How many wait, are being exported, or were given up.

        One that moves on in between may be missed, or counted twice.
        """
        queued = sum(queue_length(processor) for of, processor in self._queues if of == signal)
        return queued + self._delivery.in_hand[signal] + self._delivery.lost[signal]


_GLOBALS: dict[Signal, tuple[Callable[[], Any], Callable[[Any], None], type]] = {
    "traces": (trace.get_tracer_provider, trace.set_tracer_provider, TracerProvider),
    "metrics": (metrics.get_meter_provider, metrics.set_meter_provider, MeterProvider),
    "logs": (_logs.get_logger_provider, _logs.set_logger_provider, LoggerProvider),
}


def _set_by_others() -> dict[Signal, Any]:
    """The global providers, of the SDK, that no `Telemetry` has made."""
    found = {signal: get() for signal, (get, _, _) in _GLOBALS.items()}
    return {
        signal: provider
        for signal, provider in found.items()
        if isinstance(provider, _GLOBALS[signal][2]) and provider not in _made
    }


def _merged(resource: Resource, others: Iterable[Any]) -> Resource:
    """One resource for all signals: what others' providers say, completed by ours.

    The SDK's `unknown_service` says nothing.
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
    """Whoever made a provider shuts it down; until then it has to go on."""

    def flush() -> None:
        try:
            provider.force_flush(int(seconds * 1000))
        except Exception as error:  # a MeterProvider's, where an exporter fails
            logger.warning("%s was not flushed: %s", type(provider).__name__, error)

    return flush


def _set_diagnostic_level() -> None:
    """Apply OTEL_LOG_LEVEL to the SDK's own messages; debug and info show those of `_QUIET` too."""
    wanted = os.environ.get(OTEL_LOG_LEVEL, "")
    level = logging.getLevelNamesMapping()[LOG_LEVELS[wanted] if wanted else "WARNING"]
    logging.getLogger("opentelemetry").setLevel(level)
    quiet = not wanted or level > logging.INFO
    for name, lowest in _QUIET.items():
        logging.getLogger(name).setLevel(lowest if quiet else logging.NOTSET)
