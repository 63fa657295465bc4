"""`make trace` reads a trace, and those that link to it, from whichever backend was chosen.

The answers are what the backends really say; tests/e2e asks the backends themselves.
"""

import base64
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from bakery import Bakery
from matrix import OPTIONS

ORDER, BATCH = "0000" + "a" * 28, "b" * 32
ROOT, FAILED, LINKING = f"{0xA1:016x}", f"{0xA2:016x}", f"{0xB1:016x}"
START = 1_795_646_094_457_490_000  # nanoseconds


def otlp(*, hex_ids: bool) -> dict[str, list[Any]]:
    """ResourceSpans in JSON by trace id: OTLP's own, or that of protobuf's mapping, as in Tempo."""

    def identifier(value: str) -> str:
        return value if hex_ids else base64.b64encode(bytes.fromhex(value)).decode()

    def span(trace_id: str, span_id: str, name: str, kind: int, **more: Any) -> dict[str, Any]:
        return {
            "traceId": identifier(trace_id), "spanId": identifier(span_id), "name": name,
            "kind": kind, "startTimeUnixNano": str(START),
            "endTimeUnixNano": str(START + 1_235_000),
            **more,
        }  # fmt: skip

    def of(service: str, one: dict[str, Any]) -> dict[str, Any]:
        name = {"key": "service.name", "value": {"stringValue": service}}
        return {"resource": {"attributes": [name]}, "scopeSpans": [{"spans": [one]}]}

    event = {"timeUnixNano": str(START + 1000), "name": "tried again"}
    failed = {"code": 2, "message": "LookupError: no such card"}
    link = {"traceId": identifier(ORDER), "spanId": identifier(FAILED)}
    return {
        ORDER: [
            of("orders", span(ORDER, ROOT, "POST /orders", 2)),
            of("payments", span(ORDER, FAILED, "process orders.placed", 5,
                                parentSpanId=identifier(ROOT), status=failed, events=[event])),
        ],
        BATCH: [of("notifications", span(BATCH, LINKING, "process shipments", 5, links=[link]))],
    }  # fmt: skip


def tempo(path: str, query: Mapping[str, str]) -> Any:
    if path == "/ready":
        return "ready"
    if path == "/api/search":
        assert query["q"] == f'{{ link:traceID = "{ORDER.lstrip("0")}" }}' or BATCH in query["q"]
        return {"traces": [] if BATCH in query["q"] else [{"traceID": BATCH}]}
    spans = otlp(hex_ids=False).get(path.removeprefix("/api/v2/traces/"))
    return {"trace": {"resourceSpans": spans} if spans else {}}


def jaeger(path: str, query: Mapping[str, str]) -> Any:
    spans = otlp(hex_ids=True)
    if path == "/api/v3/services":
        return {"services": ["notifications", "orders"]}
    if path == "/api/v3/traces":
        assert query["query.start_time_min"] < query["query.start_time_max"]
        found = spans[BATCH if query["query.service_name"] == "notifications" else ORDER]
    else:
        found = spans.get(path.removeprefix("/api/v3/traces/"), [])
    return {"result": {"resourceSpans": found}} if found else None


def zipkin(path: str, query: Mapping[str, str]) -> Any:
    def span(trace_id: str, span_id: str, service: str, name: str, **more: Any) -> dict[str, Any]:
        return {
            "traceId": trace_id, "id": span_id, "name": name, "timestamp": START // 1000,
            "duration": 1235, "localEndpoint": {"serviceName": service}, **more,
        }  # fmt: skip

    failed = {"error": "true", "otel.status_code": "STATUS_CODE_ERROR",
              "otel.status_description": "LookupError: no such card"}  # fmt: skip
    event = {"timestamp": START // 1000 + 1, "value": 'tried again|{"attempt":2}|0'}
    traces = {
        ORDER: [
            span(ORDER, ROOT, "orders", "post /orders", kind="SERVER"),
            span(ORDER, FAILED, "payments", "process orders.placed", kind="CONSUMER",
                 parentId=ROOT, tags=failed, annotations=[event]),
        ],
        BATCH: [
            span(BATCH, LINKING, "notifications", "process shipments", kind="CONSUMER",
                 tags={"otlp.link.0": f"{ORDER}|{FAILED}||{{}}|0"}),
        ],
    }  # fmt: skip
    if path == "/health":
        return {"status": "UP"}
    if path == "/api/v2/traces":
        return [traces[BATCH]] if query["annotationQuery"] == "otlp.link.0" else []
    return traces.get(path.removeprefix("/api/v2/trace/"))


BACKENDS = {"tempo": tempo, "jaeger": jaeger, "zipkin": zipkin}
PAGES = {"tempo": None, "jaeger": "/trace/", "zipkin": "/zipkin/traces/"}


@contextmanager
def answering(backend: str) -> Iterator[int]:
    """Serve a backend's answers; None is 404. Give the port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(url.query).items()}
            answer = BACKENDS[backend](url.path, query)
            body = json.dumps(answer).encode()
            self.send_response(404 if answer is None else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            """Requests are no news."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server.server_port
        finally:
            server.shutdown()


@pytest.fixture(params=OPTIONS["trace_backend"])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def project(backend: str, bakery: Bakery, tmp_path: Path) -> Path:
    return bakery.bake({"trace_backend": backend}, tmp_path)


def make_trace(project: Path, trace_id: str, **ports: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "devtools", "trace", trace_id],
        cwd=project, env=os.environ | ports, capture_output=True, encoding="utf-8",
    )  # fmt: skip


def test_the_trace_is_drawn_with_what_links_to_it(backend: str, project: Path) -> None:
    with answering(backend) as port:
        variable = f"{backend.upper()}_PORT"
        done = make_trace(project, ORDER, **{variable: str(port), "GRAFANA_PORT": "3001"})
    assert done.returncode == 0, done.stderr
    grafana, *rest = done.stdout.splitlines()
    assert grafana.startswith("http://127.0.0.1:3001/explore?")
    assert f"%22type%22%3A%22{backend}%22%2C%22uid%22%3A%22traces%22" in grafana
    if page := PAGES[backend]:
        assert rest[0] == f"http://127.0.0.1:{port}{page}{ORDER}"
    own, linked = done.stdout.split(f"Linked trace {BATCH}")
    for told in ("/orders", "SERVER", "process orders.placed", "ERROR LookupError: no such card",
                 "tried again"):  # fmt: skip
        assert told in own
    assert "process shipments" in linked
    assert "notifications" in linked


def test_a_trace_that_is_not_there_is_told(backend: str, project: Path) -> None:
    (project / "devtools/trace.py").write_text(
        (project / "devtools/trace.py").read_text("utf-8").replace("20.0", "0.1"), "utf-8"
    )
    with answering(backend) as port:
        done = make_trace(project, "c" * 32, **{f"{backend.upper()}_PORT": str(port)})
    assert done.returncode == 1
    assert done.stderr == f"{backend.capitalize()} has no trace {'c' * 32}.\n"
