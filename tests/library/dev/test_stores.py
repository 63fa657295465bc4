"""`trace` reads a trace, and those that link to it, from each store.

The responses are recorded from the real stores; tests/e2e uses the stores themselves.
"""

import base64
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from faststream_otel.cli.development import main
from faststream_otel.dev import stores, trace
from faststream_otel.dev.project import Project

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


ANSWERS = {"tempo": tempo, "jaeger": jaeger, "zipkin": zipkin}
PAGES = {"tempo": None, "jaeger": "/trace/", "zipkin": "/zipkin/traces/"}


@contextmanager
def answering(store: str) -> Iterator[int]:
    """Serve a store's answers; None is 404. Give the port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(url.query).items()}
            answer = ANSWERS[store](url.path, query)
            body = json.dumps(answer).encode()
            self.send_response(404 if answer is None else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server.server_port
        finally:
            server.shutdown()


def test_each_store_has_its_answers_here() -> None:
    assert set(stores.NAMES) == set(ANSWERS)


@pytest.fixture(params=stores.NAMES)
def store(
    request: pytest.FixtureRequest, project: Project, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[str, int]]:
    """The name of the project's store, and its port."""
    name = str(request.param)
    with answering(name) as port:
        monkeypatch.setenv("TRACE_BACKEND", name)
        monkeypatch.setenv(f"{name.upper()}_PORT", str(port))
        monkeypatch.setenv("COLUMNS", "120")
        yield name, port


def test_the_trace_is_drawn_with_what_links_to_it(
    store: tuple[str, int], capsys: pytest.CaptureFixture[str]
) -> None:
    name, port = store
    assert main(None, ["trace", ORDER]) == 0
    printed = capsys.readouterr().out
    grafana, *rest = printed.splitlines()
    assert grafana.startswith("http://127.0.0.1:3000/explore?")
    assert f"%22type%22%3A%22{name}%22%2C%22uid%22%3A%22faststream-traces%22" in grafana
    if page := PAGES[name]:
        assert rest[0] == f"http://127.0.0.1:{port}{page}{ORDER}"
    own, linked = printed.split(f"Linked trace {BATCH}")
    for text in ("/orders", "SERVER", "process orders.placed", "ERROR LookupError: no such card",
                 "tried again"):  # fmt: skip
        assert text in own
    assert "process shipments" in linked
    assert "notifications" in linked


def test_a_trace_that_is_not_there_is_an_error(
    store: tuple[str, int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(trace, "WAIT_SECONDS", 0.1)
    assert main(None, ["trace", "c" * 32]) == 1
    assert capsys.readouterr().err == f"{store[0].capitalize()} has no trace {'c' * 32}.\n"
