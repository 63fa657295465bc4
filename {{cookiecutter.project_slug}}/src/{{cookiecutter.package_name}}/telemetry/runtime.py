"""The process and its interpreter as OTLP metrics (conventions 1.44, "Process", "CPython")."""

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
    """Register the instruments; they are read when metrics are exported, and cost nothing else."""
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
