"""The queues of spans and log records survive a burst, and take bounded memory.

Their metrics are exported.
"""

import os
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from faststream_otel.dev.receiver import OtlpReceiver
from faststream_otel.telemetry import Telemetry
from faststream_otel.telemetry.batches import Batches, EncodingSpanProcessor
from faststream_otel.telemetry.encoding import place_of
from faststream_otel.telemetry.errors import fail
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import Link, SpanContext, TraceFlags
from opentelemetry.util.types import AttributeValue

INTERNAL = "OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED"
MESSAGE: dict[str, AttributeValue] = {
    "messaging.system": "kafka",
    "messaging.operation.name": "process",
    "messaging.operation.type": "process",
    "messaging.destination.name": "orders",
    "messaging.destination.template": "orders",
    "messaging.destination.partition.id": "1",
    "messaging.consumer.group.name": "payments.orders",
    "messaging.message.body.size": 120,
    "server.address": "kafka",
    "server.port": 9092,
}
OF_QUEUES = {
    f"otel.sdk.processor.{signal}.{metric}"
    for signal in ("span", "log")
    for metric in ("processed", "queue.size", "queue.capacity")
}
OF_EXPORTS = {f"otel.sdk.exporter.{signal}.exported" for signal in ("span", "log")}


@pytest.fixture
def sink(monkeypatch: pytest.MonkeyPatch) -> Iterator[OtlpReceiver]:
    for signal in ("TRACES", "METRICS", "LOGS"):
        monkeypatch.delenv(f"OTEL_{signal}_EXPORTER", raising=False)
    with OtlpReceiver() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.grpc_endpoint)
        yield receiver


def record_spans(telemetry: Telemetry, count: int) -> None:
    tracer = telemetry.tracer_provider.get_tracer("test")
    for number in range(count):
        attributes = MESSAGE | {"messaging.kafka.offset": number}
        tracer.start_span("process orders", attributes=attributes).end()


def metric_names(sink: OtlpReceiver) -> set[str]:
    return {point.name for point in sink.metrics if point.name.startswith("otel.sdk.")}


def test_a_burst_of_spans_loses_none(sink: OtlpReceiver) -> None:
    telemetry = Telemetry("burst", make_global=False)
    record_spans(telemetry, 50_000)
    telemetry.close(60)
    assert sum(export.items for export in sink.exports if export.signal == "traces") == 50_000


def test_a_waiting_span_takes_less_than_a_kilobyte(
    sink: OtlpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "60000")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "5000")  # so that all of them wait
    telemetry = Telemetry("waiting", make_global=False)
    record_spans(telemetry, 10)  # fills the caches
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        record_spans(telemetry, 1000)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    telemetry.close()
    assert sum(export.items for export in sink.exports if export.signal == "traces") == 1010
    assert (after - before) / 1000 < 1000


@pytest.mark.parametrize(
    ("kind", "bytes_at_most"), [("batch of a hundred messages", 15_000), ("failed message", 3_000)]
)
def test_a_waiting_span_with_links_or_an_error_takes_little_more(
    sink: OtlpReceiver, monkeypatch: pytest.MonkeyPatch, kind: str, bytes_at_most: int
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "60000")
    telemetry = Telemetry("waiting", make_global=False)
    tracer = telemetry.tracer_provider.get_tracer("test")
    parent = SpanContext(2**100, 2**60, is_remote=True, trace_flags=TraceFlags(1))

    def record() -> None:
        links = [Link(parent, {"messaging.message.id": f"0/{number}"}) for number in range(100)]
        span = tracer.start_span("process orders", links=links if "batch" in kind else ())
        if kind == "failed message":
            fail(span, ValueError("no carrier for the country XX"))
        span.end()

    record()  # fills the caches
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(100):
            record()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    telemetry.close()
    assert sum(export.items for export in sink.exports if export.signal == "traces") == 101
    assert (after - before) / 100 < bytes_at_most


SERVICE = """
import os
from faststream_otel import Telemetry
telemetry = Telemetry("healthy")
assert "OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED" not in os.environ
telemetry.tracer_provider.get_tracer("test").start_span("span").end()
telemetry.logger_provider.get_logger("test").emit(body="record")
telemetry.tracer_provider.force_flush()
telemetry.logger_provider.force_flush()
telemetry.close()
"""


