"""An OTLP receiver for development and tests: takes all three signals over gRPC and HTTP, checks
them and keeps them in memory.

It needs opentelemetry-proto and grpcio only, so that a small image of it can stand where a real
backend would.
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

from . import decode
from .endpoints import ENDPOINTS, Endpoint
from .http import OtlpHttpServer
from .model import Export, LogRecord, MetricPoint, Protocol, Signal, Span

T = TypeVar("T")

MAX_MESSAGE_BYTES = 64 * 1_048_576


@dataclass(frozen=True)
class Tls:
    """The files of a PEM certificate and its key, to serve over TLS."""

    certificate: Path
    key: Path


class OtlpSink:
    """Receives telemetry from `with` to the end of it.

    Args:
        host: To listen on.
        grpc_port: 0 takes a free one; the endpoints tell which.
        http_port: Likewise.
        tls: Serve over TLS with this certificate.
        capacity: How many spans, log records, data points, exports and problems to keep, of each;
            the oldest are forgotten.

    Raises:
        OSError: A port is taken (on entering).
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        grpc_port: int = 0,
        http_port: int = 0,
        *,
        tls: Tls | None = None,
        capacity: int = 100_000,
    ) -> None:
        self.host = host
        self._ports = grpc_port, http_port
        self._tls = tls
        self._changed = threading.Condition()
        self._spans: deque[Span] = deque(maxlen=capacity)
        self._logs: deque[LogRecord] = deque(maxlen=capacity)
        self._metrics: deque[MetricPoint] = deque(maxlen=capacity)
        self._exports: deque[Export] = deque(maxlen=capacity)
        self._problems: deque[str] = deque(maxlen=capacity)
        self._seen: dict[tuple[str, str], None] = {}
        self._capacity = capacity
        self.grpc_endpoint = ""
        self.http_endpoint = ""

    @property
    def spans(self) -> list[Span]:
        """What has arrived so far, in the order of arrival."""
        return self._snapshot(self._spans)

    @property
    def logs(self) -> list[LogRecord]:
        return self._snapshot(self._logs)

    @property
    def metrics(self) -> list[MetricPoint]:
        return self._snapshot(self._metrics)

    @property
    def exports(self) -> list[Export]:
        """Each request that was accepted, with its headers."""
        return self._snapshot(self._exports)

    @property
    def problems(self) -> list[str]:
        """What was wrong with what arrived, in plain words; empty is what one wants."""
        return self._snapshot(self._problems)

    def trace(self, trace_id: str) -> list[Span]:
        """The spans of a trace (id in hex) that have arrived so far."""
        return [span for span in self.spans if span.trace_id == trace_id]

    def clear(self) -> None:
        """Forget everything that has arrived."""
        with self._changed:
            for kept in (self._spans, self._logs, self._metrics, self._exports, self._problems):
                kept.clear()
            self._seen.clear()

    def wait_for(self, condition: Callable[["OtlpSink"], T], what: str, timeout: float = 10.0) -> T:
        """Wait until the condition is truthy, and return what it returned.

        Args:
            condition: Called with this sink whenever something arrived, and ten times a second.
            what: Is waited for, in words, for the message when it does not come.
            timeout: In seconds.

        Raises:
            TimeoutError: It did not come true; names `what` and what did arrive.
        """
        deadline = time.monotonic() + timeout
        while True:
            if result := condition(self):
                return result
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise TimeoutError(f"waited {timeout:g} s for {what}; {self.summary()}")
            with self._changed:
                self._changed.wait(min(remaining, 0.1))

    def summary(self) -> str:
        """Say in a line what has arrived."""
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
        """Take in an export request of any protocol.

        Args:
            signal: Which of the three it is.
            request: The ExportTraceServiceRequest, or its like.
            protocol: `grpc` or `http/protobuf`.
            headers: Pairs of name and value.
        """
        names = {str(name).lower(): str(value) for name, value in headers}
        with self._changed:
            match signal:
                case "traces":
                    spans, problems = decode.spans(request.resource_spans)
                    problems += self._duplicates(spans)
                    self._spans.extend(spans)
                    items = len(spans)
                case "logs":
                    logs, problems = decode.logs(request.resource_logs)
                    self._logs.extend(logs)
                    items = len(logs)
                case "metrics":
                    points, problems = decode.metrics(request.resource_metrics)
                    self._metrics.extend(points)
                    items = len(points)
            self._problems.extend(problems)
            self._exports.append(Export(signal, protocol, items, names))
            self._changed.notify_all()

    def _duplicates(self, spans: list[Span]) -> list[str]:
        problems = []
        for span in spans:
            key = (span.trace_id, span.span_id)
            if key in self._seen:
                problems.append(
                    f"span {span.name!r} of {span.service}: id {span.span_id} came twice"
                )
            self._seen[key] = None
        while len(self._seen) > self._capacity:
            del self._seen[next(iter(self._seen))]
        return problems

    def _snapshot(self, kept: "deque[T]") -> list[T]:
        with self._changed:
            return list(kept)

    def __enter__(self) -> Self:
        grpc_port, http_port = self._ports
        scheme = "https" if self._tls else "http"
        self._http = OtlpHttpServer(
            (self.host, http_port),
            receive=self.receive,
            tls=_ssl_context(self._tls) if self._tls else None,
        )
        self.http_endpoint = f"{scheme}://{self.host}:{self._http.server_port}"
        try:
            self._grpc, grpc_port = self._serve_grpc(grpc_port)
        except BaseException:
            self._http.server_close()
            raise
        self.grpc_endpoint = f"{scheme}://{self.host}:{grpc_port}"
        self._http.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        stopped = self._grpc.stop(grace=0.5)
        self._http.stop()
        stopped.wait()

    def _serve_grpc(self, port: int) -> tuple[grpc.Server, int]:
        server = grpc.server(
            ThreadPoolExecutor(max_workers=4, thread_name_prefix="otlp-grpc"),
            options=[
                ("grpc.so_reuseport", 0),  # a taken port shall be an error
                ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ],
        )
        server.add_generic_rpc_handlers([self._grpc_handler(endpoint) for endpoint in ENDPOINTS])
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

    def _grpc_handler(self, endpoint: Endpoint) -> grpc.GenericRpcHandler:
        def export(request: Any, context: grpc.ServicerContext) -> Any:
            self.receive(endpoint.signal, request, "grpc", context.invocation_metadata())
            return endpoint.response()

        method: Any = grpc.unary_unary_rpc_method_handler(
            export,
            request_deserializer=endpoint.request.FromString,
            response_serializer=lambda response: response.SerializeToString(),
        )
        return grpc.method_handlers_generic_handler(endpoint.grpc_service, {"Export": method})


def _ssl_context(tls: Tls) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls.certificate, tls.key)
    return context
