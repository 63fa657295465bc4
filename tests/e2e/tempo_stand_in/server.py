#!/opt/venv/bin/python
"""The part of Tempo's interface that the end-to-end tests and the stack use, over an OTLP sink.

`/tempo -health` asks a running one for its health; any other arguments start it.
"""

import base64
import json
import re
import signal
import sys
import threading
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from devtools.model import Span
from devtools.sink import OtlpSink

PORT = 3200


def main() -> None:
    if "-health" in sys.argv:
        urllib.request.urlopen(f"http://127.0.0.1:{PORT}/ready", timeout=2)
        return
    with OtlpSink(host="0.0.0.0", grpc_port=4317, http_port=4318) as sink:

        class Api(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.end_headers()
                self.wfile.write(answer(self.path, sink.spans))

            def log_message(self, *_: Any) -> None:
                """A line per health check helps nobody."""

        server = ThreadingHTTPServer(("0.0.0.0", PORT), Api)
        signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
        server.serve_forever()


def answer(path: str, spans: list[Span]) -> bytes:
    """Return the body for a request's path; of no interest beside the traces is an empty one."""
    if path.startswith("/api/v2/traces/"):
        wanted = path.rpartition("/")[2]
        return json.dumps({"trace": trace([s for s in spans if s.trace_id == wanted])}).encode()
    if path.startswith("/api/search?"):
        # The one query there is: by the trace id of a link.
        cause = re.search("[0-9a-f]{32}", urllib.parse.unquote(path))
        found = {
            span.trace_id
            for span in spans
            if cause and any(link.trace_id == cause[0] for link in span.links)
        }
        return json.dumps({"traces": [{"traceID": one} for one in sorted(found)]}).encode()
    return b""


def trace(spans: list[Span]) -> dict[str, Any]:
    """Return the spans as OTLP JSON, one resource each."""
    return {
        "resourceSpans": [
            {
                "resource": {"attributes": [text("service.name", span.service)]},
                "scopeSpans": [{"spans": [otlp(span)]}],
            }
            for span in spans
        ]
    }


def otlp(span: Span) -> dict[str, Any]:
    return {
        "traceId": b64(span.trace_id),
        "spanId": b64(span.span_id),
        "parentSpanId": b64(span.parent_id or ""),
        "name": span.name,
        "kind": f"SPAN_KIND_{span.kind}",
        "startTimeUnixNano": str(span.start_ns),
        "endTimeUnixNano": str(span.end_ns),
        "attributes": [text(key, str(value)) for key, value in span.attributes.items()],
        "links": [
            {"traceId": b64(link.trace_id), "spanId": b64(link.span_id)} for link in span.links
        ],
        "status": {"code": f"STATUS_CODE_{span.status}"},
    }


def text(key: str, value: str) -> dict[str, Any]:
    return {"key": key, "value": {"stringValue": value}}


def b64(identifier: str) -> str:
    """Tempo gives ids in base64, as protobuf's JSON has all bytes."""
    return base64.b64encode(bytes.fromhex(identifier)).decode()


if __name__ == "__main__":
    main()
