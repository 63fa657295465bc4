"""Where the CPU time of the event loop's thread goes: its stack, at intervals of CPU time.

Unlike cProfile it costs the same whatever is called, and it does not count time that is only waited
for: a machine with other work on it shows the same shares.
"""

import signal
import time
from collections import Counter
from pathlib import PurePath
from types import FrameType
from typing import Any

SECONDS = 0.002

# The part that a frame belongs to, by the path of its file; the first that fits.
PARTS = {
    "/telemetry/encoding.py": "encoding and queueing of spans",
    "/telemetry/batches.py": "encoding and queueing of spans",
    "/prometheus_client/": "Prometheus metrics",
    "/messages/prometheus.py": "Prometheus metrics",
    "/kafka/prometheus": "Prometheus metrics",
    "/faststream_otel/messages/middleware.py": "context, headers and attributes of spans",
    "/faststream_otel/kafka/telemetry.py": "context, headers and attributes of spans",
    "/faststream_otel/telemetry/": "context, headers and attributes of spans",
    "/opentelemetry/": "OpenTelemetry's SDK: spans and context",
    "/faststream_otel/": "retry, time limits, confirmation, acknowledgement",
    "/aiokafka/": "aiokafka: fetching and sending",
    "/faststream/": "FastStream and pydantic",
    "/fast_depends/": "FastStream and pydantic",
    "/pydantic/": "FastStream and pydantic",
}
LOGGING = "a log record: logging, stdout, its export"
REST = "event loop"
THREADS = "other threads: exports"


class Sampler:
    """Samples the thread that starts it, which must be the main thread."""

    def __init__(self) -> None:
        self._parts: Counter[str] = Counter()
        self._functions: Counter[str] = Counter()
        self._main = 0.0

    def start(self) -> None:
        signal.signal(signal.SIGPROF, self._sample)
        signal.setitimer(signal.ITIMER_PROF, SECONDS, SECONDS)
        self._main -= time.thread_time()

    def stop(self) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)
        self._main += time.thread_time()

    def told(self) -> dict[str, Any]:
        """Seconds of the thread, and the numbers of samples by part and by function."""
        functions = dict(self._functions.most_common(40))
        return {"main": self._main, "parts": dict(self._parts), "functions": functions}

    def _sample(self, _: int, frame: FrameType | None) -> None:
        if frame is None:
            return
        code = frame.f_code
        name = f"{code.co_qualname} ({'/'.join(PurePath(code.co_filename).parts[-2:])})"
        self._functions[name] += 1
        self._parts[_part(frame)] += 1


def _part(frame: FrameType) -> str:
    """The part of the innermost frame that belongs to one; all that logging calls is one."""
    found = ""
    at: FrameType | None = frame
    while at is not None:
        path = at.f_code.co_filename
        if path.endswith("/logging/__init__.py"):
            return LOGGING
        if not found:
            found = next((part for within, part in PARTS.items() if within in path), "")
        at = at.f_back
    return found or REST