def test_metrics_of_queues_and_exports_are_on_by_default(sink: OtlpReceiver) -> None:
    subprocess.run([sys.executable, "-c", SERVICE], check=True, timeout=60)  # global providers
    assert metric_names(sink) >= OF_QUEUES | OF_EXPORTS
    assert not {"otel.sdk.span.live", "otel.sdk.log.created"} & metric_names(sink)


@pytest.mark.parametrize(("value", "all_of_them"), [("true", True), ("false", False)])
def test_the_variable_switches_all_metrics_on_or_off(
    sink: OtlpReceiver, monkeypatch: pytest.MonkeyPatch, value: str, all_of_them: bool
) -> None:
    monkeypatch.setenv(INTERNAL, value)
    telemetry = Telemetry("chosen", make_global=False)
    record_spans(telemetry, 3)
    telemetry.tracer_provider.force_flush()
    telemetry.close()
    assert ("otel.sdk.span.live" in metric_names(sink)) == all_of_them
    assert bool(metric_names(sink)) == all_of_them


def test_dropped_spans_are_counted(sink: OtlpReceiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "5")
    telemetry = Telemetry("full", make_global=False)
    record_spans(telemetry, 200)
    telemetry.close()
    taken = sum(export.items for export in sink.exports if export.signal == "traces")
    dropped = max(
        point.value
        for point in sink.metrics
        if point.name == "otel.sdk.processor.span.processed"
        and point.attributes.get("error.type") == "queue_full"
    )
    assert dropped == 200 - taken


class Blocked(SpanExporter):
    """Takes encoded items; blocks until it may export."""

    takes_encoded = True

    def __init__(self) -> None:
        self.may_export = threading.Event()
        self.exported: list[bytes] = []

    def export(self, spans: Sequence[Any]) -> SpanExportResult:
        self.may_export.wait(60)
        self.exported += [data for data, _ in spans]
        return SpanExportResult.SUCCESS


def test_a_full_queue_of_large_spans_takes_bounded_memory_and_drops_the_oldest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "5000")  # 5 MB, which 5000 plain spans don't fill
    exporter = Blocked()
    telemetry = Telemetry("full", make_global=False, span_exporter=exporter)
    record_spans(telemetry, 2)
    tracer = telemetry.tracer_provider.get_tracer("test")
    parent = SpanContext(2**100, 2**60, is_remote=True, trace_flags=TraceFlags(1))
    links = [Link(parent, {"messaging.message.id": f"0/{number}"}) for number in range(100)]
    for number in range(3000):  # 25 MB
        tracer.start_span(f"process orders {number}", links=links).end()
    exporter.may_export.set()
    telemetry.close(60)
    # What was queued, and what the exporter had taken before.
    assert 2_500_000 < sum(map(len, exporter.exported)) < 12_000_000
    assert b"process orders 2999" in exporter.exported[-1]


def test_a_full_queue_of_large_records_takes_bounded_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_BLRP_MAX_QUEUE_SIZE", "20000")
    batches = Batches(Blocked(), "logs", NoOpMeterProvider())
    place = place_of(Resource({}), None)
    for _ in range(5000):
        batches.add((bytes(64_000), place))
    assert 0 < len(batches) * 64_000 < 21_000_000


def test_one_item_that_is_larger_than_the_queue_is_exported() -> None:
    exporter = Blocked()
    exporter.may_export.set()
    batches = Batches(exporter, "logs", NoOpMeterProvider())
    for size in (10, 50_000_000):
        batches.add((bytes(size), place_of(Resource({}), None)))
    batches.shutdown()
    assert len(exporter.exported[-1]) == 50_000_000


class Slow(Blocked):
    """Exports one batch for each permission."""

    def __init__(self) -> None:
        super().__init__()
        self.permissions = threading.Semaphore(0)
        self.started = threading.Semaphore(0)

    def export(self, spans: Sequence[Any]) -> SpanExportResult:
        self.started.release()
        self.permissions.acquire(timeout=10)
        self.exported += [data for data, _ in spans]
        return SpanExportResult.SUCCESS


PLACE = place_of(Resource({}), None)


