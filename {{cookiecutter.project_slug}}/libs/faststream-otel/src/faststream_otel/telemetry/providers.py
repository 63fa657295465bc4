"""The three OpenTelemetry providers of a process, and their one orderly end."""

import asyncio
import atexit
import logging
import os
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

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

from ._opentelemetry import queue_length, set_resource
from .environment import LOG_LEVELS, Signal, batch_size, environment_warnings, prepare_environment
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
_global = threading.Lock()


class Telemetry:
    """Traces, metrics and logs of one process, configured by `OTEL_*` environment variables.

    Args:
        service_name: `service.name`, unless OTEL_SERVICE_NAME says otherwise.
        message_metrics: Whether the telemetry middleware records its OTLP metrics. Off, because
            FastStream's Prometheus middleware counts the same messages.
        span_exporter: Instead of the one that OTEL_TRACES_EXPORTER names; for tests.
        metric_exporter: Likewise.
        log_exporter: Likewise.
        make_global: Whether `opentelemetry.trace.get_tracer` and its siblings use these providers;
            the first in a process wins. Those of somebody else, say of `opentelemetry-instrument`,
            stay, and get this service's resource.
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
        resource = make_resource(service_name, package)
        self.enabled = os.environ.get(OTEL_SDK_DISABLED, "").lower() != "true"
        self._closed = threading.Lock()
        self._event_loop_watch: EventLoopWatch | None = None

        self._delivery = delivery = Delivery()
        self._queues: list[tuple[Signal, BatchSpanProcessor | BatchLogRecordProcessor]] = []
        span_exporters: list[SpanExporter] = []
        metric_exporters: list[MetricExporter] = []
        log_exporters: list[LogRecordExporter] = []
        if self.enabled:
            span_exporters = (
                [span_exporter] if span_exporter else make_exporters("traces", delivery)
            )
            metric_exporters = (
                [metric_exporter] if metric_exporter else make_exporters("metrics", delivery)
            )
            log_exporters = [log_exporter] if log_exporter else make_exporters("logs", delivery)

        self.meter_provider = MeterProvider(
            [PeriodicExportingMetricReader(exporter) for exporter in metric_exporters],
            resource=resource, views=VIEWS, shutdown_on_exit=False,
        )  # fmt: skip
        self.tracer_provider = TracerProvider(
            resource=resource, shutdown_on_exit=False, meter_provider=self.meter_provider,
            span_limits=span_limits(),
        )  # fmt: skip
        for one in span_exporters:
            spans = LimitedSpanProcessor(
                one,
                max_export_batch_size=batch_size("OTEL_BSP"),
                meter_provider=self.meter_provider,
            )
            self.tracer_provider.add_span_processor(spans)
            self._queues.append(("traces", spans))
        self.logger_provider = LoggerProvider(
            resource=resource, shutdown_on_exit=False, meter_provider=self.meter_provider
        )
        for other in log_exporters:
            records = BatchLogRecordProcessor(
                other,
                max_export_batch_size=batch_size("OTEL_BLRP"),
                meter_provider=self.meter_provider,
            )
            self.logger_provider.add_log_record_processor(records)
            self._queues.append(("logs", records))
        self._log_handler = install_handler(self.logger_provider) if log_exporters else None
        self._exports_metrics = bool(metric_exporters)
        if metric_exporters:
            observe_runtime(self.meter_provider)

        self.message_meter_provider: AnyMeterProvider = (
            self.meter_provider if message_metrics and metric_exporters else NoOpMeterProvider()
        )
        # OpenTelemetry takes global providers once; a test process holds several services.
        if make_global and _global.acquire(blocking=False):
            self._make_global()
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

    def _make_global(self) -> None:
        tracers, meters, loggers = self.tracer_provider, self.meter_provider, self.logger_provider
        others = []
        for current, kind, make in (
            (
                trace.get_tracer_provider(),
                TracerProvider,
                partial(trace.set_tracer_provider, tracers),
            ),
            (
                metrics.get_meter_provider(),
                MeterProvider,
                partial(metrics.set_meter_provider, meters),
            ),
            (
                _logs.get_logger_provider(),
                LoggerProvider,
                partial(_logs.set_logger_provider, loggers),
            ),
        ):
            if isinstance(current, kind):
                set_resource(current, self.resource)
                others.append(current)
            else:
                make()
        if not others:
            return
        logger.info(
            "Global providers were set before, as opentelemetry-instrument does: %s. They stay, for"
            " the instrumentations that use them; what this service records itself goes through its"
            " own. Both have the same resource.",
            ", ".join(type(other).__name__ for other in others),
        )

    async def watch_event_loop(self) -> None:
        """Measure the delay of the running event loop; for `on_startup` of the application."""
        if self._exports_metrics and self._event_loop_watch is None:
            self._event_loop_watch = EventLoopWatch(self.meter_provider)

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Call `shutdown` at the end; for `lifespan` of the application.

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
            self.tracer_provider.shutdown,
            self.logger_provider.shutdown,
            self.meter_provider.shutdown,
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


def _set_diagnostic_level() -> None:
    """Apply OTEL_LOG_LEVEL to the SDK's own messages; debug and info show those of `_QUIET` too."""
    wanted = os.environ.get(OTEL_LOG_LEVEL, "")
    level = logging.getLevelNamesMapping()[LOG_LEVELS[wanted] if wanted else "WARNING"]
    logging.getLogger("opentelemetry").setLevel(level)
    quiet = not wanted or level > logging.INFO
    for name, lowest in _QUIET.items():
        logging.getLogger(name).setLevel(lowest if quiet else logging.NOTSET)
