"""OTLP metrics of the process, the interpreter and the event loop.

The names are those of the semantic conventions 1.44, "Process" and "CPython". They define none for
asyncio: `asyncio.eventloop.delay` is a histogram modelled on their `nodejs.eventloop.delay.*`.
"""

import asyncio
import gc
import os
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from opentelemetry.metrics import CallbackOptions, Meter, MeterProvider, Observation

Read = Callable[[], list[Observation]]


def observe_runtime(provider: MeterProvider) -> None:
    """Register the instruments. They are read only when metrics are exported."""
    meter: Meter = provider.get_meter(__name__)
    meter.create_observable_counter(
        "process.cpu.time",
        [_read(_cpu_time)],
        unit="s",
        description="Total CPU seconds broken down by mode.",
    )
    meter.create_observable_up_down_counter(
        "process.memory.usage",
        [_read(_memory)],
        unit="By",
        description="The amount of physical memory in use.",
    )
    meter.create_observable_up_down_counter(
        "process.thread.count",
        [_read(lambda: [Observation(threading.active_count())])],
        unit="{thread}",
        description="Process threads count.",
    )
    meter.create_observable_counter(
        "cpython.gc.collections",
        [_read(lambda: _collections("collections"))],
        unit="{collection}",
        description="The number of times a generation was collected since interpreter start.",
    )
    meter.create_observable_counter(
        "cpython.gc.collected_objects",
        [_read(lambda: _collections("collected"))],
        unit="{object}",
        description="The total number of objects collected since interpreter start.",
    )


class EventLoopWatch:
    """Measures how late the running event loop runs scheduled calls, which shows what blocks it.

    Args:
        provider: Records `asyncio.eventloop.delay`, in seconds.
        interval: Seconds between two measurements.
    """

    BOUNDARIES = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)

    def __init__(self, provider: MeterProvider, interval: float = 0.1) -> None:
        self._interval = interval
        self._delay = provider.get_meter(__name__).create_histogram(
            "asyncio.eventloop.delay",
            unit="s",
            description="How late the event loop runs scheduled callbacks.",
            explicit_bucket_boundaries_advisory=self.BOUNDARIES,
        )
        self._loop = asyncio.get_running_loop()
        self._schedule()

    def stop(self) -> None:
        """Stop measuring. Any thread may call it."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._next.cancel)

    def _schedule(self) -> None:
        self._due = self._loop.time() + self._interval
        self._next = self._loop.call_at(self._due, self._measure)

    def _measure(self) -> None:
        self._delay.record(max(0.0, self._loop.time() - self._due))
        self._schedule()


def _read(read: Read) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def callback(_: CallbackOptions) -> Iterable[Observation]:
        return read()

    return callback


def _cpu_time() -> list[Observation]:
    times = os.times()
    return [
        Observation(times.user, {"cpu.mode": "user"}),
        Observation(times.system, {"cpu.mode": "system"}),
    ]


def _memory() -> list[Observation]:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return _peak_memory()  # no procfs: macOS, Windows
    return [Observation(pages * os.sysconf("SC_PAGE_SIZE"))]


def _peak_memory() -> list[Observation]:
    try:
        import resource
    except ImportError:
        return []
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return [Observation(peak if sys.platform == "darwin" else peak * 1024)]


def _collections(field: str) -> list[Observation]:
    stats: list[dict[str, Any]] = gc.get_stats()
    return [
        Observation(generation[field], {"cpython.gc.generation": number})
        for number, generation in enumerate(stats)
    ]