def test_large_records_are_exported_before_they_fill_the_queue(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_BLRP_SCHEDULE_DELAY", "60000")
    exporter = Slow()
    batches = Batches(exporter, "logs", NoOpMeterProvider())
    for _ in range(400):  # 3.2 MB: neither a full batch by number nor a full queue
        batches.add((bytes(8000), PLACE))
    assert exporter.started.acquire(timeout=30)
    exporter.permissions.release(100)
    batches.shutdown()
    assert len(exporter.exported) == 400


def test_a_flush_returns_at_its_time_out_while_an_export_hangs() -> None:
    exporter = Slow()
    processor = EncodingSpanProcessor(exporter, NoOpMeterProvider())
    processor.batches.add((b"first", PLACE))
    assert not processor.force_flush(1)
    assert exporter.started.acquire(timeout=30)
    processor.batches.add((b"second", PLACE))
    assert not processor.force_flush(1)
    exporter.permissions.release(100)
    assert processor.force_flush()
    assert exporter.exported == [b"first", b"second"]
    processor.shutdown()
    assert not processor.force_flush()


def test_a_queue_that_stays_full_warns_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "8")  # in batches of two
    exporter = Slow()
    batches = Batches(exporter, "traces", NoOpMeterProvider())
    for _ in range(5):
        for _ in range(20):
            batches.add((b"span", PLACE))
        assert exporter.started.acquire(timeout=30)
        exporter.permissions.release()
    assert len(caplog.records) == 1
    exporter.permissions.release(100)
    assert batches.flush(30)
    while exporter.permissions.acquire(blocking=False):
        pass
    for _ in range(20):  # again, after it was empty
        batches.add((b"span", PLACE))
    exporter.permissions.release(100)
    batches.shutdown()
    assert len(caplog.records) == 2


EXITING = """
import logging, sys, threading
from faststream_otel.telemetry import Telemetry

def start(thread):
    raise RuntimeError("can't create new thread at interpreter shutdown")

telemetry = Telemetry("tested")
with telemetry.tracer_provider.get_tracer("test").start_as_current_span("last"):
    logging.getLogger("test").warning("last")
if sys.argv[1:] == ["without threads"]:  # as Python 3.12.0 to 3.12.2
    threading.Thread.start = start
"""


@pytest.mark.parametrize("threads", [[], ["without threads"]])
def test_what_is_queued_when_the_interpreter_exits_is_exported(
    threads: list[str], sink: OtlpReceiver
) -> None:
    command = [sys.executable, "-c", EXITING, *threads]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "Traceback" not in ended.stderr
    assert [span.name for span in sink.spans] == ["last"]
    assert [one.body for one in sink.logs] == ["last"]
    assert sink.metrics


WAITING = """
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from faststream_otel.telemetry import Telemetry
Telemetry.close = lambda self, seconds: print(seconds)
"""


@pytest.mark.parametrize(
    ("does", "seconds"),
    [
        ("Telemetry('tested')", "2.0"),
        ("Telemetry('tested').tracer_provider.get_tracer('test').start_span('last').end()", "10.0"),
        ("Telemetry('tested').meter_provider.force_flush()", "10.0"),  # a Collector is there
        ("Telemetry('tested', span_exporter=InMemorySpanExporter())", "10.0"),
    ],
)
def test_only_a_process_that_did_nothing_hardly_waits_at_exit(
    does: str, seconds: str, sink: OtlpReceiver
) -> None:
    command = [sys.executable, "-c", WAITING + does]
    assert subprocess.check_output(command, text=True, timeout=60).strip() == seconds


FORKED = """
import os, threading
from faststream_otel.telemetry import Telemetry
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

exporting, may_end = threading.Event(), threading.Event()

class Exporter(SpanExporter):
    def export(self, spans):
        exporting.set()
        may_end.wait(60)
        return SpanExportResult.SUCCESS

from faststream_otel.telemetry import providers
def make(signal, delivery):
    exporter = Exporter()
    exporter.takes_encoded = True
    return [delivery.watch(exporter, signal)] if signal == "traces" else []
providers.make_exporters = make

telemetry = Telemetry("forking", make_global=False)
tracer = telemetry.tracer_provider.get_tracer("test")
tracer.start_span("of the parent").end()
threading.Thread(target=telemetry.tracer_provider.force_flush).start()
exporting.wait(60)
child = os.fork()
may_end.set()
if not child:
    tracer.start_span("of the child").end()
telemetry.close()
if child:
    os.waitpid(child, 0)
os._exit(0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork there")
def test_a_fork_does_not_miss_what_its_parent_exports() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKED], check=True, timeout=60, capture_output=True, text=True
    )
    assert "lost" not in done.stderr
