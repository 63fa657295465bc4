"""An OTLP receiver in a process of its own, which only counts: items, requests and bytes.

It serves gRPC and HTTP, and answers each line on its standard input with its counts as JSON.
"""

import json
import subprocess
import sys
import threading
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

SIGNALS = {"traces": "trace", "metrics": "metrics", "logs": "logs"}
"""Each with its package in OTLP."""


class Sink:
    """The receiver's process.

    Attributes:
        grpc: Its endpoint over gRPC.
        http: Its endpoint over HTTP.
    """

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.sink"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.grpc, self.http = self._answer()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.communicate()

    def counts(self) -> Counter[str]:
        """What has arrived: `spans`, `logs`, `metrics`, each also with ` bytes` and ` requests`.

        Bytes are of the bodies: over HTTP as sent, over gRPC unpacked.
        """
        assert self._process.stdin
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return Counter(self._answer())

    def _answer(self) -> Any:
        assert self._process.stdout
        return json.loads(self._process.stdout.readline())


class Counts:
    """Counts requests of any thread."""

    def __init__(self) -> None:
        self.of: Counter[str] = Counter()
        self._lock = threading.Lock()

    def add(self, signal: str, request: Any, size: int) -> None:
        items = sum(map(ITEMS[signal], request.ListFields()[0][1])) if request.ListFields() else 0
        name = "spans" if signal == "traces" else signal
        with self._lock:
            self.of.update({name: items, f"{name} bytes": size, f"{name} requests": 1})


def _scoped(scopes: str, items: str) -> Any:
    return lambda resource: sum(len(getattr(one, items)) for one in getattr(resource, scopes))


ITEMS: dict[str, Any] = {
    "traces": _scoped("scope_spans", "spans"),
    "logs": _scoped("scope_logs", "log_records"),
    "metrics": _scoped("scope_metrics", "metrics"),
}


def messages() -> dict[str, tuple[Any, Any]]:
    """Request and response of each signal."""
    from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs
    from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics
    from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as traces

    return {
        "traces": (traces.ExportTraceServiceRequest, traces.ExportTraceServiceResponse),
        "metrics": (metrics.ExportMetricsServiceRequest, metrics.ExportMetricsServiceResponse),
        "logs": (logs.ExportLogsServiceRequest, logs.ExportLogsServiceResponse),
    }


def serve_http(counts: Counts) -> str:
    kinds = messages()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            signal = self.path.removeprefix("/v1/")
            body = self.rfile.read(int(self.headers["Content-Length"]))
            zipped = self.headers.get("Content-Encoding") == "gzip"
            request, response = kinds[signal]
            read = request.FromString(zlib.decompress(body, 31) if zipped else body)
            counts.add(signal, read, len(body))
            answer = response().SerializeToString()
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *arguments: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"


def serve_grpc(counts: Counts) -> tuple[Any, str]:
    """A server, which ends when it is no longer referred to, and its endpoint."""
    import grpc

    server = grpc.server(
        ThreadPoolExecutor(4), options=[("grpc.max_receive_message_length", 64 * 1_048_576)]
    )
    for signal, (request, response) in messages().items():

        def export(
            body: bytes, context: Any, signal: str = signal, of: Any = (request, response)
        ) -> Any:
            counts.add(signal, of[0].FromString(body), len(body))
            return of[1]()

        package = SIGNALS[signal]
        service = f"opentelemetry.proto.collector.{package}.v1.{package.capitalize()}Service"
        handler: Any = grpc.unary_unary_rpc_method_handler(
            export, response_serializer=response.SerializeToString
        )
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(service, {"Export": handler}),)
        )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, f"http://127.0.0.1:{port}"


def main() -> None:
    counts = Counts()
    server, endpoint = serve_grpc(counts)
    print(json.dumps([endpoint, serve_http(counts)]), flush=True)
    for _ in sys.stdin:
        print(json.dumps(counts.of), flush=True)
    server.stop(None)


if __name__ == "__main__":
    main()
