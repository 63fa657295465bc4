"""Queues of encoded spans and log records, and the threads that export them in batches.

They do what the SDK's batch processors do (specification, "Batching processor"), and also limit the
bytes of a queue and of an export. The SDK limits only the number: 65,536 spans may be 50 MB or 700.
"""

import logging
import os
import threading
import weakref
from collections import Counter, deque
from collections.abc import Iterable
from typing import Any

from opentelemetry.context import attach, detach
from opentelemetry.metrics import CallbackOptions, MeterProvider, NoOpMeterProvider, Observation
from opentelemetry.sdk._logs import LoggerProvider, LogRecordProcessor, ReadWriteLogRecord
from opentelemetry.sdk.environment_variables import OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE

from ._opentelemetry import suppressed
from .encoding import Encoded, Encodeds, encode, encode_record
from .environment import Queue, Signal, batch_size, queue_size, schedule_delay
from .spans import log_failure

BYTES_PER_ITEM = 1024
"""A queue takes this much memory for each item that it may hold, on average."""
LEAST_BYTES = 4 * 1_048_576
"""A queue for few items may take this much."""
MAX_EXPORT_BYTES = 3 * 1_048_576
"""A receiver over gRPC accepts 4 MiB by default."""
_OVERHEAD = 100
"""Bytes that an item takes in addition to what is encoded."""

logger = logging.getLogger(__name__)
_names: Counter[str] = Counter()


class Batches:
    """A queue, and a thread that exports it: a full batch at once, others after a delay.

    A batch is full by its number of items, or by its bytes. A full queue drops the oldest items.

    Args:
        exporter: Takes `Encodeds`.
        signal: "traces" or "logs".
        meter_provider: For the SDK's metrics of queues, unless they are switched off.

    Attributes:
        in_flight: Number of items that are being exported.
    """

    def __init__(self, exporter: Any, signal: Signal, meter_provider: MeterProvider) -> None:
        prefix: Queue = "OTEL_BSP" if signal == "traces" else "OTEL_BLRP"
        self._exporter = exporter
        self._most = queue_size(prefix)
        self._most_bytes = max(LEAST_BYTES, self._most * BYTES_PER_ITEM)
        self._batch = batch_size(prefix)
        self._delay = schedule_delay(prefix)
        self._signal, self._prefix = signal, prefix
        self._metrics = _Metrics("span" if signal == "traces" else "log", self, meter_provider)
        self._ended = False
        self.start()
        if hasattr(os, "register_at_fork"):
            known = weakref.ref(self)

            def restart() -> None:
                if (batches := known()) is not None:
                    batches.start()

            os.register_at_fork(after_in_child=restart)

    def start(self) -> None:
        """Start with an empty queue. A forked process does not export its parent's items too."""
        self._queue: deque[Encoded] = deque()
        self._bytes = 0
        self._full = False
        self._lock = threading.RLock()  # the garbage collector may end a span anywhere
        self.in_flight = 0
        self._flushes: deque[threading.Event] = deque()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._work, name=f"otel-{self._signal}", daemon=True)
        if not self._ended:
            self._thread.start()

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def capacity(self) -> int:
        return self._most

    def add(self, item: Encoded) -> None:
        """Queue an item. Never blocks."""
        if self._ended:
            self._metrics.dropped(1, "already_shutdown")
            return
        dropped, queue = 0, self._queue
        with self._lock:
            queue.append(item)
            self._bytes += len(item[0]) + _OVERHEAD
            while len(queue) > self._most or (self._bytes > self._most_bytes and len(queue) > 1):
                self._bytes -= len(queue.popleft()[0]) + _OVERHEAD
                dropped += 1
        if dropped:
            self._metrics.dropped(dropped, "queue_full")
            if not self._full:
                self._full = True
                logger.warning(
                    "The queue of %s is full: the oldest are dropped, until exports catch up. See"
                    " %s_MAX_QUEUE_SIZE.", self._signal, self._prefix,
                )  # fmt: skip
        if self._has_full_batch() and not self._wake.is_set():
            self._wake.set()

    def _has_full_batch(self) -> bool:
        return len(self._queue) >= self._batch or self._bytes >= MAX_EXPORT_BYTES

    def flush(self, seconds: float) -> bool:
        """Export everything that is queued now. Returns whether that ended within this time."""
        if self._ended:
            return False
        done = threading.Event()
        self._flushes.append(done)
        self._wake.set()
        return done.wait(seconds)

    def shutdown(self, seconds: float = 30.0) -> None:
        """Export what is queued within this time, then stop."""
        if self._ended:
            return
        self._ended = True
        self._wake.set()
        self._thread.join(seconds)
        self._exporter.shutdown()  # also ends an export that keeps trying

    def _work(self) -> None:
        while not self._ended:
            woken = self._wake.wait(self._delay)
            self._wake.clear()
            flushes = [self._flushes.popleft() for _ in range(len(self._flushes))]
            self._export(only_full=woken and not flushes)
            for done in flushes:
                done.set()
        self._export()

    def _export(self, *, only_full: bool = False) -> None:
        """Export what is queued now, the oldest first; or only while there are full batches."""
        left = len(self._queue)
        while left > 0 and (not only_full or self._has_full_batch()) and (batch := self._next()):
            left -= len(batch)
            self._metrics.exported(len(batch))
            token = attach(suppressed())
            try:
                self._exporter.export(batch)
            except Exception as error:
                log_failure(error)
            finally:
                detach(token)
                self.in_flight = 0

    def _next(self) -> Encodeds:
        """Take a batch from the queue, with no more bytes than an export may have."""
        batch, size, queue = Encodeds(), 0, self._queue
        with self._lock:
            while queue and len(batch) < self._batch:
                size += len(queue[0][0])
                if size > MAX_EXPORT_BYTES and batch:
                    break
                batch.append(queue.popleft())
                self._bytes -= len(batch[-1][0]) + _OVERHEAD
            self.in_flight = len(batch)
            self._full = self._full and bool(queue)
        return batch


