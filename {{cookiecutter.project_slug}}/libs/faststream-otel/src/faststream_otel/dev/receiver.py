"""An OTLP receiver for development and tests. It receives all three signals over gRPC and HTTP,
checks the spans, and keeps everything in memory.

It needs only grpcio and opentelemetry-proto, which every service has. So it also runs in an image
of a project, in place of a real backend.
"""

import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2_grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc

from . import otlp
from .http import MESSAGES, HttpServer
from .otlp import LogRecord, MetricPoint, Protocol, Signal, Span

T = TypeVar("T")

MAX_MESSAGE_BYTES = 64 * 1_048_576
ADD_TO_SERVER: dict[Signal, Callable[[Any, grpc.Server], None]] = {
    "traces": trace_service_pb2_grpc.add_TraceServiceServicer_to_server,
    "metrics": metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server,
    "logs": logs_service_pb2_grpc.add_LogsServiceServicer_to_server,
}


@dataclass(frozen=True)
class Tls:
    """PEM files of a server's certificate and key."""

    certificate: Path
    key: Path


@dataclass(frozen=True)
class Export:
    """One request of an exporter, with the number of its items and its headers (names in lower
    case). gRPC hides its encoding header, so compression is visible for http/protobuf only."""

    signal: Signal
    protocol: Protocol
    items: int
    headers: dict[str, str]


