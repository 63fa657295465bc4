"""Answers for the sink as Tempo does: traces by id, in the shape of its HTTP API.

`GET /api/v2/traces/<id>` takes an id in hex, leading zeros optional, and answers
`{"trace": {"resourceSpans": […]}}` with ids in base64, as Tempo does: protobuf's JSON mapping of
bytes. Of a trace that is not there it answers, like Tempo, 200 and `{"trace": {}}`.
`GET /api/search?q={ link:traceID = "<id>" }`, the id without its leading zeros, answers
`{"traces": [{"traceID": …}]}`, ids in hex; no other search is known. `GET /ready` answers 200, and
`GET /metrics` has nothing to count.
`GET /api/problems`, which Tempo does not have, answers with what the sink found wrong, and
`GET /api/spans?start=<ns>&end=<ns>` with every span that was running in this time, as of one trace.
"""

import base64
import json
import re
from collections.abc import Iterable, Mapping
from http.server import BaseHTTPRequestHandler
from itertools import groupby
from typing import Any
from urllib.parse import parse_qs, urlsplit

from .http import HttpServer
from .model import Span
from .sink import OtlpSink

_LINK_QUERY = re.compile(r'\{ *link:traceID *= *"([0-9a-f]{1,32})" *\}')


class QueryServer(HttpServer):
    """Serves what the sink holds; `start` and `stop` it. Raises OSError if the port is taken."""

    def __init__(self, sink: OtlpSink, host: str = "127.0.0.1", port: int = 0) -> None:
        super().__init__((host, port), _Handler)
        self.sink = sink
        self.endpoint = f"http://{host}:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: QueryServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        prefix, _, trace_id = url.path.rpartition("/")
        if url.path == "/ready":
            self._answer(200, "ready")
        elif url.path == "/metrics":
            self._answer(200, "")
        elif url.path == "/api/problems":
            self._answer(200, self.server.sink.problems)
        elif url.path == "/api/search":
            self._search(parse_qs(url.query).get("q", [""])[0])
        elif url.path == "/api/spans":
            self._list(parse_qs(url.query))
        elif prefix == "/api/v2/traces":
            self._answer_spans(self.server.sink.trace(trace_id.lower().rjust(32, "0")))
        else:
            self._answer(404, f"nothing at {url.path}")

    def _list(self, query: Mapping[str, list[str]]) -> None:
        try:
            start, end = (int(query[name][0]) for name in ("start", "end"))
        except (KeyError, ValueError):
            self._answer(400, "start and end are asked for, in nanoseconds since the epoch")
            return
        found = (one for one in self.server.sink.spans if one.start_ns <= end)
        self._answer_spans([span for span in found if span.end_ns >= start])

    def _answer_spans(self, spans: list[Span]) -> None:
        self._answer(200, {"trace": {"resourceSpans": resource_spans(spans)} if spans else {}})

    def _search(self, query: str) -> None:
        asked = _LINK_QUERY.fullmatch(query)
        if asked is None:
            self._answer(400, 'only { link:traceID = "<id>" } can be searched for')
            return
        cause = asked[1].rjust(32, "0")
        found = {
            span.trace_id
            for span in self.server.sink.spans
            if any(link.trace_id == cause for link in span.links)
        }
        self._answer(200, {"traces": [{"traceID": trace_id} for trace_id in sorted(found)]})

    def _answer(self, status: int, content: Any) -> None:
        text = isinstance(content, str)
        body = (content if text else json.dumps(content)).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain" if text else "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Requests are no news."""


def resource_spans(spans: Iterable[Span]) -> list[dict[str, Any]]:
    """Write spans as the JSON of OTLP's ResourceSpans, one for each run of the same resource."""
    found = []
    for _, run in groupby(spans, lambda span: (span.resource, span.scope, span.schema_url)):
        same = list(run)
        first = same[0]
        scope = {"name": first.scope, "version": first.scope_version}
        found.append(
            {
                "resource": {"attributes": _attributes(first.resource)},
                "scopeSpans": [
                    {
                        "scope": scope,
                        "schemaUrl": first.schema_url,
                        "spans": [_span(span) for span in same],
                    }
                ],
            }
        )
    return found


def _span(span: Span) -> dict[str, Any]:
    return {
        "traceId": _id(span.trace_id),
        "spanId": _id(span.span_id),
        "parentSpanId": _id(span.parent_id or ""),
        "name": span.name,
        "kind": f"SPAN_KIND_{span.kind}",
        "startTimeUnixNano": str(span.start_ns),
        "endTimeUnixNano": str(span.end_ns),
        "attributes": _attributes(span.attributes),
        "events": [
            {
                "name": event.name,
                "timeUnixNano": str(event.time_ns),
                "attributes": _attributes(event.attributes),
            }
            for event in span.events
        ],
        "links": [
            {
                "traceId": _id(link.trace_id),
                "spanId": _id(link.span_id),
                "attributes": _attributes(link.attributes),
            }
            for link in span.links
        ],
        "status": {"code": f"STATUS_CODE_{span.status}", "message": span.status_message},
    }


def _id(value: str) -> str:
    return base64.b64encode(bytes.fromhex(value)).decode()


def _attributes(attributes: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value": _value(value)} for key, value in attributes.items()]


def _value(value: Any) -> dict[str, Any]:
    match value:
        case None:
            return {}
        case bool():
            return {"boolValue": value}
        case str():
            return {"stringValue": value}
        case int():
            return {"intValue": str(value)}
        case float():
            return {"doubleValue": value}
        case bytes():
            return {"bytesValue": base64.b64encode(value).decode()}
        case Mapping():
            return {"kvlistValue": {"values": _attributes(value)}}
        case _:
            return {"arrayValue": {"values": [_value(item) for item in value]}}
