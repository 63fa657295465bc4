"""Counts the handled messages of this process, and reports what they took."""

import asyncio
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .plan import Plan
from .sampling import Sampler

SAMPLES = 100
"""Of the progress of a run."""
STATM, STATUS = Path("/proc/self/statm"), Path("/proc/self/status")


class Meter:
    """Reports one line of JSON when the service is ready, and one at the end of its plan.

    Make it once everything is imported.

    Args:
        evidence: Called at the end: what the process says about itself.
    """

    def __init__(self, plan: Plan, evidence: Callable[[], dict[str, Any]] = dict) -> None:
        self.plan = plan
        self._imported = _age()
        self._evidence = evidence
        self._handled = 0
        self._next = max(1, plan.warm_up)
        self._step = max(1, plan.handled // SAMPLES)
        self._last = self._next + plan.handled
        self._wall = self._cpu = 0.0
        self._progress: list[tuple[float, int, int]] = []
        self._spans: Callable[[], int] | None = None
        self._profile = Sampler() if plan.profile else None

    def ready(self) -> None:
        """Call it once the consumers have started."""
        if self.plan.count_spans:
            self._spans = _count_spans()
        self._report(imported=self._imported, ready=_age(), rss=rss())

    def hop(self) -> None:
        """Call it for each message that is handled. Costs next to nothing."""
        self._handled += 1
        if self._handled == self._next:
            self._mark()

    def _mark(self) -> None:
        if not self._wall:
            self._wall, self._cpu = time.monotonic(), time.process_time()
            if self._profile:
                self._profile.start()
        done = self._last - self.plan.handled
        self._progress.append((time.monotonic() - self._wall, self._handled - done, rss()))
        if self._handled == self._last:
            self._next = 0
            # A task of its own, so that this message is done too.
            self._ending = asyncio.get_running_loop().create_task(self._end())
        else:
            self._next = min(self._handled + self._step, self._last)

    async def _end(self) -> None:
        wall = time.monotonic() - self._wall
        memory = rss()
        if self._profile:
            self._profile.stop()
        await asyncio.sleep(0.05)  # the last message is acknowledged
        await asyncio.to_thread(flush)  # exporting what is queued is part of the cost
        self._report(
            cpu=time.process_time() - self._cpu,
            wall=wall,
            rss=memory,
            peak_rss=peak_rss(),
            progress=self._progress,
            spans=self._spans() if self._spans else None,
            profile=self._profile.told() if self._profile else None,
            **self._evidence(),
        )

    def _report(self, **fields: Any) -> None:
        os.write(self.plan.descriptor, json.dumps(fields).encode() + b"\n")


def flush() -> None:
    """Export what the global providers have queued, if there are any."""
    for module, name in (
        ("opentelemetry.trace", "get_tracer_provider"),
        ("opentelemetry._logs", "get_logger_provider"),
        ("opentelemetry.metrics", "get_meter_provider"),
    ):
        if module in sys.modules:  # importing it would change what is measured
            provider = getattr(sys.modules[module], name)()
            getattr(provider, "force_flush", bool)()


def rss() -> int:
    """Bytes of memory in use; where the system does not tell, the most so far."""
    try:
        return int(STATM.read_text().split()[1]) * resource.getpagesize()
    except OSError:
        return peak_rss()


def peak_rss() -> int:
    if STATUS.exists():  # what getrusage tells there includes the process that started this one
        (line,) = (one for one in STATUS.read_text().splitlines() if one.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def _age() -> float:
    """Seconds since whoever started this process did."""
    return time.time() - float(os.environ.get("BENCH_STARTED", "nan"))


def _count_spans() -> Callable[[], int]:
    from opentelemetry import trace
    from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider

    class Counter(SpanProcessor):
        ended = 0

        def on_end(self, span: ReadableSpan) -> None:
            self.ended += 1

    counter, provider = Counter(), trace.get_tracer_provider()
    if isinstance(provider, TracerProvider):
        provider.add_span_processor(counter)
    return lambda: counter.ended
