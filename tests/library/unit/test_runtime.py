"""Metrics of the process and the event loop."""

import asyncio
import time

from faststream_otel.telemetry.runtime import EventLoopWatch, observe_runtime
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader


def points(reader: InMemoryMetricReader, name: str) -> list[HistogramDataPoint]:
    data = reader.get_metrics_data()
    return [
        point
        for resource in (data.resource_metrics if data else ())
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == name
        for point in metric.data.data_points
        if isinstance(point, HistogramDataPoint)
    ]


async def test_a_blocked_event_loop_is_measured() -> None:
    reader = InMemoryMetricReader()
    watch = EventLoopWatch(MeterProvider([reader]), interval=0.01)
    await asyncio.sleep(0.05)
    time.sleep(0.3)  # noqa: ASYNC251 (that is the point)
    await asyncio.sleep(0.05)

    (delay,) = points(reader, "asyncio.eventloop.delay")
    assert delay.max >= 0.25
    assert delay.explicit_bounds == EventLoopWatch.BOUNDARIES
    watch.stop()
    await asyncio.sleep(0.05)
    measured = [point.count for point in points(reader, "asyncio.eventloop.delay")]
    await asyncio.sleep(0.1)
    assert [point.count for point in points(reader, "asyncio.eventloop.delay")] == measured


def test_the_runtime_is_measured() -> None:
    reader = InMemoryMetricReader()
    observe_runtime(MeterProvider([reader]))
    data = reader.get_metrics_data()
    assert data
    found = {
        metric.name: [point.value for point in metric.data.data_points]  # type: ignore[union-attr]
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }
    assert found.keys() == {
        "process.cpu.time",
        "process.memory.usage",
        "process.thread.count",
        "cpython.gc.collections",
        "cpython.gc.collected_objects",
    }
    assert all(any(value > 0 for value in values) for values in found.values())