class OtlpReceiver:
    """Receives telemetry inside its `with` block.

    Args:
        host: Address to listen on.
        grpc_port: 0 picks a free port; see `grpc_endpoint`.
        http_port: Likewise, for OTLP/HTTP with binary protobuf.
        query_port: Likewise, for trace queries in Tempo's API.
        tls: Serve over TLS with this certificate.
        capacity: How many spans, log records, data points, exports and problems to keep, each; the
            oldest are dropped.

    Raises:
        OSError: A port is taken (on entering).
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        grpc_port: int = 0,
        http_port: int = 0,
        query_port: int = 0,
        *,
        tls: Tls | None = None,
        capacity: int = 100_000,
    ) -> None:
        self.host = host
        self._ports = grpc_port, http_port, query_port
        self._tls = tls
        # Acquired explicitly: a signal may interrupt the condition's own `with` once it has the
        # lock.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._spans: deque[Span] = deque(maxlen=capacity)
        self._logs: deque[LogRecord] = deque(maxlen=capacity)
        self._metrics: deque[MetricPoint] = deque(maxlen=capacity)
        self._exports: deque[Export] = deque(maxlen=capacity)
        self._problems: deque[str] = deque(maxlen=capacity)
        self._seen: dict[tuple[str, str], None] = {}
        self._capacity = capacity
        self.grpc_endpoint = ""
        self.http_endpoint = ""
        self.query_endpoint = ""

    @property
    def spans(self) -> list[Span]:
        """The spans that have arrived so far, in the order of arrival."""
        return self._snapshot(self._spans)

    @property
    def logs(self) -> list[LogRecord]:
        return self._snapshot(self._logs)

    @property
    def metrics(self) -> list[MetricPoint]:
        return self._snapshot(self._metrics)

    @property
    def exports(self) -> list[Export]:
        """The accepted requests."""
        return self._snapshot(self._exports)

    @property
    def problems(self) -> list[str]:
        """What is wrong with the spans that arrived, in words."""
        return self._snapshot(self._problems)

    def trace(self, trace_id: str) -> list[Span]:
        """The spans of a trace (id in hex) that have arrived so far."""
        return [span for span in self.spans if span.trace_id == trace_id]

    def clear(self) -> None:
        """Forget everything that has arrived."""
        with self._lock:
            for kept in (self._spans, self._logs, self._metrics, self._exports, self._problems):
                kept.clear()
            self._seen.clear()

    def wait_for(
        self, condition: Callable[["OtlpReceiver"], T], what: str, timeout: float = 10.0
    ) -> T:
        """Wait until the condition is truthy, and return what it returned.

        Args:
            condition: Called with this receiver on each arrival, and ten times a second.
            what: What it waits for, in words, for the error.
            timeout: In seconds.

        Raises:
            TimeoutError: The condition stayed false. The text names `what`, and what did arrive.
        """
        deadline = time.monotonic() + timeout
        while True:
            if result := condition(self):
                return result
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise TimeoutError(f"waited {timeout:g} s for {what}; {self.summary()}")
            with self._lock:
                self._changed.wait(min(remaining, 0.1))

    def summary(self) -> str:
        """Summarize what has arrived."""
        spans, problems = self.spans, self.problems
        names = sorted({f"{span.service}: {span.name}" for span in spans})
        return (
            f"arrived: {len(spans)} spans ({', '.join(names) or 'none'}), {len(self.logs)} log"
            f" records, {len(self.metrics)} data points, {len(problems)} problems"
            + "".join(f"\n  {problem}" for problem in problems[:10])
        )

    def receive(
        self,
        signal: Signal,
        request: Any,
        protocol: Protocol,
        headers: Iterable[tuple[str, str | bytes]],
    ) -> None:
        """Store an export request.

        Args:
            request: The signal's message, such as ExportTraceServiceRequest.
            headers: Pairs of name and value.
        """
        items: int
        with self._lock:
            match signal:
                case "traces":
                    spans = otlp.spans(request.resource_spans)
                    self._check(spans)
                    self._spans.extend(spans)
                    items = len(spans)
                case "logs":
                    logs = otlp.logs(request.resource_logs)
                    self._logs.extend(logs)
                    items = len(logs)
                case "metrics":
                    points = otlp.metrics(request.resource_metrics)
                    self._metrics.extend(points)
                    items = len(points)
            names = {str(name).lower(): str(value) for name, value in headers}
            self._exports.append(Export(signal, protocol, items, names))
            self._changed.notify_all()

    def _check(self, spans: list[Span]) -> None:
        for span in spans:
            key = (span.trace_id, span.span_id)
            problems = [*otlp.span_problems(span)]
            if key in self._seen:
                problems.append(f"id {span.span_id} arrived twice")
            self._seen[key] = None
            self._problems.extend(
                f"span {span.name!r} of {span.service or 'an unnamed service'}: {problem}"
                for problem in problems
            )
        while len(self._seen) > self._capacity:
            del self._seen[next(iter(self._seen))]

    def _snapshot(self, kept: "deque[T]") -> list[T]:
        with self._lock:
            return list(kept)

    def __enter__(self) -> Self:
        grpc_port, *ports = self._ports
        scheme = "https" if self._tls else "http"
        tls = None
        if self._tls:
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            tls.load_cert_chain(self._tls.certificate, self._tls.key)
        self._http: list[HttpServer] = []
        try:
            for port in ports:
                self._http.append(HttpServer(self, port, tls))
            self._grpc, grpc_port = self._serve_grpc(grpc_port)
        except BaseException:
            for one in self._http:
                one.server_close()
            raise
        self.grpc_endpoint = f"{scheme}://{self.host}:{grpc_port}"
        self.http_endpoint, self.query_endpoint = (
            f"{scheme}://{self.host}:{one.server_port}" for one in self._http
        )
        for one in self._http:
            one.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        stopped = self._grpc.stop(grace=0.5)
        for one in self._http:
            one.stop()
        stopped.wait()

    def _serve_grpc(self, port: int) -> tuple[grpc.Server, int]:
        server = grpc.server(
            ThreadPoolExecutor(max_workers=4, thread_name_prefix="otlp-grpc"),
            options=[
                ("grpc.so_reuseport", 0),  # so that a taken port is an error
                ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ],
        )
        for signal, add_to_server in ADD_TO_SERVER.items():
            add_to_server(_Servicer(self, signal), server)
        address = f"{self.host}:{port}"
        try:
            if self._tls:
                pair = self._tls.key.read_bytes(), self._tls.certificate.read_bytes()
                bound = server.add_secure_port(address, grpc.ssl_server_credentials([pair]))
            else:
                bound = server.add_insecure_port(address)
        except RuntimeError as error:
            raise OSError(f"cannot listen on {address}") from error
        server.start()
        return server, bound


class _Servicer:
    """One of OTLP's three gRPC services, whose only method is Export."""

    def __init__(self, receiver: OtlpReceiver, signal: Signal) -> None:
        self._receiver = receiver
        self._signal = signal

    def Export(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802 (its name)
        self._receiver.receive(self._signal, request, "grpc", context.invocation_metadata())
        return MESSAGES[self._signal][1]()
