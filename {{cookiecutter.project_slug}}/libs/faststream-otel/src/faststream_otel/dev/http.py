"""The HTTP half of the OTLP receiver."""

import json
import re
import zlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

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
"""What is sent of each signal, and what is answered."""


class HttpApp:
    """The ASGI application of a receiver.

    - `POST /v1/traces`, `/v1/metrics`, `/v1/logs`: OTLP/HTTP with binary protobuf.
    - `GET /api/v2/traces/<id>`, `/api/search?q={ link:traceID = "<id>" }`, `/ready`, `/metrics`: as
      Tempo answers them; other searches are refused.
    - `GET /api/spans?start=<ns>&end=<ns>`, `/api/problems`, which Tempo does not have: every span
      that was running in this time, as of one trace, and what was wrong with the spans.
    """

    def __init__(self, receiver: "OtlpReceiver") -> None:
        self._receiver = receiver

    async def __call__(
        self,
        scope: dict[str, Any],
        receive: Callable[[], Awaitable[dict[str, Any]]],
        send: Callable[[dict[str, Any]], Awaitable[None]],
    ) -> None:
        headers = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}
        body, more = b"", True
        while more:
            event = await receive()
            body += event.get("body", b"")
            more = event.get("more_body", False)
        if scope["method"] == "POST":
            status, content = self._export(scope["path"], headers, body)
            media_type = PROTOBUF
        else:
            status, answer = self._query(scope["path"], parse_qs(scope["query_string"].decode()))
            text = isinstance(answer, str)
            content = (answer if text else json.dumps(answer)).encode()
            media_type = "text/plain" if text else "application/json"
        length = str(len(content)).encode()
        fields = [(b"content-type", media_type.encode()), (b"content-length", length)]
        await send({"type": "http.response.start", "status": status, "headers": fields})
        await send({"type": "http.response.body", "body": content})

    def _export(self, path: str, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
        """Receive one request (OTLP specification, "OTLP/HTTP"); errors are a google.rpc.Status."""
        signal: Any = path.removeprefix("/v1/")
        encoding = headers.get("content-encoding", "identity")
        if signal not in MESSAGES:
            return 404, _status(f"nothing at {path}; use /v1/ and one of {', '.join(MESSAGES)}")
        if headers.get("content-type", "").partition(";")[0] != PROTOBUF:
            return 415, _status(f"send {PROTOBUF}")
        if encoding not in {"identity", *WBITS}:
            return 415, _status(f"Content-Encoding {encoding} is not known; use gzip")
        request_class, response = MESSAGES[signal]
        try:
            if encoding in WBITS:
                body = zlib.decompress(body, WBITS[encoding])
            request = request_class.FromString(body)
        except (zlib.error, DecodeError) as error:
            return 400, _status(f"not readable: {error}")
        self._receiver.receive(signal, request, "http/protobuf", headers.items())
        return 200, response().SerializeToString()

    def _query(self, path: str, query: dict[str, list[str]]) -> tuple[int, Any]:
        receiver = self._receiver
        if path in {"/ready", "/metrics"}:
            return 200, ""
        if path == "/api/problems":
            return 200, receiver.problems
        if path.startswith("/api/v2/traces/"):
            trace_id = path.rpartition("/")[2].lower().rjust(32, "0")
            return 200, {"trace": otlp.to_json(receiver.trace(trace_id))}
        if path == "/api/spans":
            try:
                start, end = (int(query[name][0]) for name in ("start", "end"))
            except (KeyError, ValueError):
                return 400, "start and end are needed, in nanoseconds since the epoch"
            spans = [one for one in receiver.spans if one.start_ns <= end and one.end_ns >= start]
            return 200, {"trace": otlp.to_json(spans)}
        if path == "/api/search":
            asked = LINK_QUERY.fullmatch(query.get("q", [""])[0])
            if asked is None:
                return 400, 'the one search that is known is { link:traceID = "<id>" }'
            cause = asked[1].rjust(32, "0")  # Tempo compares ids without their leading zeros
            found = {
                span.trace_id
                for span in receiver.spans
                if any(link.trace_id == cause for link in span.links)
            }
            return 200, {"traces": [{"traceID": trace_id} for trace_id in sorted(found)]}
        return 404, f"nothing at {path}"


def _status(message: str) -> bytes:
    """Encode a google.rpc.Status (int32 code = 1; string message = 2), whose package would be
    needed for this alone."""
    text = message.encode()[:127]  # so that its length is one byte
    return bytes((0x08, INVALID_ARGUMENT, 0x12, len(text))) + text
