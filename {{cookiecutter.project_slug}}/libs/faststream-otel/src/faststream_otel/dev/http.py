"""The HTTP half of the sink: OTLP/HTTP with binary protobuf, as the specification's "OTLP/HTTP"
says: 200 with a response message, errors with a google.rpc.Status."""

import ssl
import threading
import zlib
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any, ClassVar

from google.protobuf.message import DecodeError

from .endpoints import ENDPOINTS
from .model import Protocol, Signal

Receive = Callable[[Signal, Any, Protocol, Iterable[tuple[str, str]]], None]

CONTENT_TYPE = "application/x-protobuf"
INVALID_ARGUMENT = 3  # google.rpc.Code

_BY_PATH = {endpoint.path: endpoint for endpoint in ENDPOINTS}


class HttpServer(ThreadingHTTPServer):
    """An HTTP server on a thread of its own that really ends, kept-alive connections included."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(
        self,
        address: tuple[str, int],
        handler: type[BaseHTTPRequestHandler],
        tls: ssl.SSLContext | None = None,
    ) -> None:
        try:
            super().__init__(address, handler)
        except OSError as error:
            raise OSError(f"cannot listen on {address[0]}:{address[1]}") from error
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_side=True)
        self._open: set[Any] = set()
        self._thread = threading.Thread(
            target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )

    def server_bind(self) -> None:
        # Not HTTPServer's, which looks up the host's full name: seconds where no DNS answers.
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop listening and hang up on every client."""
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
        """A client that hung up is no news."""


class OtlpHttpServer(HttpServer):
    """Hands what arrives on /v1/traces, /v1/metrics and /v1/logs to `receive`."""

    def __init__(
        self, address: tuple[str, int], receive: Receive, tls: ssl.SSLContext | None = None
    ) -> None:
        super().__init__(address, _Handler, tls)
        self.receive = receive


class _Handler(BaseHTTPRequestHandler):
    server: OtlpHttpServer
    protocol_version = "HTTP/1.1"
    _WBITS: ClassVar = {"gzip": 31, "deflate": 15}

    def do_POST(self) -> None:
        if self.headers.get("Content-Length") is None:
            self.close_connection = True
            self._refuse(411, "send a Content-Length")
            return
        # Read in any case: the rest of a body would be taken for the next request.
        body = self.rfile.read(int(self.headers["Content-Length"]))
        endpoint = _BY_PATH.get(self.path)
        if endpoint is None:
            self._refuse(404, f"nothing at {self.path}; use one of {', '.join(_BY_PATH)}")
            return
        if self.headers.get_content_type() != CONTENT_TYPE:
            self._refuse(415, f"send {CONTENT_TYPE}")
            return
        encoding = self.headers.get("Content-Encoding", "identity")
        if encoding != "identity" and encoding not in self._WBITS:
            self._refuse(415, f"Content-Encoding {encoding} is not known; use gzip")
            return
        request = endpoint.request()
        try:
            if encoding in self._WBITS:
                body = zlib.decompress(body, self._WBITS[encoding])
            request.ParseFromString(body)
        except (zlib.error, DecodeError) as error:
            self._refuse(400, f"not readable: {error}")
            return
        self.server.receive(endpoint.signal, request, "http/protobuf", self.headers.items())
        self._answer(200, endpoint.response().SerializeToString())

    def do_GET(self) -> None:
        self._refuse(405, "OTLP is sent with POST", Allow="POST")

    def _refuse(self, status: int, reason: str, **headers: str) -> None:
        self._answer(status, _status(INVALID_ARGUMENT, reason), **headers)

    def _answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", CONTENT_TYPE)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Requests are no news either."""


def _status(code: int, message: str) -> bytes:
    """Encode a google.rpc.Status (int32 code = 1; string message = 2), whose Python package the
    sink would otherwise need for this alone."""
    text = message.encode()[:127]  # so that its length is one byte
    return bytes((0x08, code, 0x12, len(text))) + text
