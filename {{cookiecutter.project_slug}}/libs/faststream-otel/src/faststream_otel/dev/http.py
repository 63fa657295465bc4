"""The HTTP half of the OTLP receiver.

It uses the standard library's server, because that logs nothing. A receiver may run in the same
process as its log exporter, where each record about a request would cause another request.
"""

import json
import re
import ssl
import threading
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

from . import otlp

if TYPE_CHECKING:
    from .receiver import OtlpReceiver

PROTOBUF = "application/x-protobuf"
INVALID_ARGUMENT = 3  # google.rpc.Code
WBITS = {"gzip": 31, "deflate": 15}
LINK_QUERY = re.compile(r'\{ *link:traceID *= *"([0-9a-f]{1,32})" *\}')

MESSAGES: dict[otlp.Signal, tuple[Any, Any]] = {
    "traces": (
        trace_service_pb2.ExportTraceServiceRequest,
        trace_service_pb2.ExportTraceServiceResponse,
    ),
    "metrics": (
        metrics_service_pb2.ExportMetricsServiceRequest,
        metrics_service_pb2.ExportMetricsServiceResponse,
    ),
    "logs": (
        logs_service_pb2.ExportLogsServiceRequest,
        logs_service_pb2.ExportLogsServiceResponse,
    ),
}
"""Request and response of each signal."""


class HttpServer(ThreadingHTTPServer):
    """Serves a receiver over HTTP, on its own threads.

    - `POST /v1/traces`, `/v1/metrics`, `/v1/logs`: OTLP/HTTP with binary protobuf.
    - `GET /api/v2/traces/<id>`, `/api/search?q={ link:traceID = "<id>" }`, `/ready`, `/metrics`:
      like Tempo; other searches are refused.
    - `GET /api/spans?start=<ns>&end=<ns>`, which Tempo does not have: every span that was running
      in this time, in the form of one trace.

    Raises:
        OSError: The port is taken.
    """

    daemon_threads = True

    def __init__(
        self, receiver: "OtlpReceiver", port: int, tls: ssl.SSLContext | None = None
    ) -> None:
        try:
            super().__init__((receiver.host, port), _Handler)
        except OSError as error:
            raise OSError(f"cannot listen on {receiver.host}:{port}") from error
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_side=True)
        self._receiver = receiver
        self._open: set[Any] = set()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)

    def server_bind(self) -> None:
        # Not HTTPServer's, which looks up the host's full name: seconds without a DNS server.
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop listening, and close every connection."""
        self.shutdown()
        self.server_close()
        for connection in tuple(self._open):
            self.shutdown_request(connection)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore a client that closed its connection."""

    def export(self, path: str, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
        """Receive one request (OTLP specification, "OTLP/HTTP"); errors are a google.rpc.Status."""
        signal: Any = path.removeprefix("/v1/")
        encoding = headers.get("content-encoding", "identity")
        if signal not in MESSAGES:
            return 404, _status(f"no path {path}; use /v1/ and one of {', '.join(MESSAGES)}")
        if headers.get("content-type", "").partition(";")[0] != PROTOBUF:
            return 415, _status(f"send {PROTOBUF}")
        if encoding not in {"identity", *WBITS}:
            return 415, _status(f"Content-Encoding {encoding} is not supported; use gzip")
        request_class, response = MESSAGES[signal]
        try:
            if encoding in WBITS:
                body = zlib.decompress(body, WBITS[encoding])
            request = request_class.FromString(body)
        except (zlib.error, DecodeError) as error:
            return 400, _status(f"cannot read the body: {error}")
        self._receiver.receive(signal, request, "http/protobuf", headers.items())
        return 200, response().SerializeToString()

    def query(self, path: str, query: dict[str, list[str]]) -> tuple[int, Any]:
        receiver = self._receiver
        if path in {"/ready", "/metrics"}:
            return 200, ""
        if path.startswith("/api/v2/traces/"):
            trace_id = path.rpartition("/")[2].lower().rjust(32, "0")
            return 200, {"trace": otlp.to_json(receiver.trace(trace_id))}
        if path == "/api/spans":
            try:
                start, end = (int(query[name][0]) for name in ("start", "end"))
            except (KeyError, ValueError):
                return 400, "needs start and end, in nanoseconds since the epoch"
            spans = [one for one in receiver.spans if one.start_ns <= end and one.end_ns >= start]
            return 200, {"trace": otlp.to_json(spans)}
        if path == "/api/search":
            asked = LINK_QUERY.fullmatch(query.get("q", [""])[0])
            if asked is None:
                return 400, 'the only supported search is { link:traceID = "<id>" }'
            cause = asked[1].rjust(32, "0")  # Tempo compares ids without their leading zeros
            found = {
                span.trace_id
                for span in receiver.spans
                if any(link.trace_id == cause for link in span.links)
            }
            return 200, {"traces": [{"traceID": trace_id} for trace_id in sorted(found)]}
        return 404, f"no path {path}"


class _Handler(BaseHTTPRequestHandler):
    server: HttpServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # headers and body are two writes

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length")
        if length is None:
            self.close_connection = True
            self._answer(411, PROTOBUF, _status("send a Content-Length"))
            return
        body = self.rfile.read(int(length))
        headers = {name.lower(): value for name, value in self.headers.items()}
        status, content = self.server.export(self.path, headers, body)
        self._answer(status, PROTOBUF, content)

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        status, answer = self.server.query(url.path, parse_qs(url.query))
        if isinstance(answer, str):
            self._answer(status, "text/plain", answer.encode())
        else:
            self._answer(status, "application/json", json.dumps(answer).encode())

    def _answer(self, status: int, media_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None: ...


def _status(message: str) -> bytes:
    """Encode a google.rpc.Status (int32 code = 1; string message = 2), without its package."""
    text = message.encode()[:127]  # so that its length is one byte
    return bytes((0x08, INVALID_ARGUMENT, 0x12, len(text))) + text