class EncodingSpanProcessor(SpanProcessor):
    """Encodes spans when they end, and exports them in batches.

    Args:
        exporter: Takes `Encodeds`.
        meter_provider: See `Batches`.
    """

    def __init__(self, exporter: Any, meter_provider: MeterProvider) -> None:
        self.batches = Batches(exporter, "traces", meter_provider)

    def on_end(self, span: ReadableSpan) -> None:
        if span.context and span.context.trace_flags.sampled:
            try:
                self.batches.add(encode(span))
            except Exception as error:
                log_failure(error)

    def shutdown(self) -> None:
        self.batches.shutdown()

    def force_flush(self, timeout_millis: int | None = None) -> bool:
        return self.batches.flush(30 if timeout_millis is None else timeout_millis / 1000)


class EncodingLogRecordProcessor(LogRecordProcessor):
    """Encodes log records when they are emitted, and exports them in batches.

    Args:
        exporter: Takes `Encodeds`.
        meter_provider: See `Batches`.
    """

    def __init__(self, exporter: Any, meter_provider: MeterProvider) -> None:
        self.batches = Batches(exporter, "logs", meter_provider)

    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        try:
            self.batches.add(encode_record(log_record))
        except Exception as error:
            log_failure(error)

    def shutdown(self) -> None:
        self.batches.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self.batches.flush(timeout_millis / 1000)


class EncodingLoggerProvider(LoggerProvider):
    """The SDK's provider, which also tells whether records may go directly into a queue.

    Attributes:
        direct: The queue of its only processor. None if it has another, or counts its records.
    """

    direct: Batches | None = None

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._counts = _internal_metrics()
        self._processors = 0

    def add_log_record_processor(self, log_record_processor: LogRecordProcessor) -> None:
        super().add_log_record_processor(log_record_processor)
        self._processors += 1
        self.direct = None
        alone = self._processors == 1 and not self._counts
        if alone and isinstance(log_record_processor, EncodingLogRecordProcessor):
            self.direct = log_record_processor.batches


def _internal_metrics() -> bool:
    return os.environ.get(OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED, "").lower() == "true"


class _Metrics:
    """The metrics of a queue (OpenTelemetry SDK semantic conventions 1.44, "Processor metrics")."""

    def __init__(self, item: str, queue: Batches, provider: MeterProvider) -> None:
        if not _internal_metrics():
            provider = NoOpMeterProvider()
        kind = f"batching_{item}_processor"
        self._of = {
            "otel.component.type": kind,
            "otel.component.name": f"{kind}/{_names[kind]}",
        }
        _names[kind] += 1
        meter, unit, name = (
            provider.get_meter(__name__),
            f"{{{item}}}",
            f"otel.sdk.processor.{item}",
        )
        self._processed = meter.create_counter(f"{name}.processed", unit)
        known = weakref.ref(queue)

        def size(_: CallbackOptions) -> Iterable[Observation]:
            found = known()
            return () if found is None else [Observation(len(found), self._of)]

        meter.create_observable_up_down_counter(f"{name}.queue.size", [size], unit)
        meter.create_up_down_counter(f"{name}.queue.capacity", unit).add(queue.capacity, self._of)

    def exported(self, number: int) -> None:
        self._processed.add(number, self._of)

    def dropped(self, number: int, why: str) -> None:
        self._processed.add(number, self._of | {ERROR_TYPE: why})
