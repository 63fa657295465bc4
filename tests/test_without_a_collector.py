"""docs/without-a-collector.md is true: its variables, and nothing else, take telemetry straight to
a backend, and what it says is lost on the way to Zipkin is."""

import json
import re
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from backends import BACKENDS, loki, running
from bakery import Bakery
from collector import Collector, attributes, span
from e2e.apis import Span
from e2e.poll import poll_until
from e2e.tables import EDGES, KINDS, LINKS, ORDERS
from ports import free_ports
from tools import tool

# All services of the project over an embedded broker. It places an order, says which trace that is,
# and goes on until its standard input ends.
FLOW = """
import json, os, sys
from pathlib import Path

import httpx

from faststream_otel.dev.local import Local
from faststream_otel.dev.project import Project
from faststream_otel.dev.supervisor import Command, Supervisor, service_ports
from faststream_otel.kafka.embedded import embedded_kafka

port, log, order = int(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
project = Project.here()
ports = service_ports(project.services, port, project.entrance_port)
with embedded_kafka() as broker, log.open("w") as output:
    commands = [
        Command(name, project.package, [name],
                os.environ | {"BROKER_URL": broker, "PORT": str(ports[name])})
        for name in project.services
    ]
    with Supervisor(commands, output, print, Path.cwd()) as supervisor:
        urls = {name: f"http://127.0.0.1:{ports[name]}" for name in project.services}
        Local(None, supervisor, urls, log).wait_until_ready()
        answer = httpx.post(f"{urls[project.services[0]]}/orders", json=order, trust_env=False)
        print(answer.json()["trace_id"], flush=True)
        sys.stdin.read()
"""

SOON = {"OTEL_BSP_SCHEDULE_DELAY": "200", "OTEL_BLRP_SCHEDULE_DELAY": "200"}


class Document:
    def __init__(self, project: Path) -> None:
        self._text = (project / "docs/without-a-collector.md").read_text("utf-8")

    def variables(self, title: str) -> dict[str, str]:
        """Return what the section of this title has one set."""
        section = self._text.partition(f"## {title}\n")[2].partition("\n## ")[0]
        found = dict(re.findall(r"^    ([A-Z_]+)=(\S+)$", section, re.MULTILINE))
        assert found, f"no variables below {title!r}"
        return found


@contextmanager
def order_placed(
    project: Path, log: Path, bakery: Bakery, variables: dict[str, str]
) -> Iterator[str]:
    """Run the services, place an order, and return its trace id; they are stopped in good order."""
    script = project / "flow.py"
    script.write_text(FLOW)
    (port,) = free_ports(1)
    order = {"sku": "keyboard", "quantity": 1, "currency": "EUR", **ORDERS["good"]}
    with subprocess.Popen(
        ["uv", "run", "--quiet", "python", script.name, str(port), str(log), json.dumps(order)],
        cwd=project,
        env=bakery.environment() | SOON | variables,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    ) as running:
        assert running.stdin
        assert running.stdout
        try:
            said = running.stdout.readline().strip()
            assert re.fullmatch("[0-9a-f]{32}", said), said + running.stdout.read()
            yield said
        finally:
            running.stdin.close()
            running.wait(60)
    assert running.returncode == 0


def at(variables: dict[str, str], host: str, ports: dict[int, int]) -> dict[str, str]:
    """The same variables for a backend on other ports of 127.0.0.1."""
    for known, port in ports.items():
        variables = {
            name: value.replace(f"//{host}:{known}", f"//127.0.0.1:{port}")
            for name, value in variables.items()
        }
    assert all(host not in value for value in variables.values()), variables
    return variables


def label(span: Span) -> str:
    return f"{span.service}: {span.name}"


def edges(spans: list[Span]) -> Counter[tuple[str, str]]:
    by_id = {span.span_id: span for span in spans}
    return Counter(
        (label(by_id[span.parent_id]) if span.parent_id in by_id else "missing", label(span))
        for span in spans
        if span.parent_id
    )


@pytest.mark.parametrize("protocol", ["gRPC", "HTTP"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_an_order_goes_straight_to_the_trace_store(
    backend: str, protocol: str, default_project: Path, bakery: Bakery, tmp_path: Path
) -> None:
    with BACKENDS[backend](default_project, tmp_path) as store:
        variables = at(
            Document(default_project).variables(f"Traces over {protocol}"),
            "tempo", {4317: store.grpc, 4318: store.http},
        )  # fmt: skip
        log = tmp_path / "services.log"
        with order_placed(default_project, log, bakery, variables) as trace_id:

            def whole() -> list[Span] | None:
                spans = store.traces.trace(trace_id)
                return spans if edges(spans) == Counter(EDGES["good"]) else None

            spans = poll_until(whole, f"the order's trace in {backend}", 30)
            cause, effect = LINKS["good"]
            (sent,) = (span for span in spans if label(span) == cause)

            def linked() -> list[Span]:
                return [
                    span
                    for other in store.traces.traces_linked_to(trace_id)
                    for span in store.traces.trace(other)
                    if (trace_id, sent.span_id) in span.links
                ]

            batch = poll_until(linked, f"the batch that links to it in {backend}", 30)
    assert [label(span) for span in spans if not span.parent_id] == ["orders: POST /orders"]
    assert {label(span) for span in batch} == {effect}
    for one in [*spans, *batch]:
        assert one.kind == KINDS.get(one.name.split()[0], "INTERNAL"), label(one)
    # Nothing is sent to where nobody takes it.
    assert "cannot be exported" not in log.read_text()


def test_log_records_go_straight_to_loki(
    default_project: Path, bakery: Bakery, tmp_path: Path
) -> None:
    with loki(default_project, tmp_path) as logs:
        variables = at(
            Document(default_project).variables("Log records"),
            "loki", {3100: int(logs.url.rpartition(":")[2])},
        )  # fmt: skip
        others = {"OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none"}
        log = tmp_path / "services.log"
        with order_placed(default_project, log, bakery, variables | others) as trace_id:
            for service in ("orders", "payments", "shipping"):
                records = partial(logs.records, service, trace_id)
                poll_until(records, f"what {service} says of the order", 30)
    assert "cannot be exported" not in log.read_text()


ZIPKIN = {
    "receivers": {"otlp": {"protocols": {"http": {"endpoint": "{otlp}"}}}},
    "exporters": {"zipkin": {"endpoint": "http://{zipkin}/api/v2/spans"}},
    "extensions": {"health_check": {"endpoint": "{health}"}},
    "service": {
        "extensions": ["health_check"],
        "pipelines": {"traces": {"receivers": ["otlp"], "exporters": ["zipkin"]}},
        "telemetry": {"metrics": {"level": "none"}},
    },
}
"""The Collector with nothing but its exporter for Zipkin."""

CAUSE = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")
SENT = span(
    kind=1,
    parentSpanId="00f067aa0ba902b7",
    startTimeUnixNano="1700000000123456789",
    endTimeUnixNano="1700000001123456789",
    attributes=[
        {"key": "count", "value": {"intValue": "3"}},
        {"key": "text", "value": {"stringValue": "a" * 1000}},
    ],
    events=[
        {
            "timeUnixNano": "1700000000223456789",
            "name": "exception",
            "attributes": attributes({"exception.message": "no"}),
        }
    ],
    links=[{"traceId": CAUSE[0], "spanId": CAUSE[1]}],
    status={"code": 2, "message": "LookupError: no"},
)


@pytest.fixture
def zipkins() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """What listens as Zipkin does: its address, and the spans that it was sent."""
    received: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.extend(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(202)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}", received
        server.shutdown()


def test_what_becomes_of_a_span_on_the_way_to_zipkin(
    zipkins: tuple[str, list[dict[str, Any]]], tmp_path: Path
) -> None:
    program = tool("otelcol-contrib", "what is lost on the way to Zipkin")
    address, received = zipkins
    otlp, health = (f"127.0.0.1:{port}" for port in free_ports(2))
    text = json.dumps(ZIPKIN)
    for place, filled in {"{otlp}": otlp, "{health}": health, "{zipkin}": address}.items():
        text = text.replace(place, filled)
    config = tmp_path / "collector.yaml"
    config.write_text(text)
    with running([program, f"--config={config}"], tmp_path / "output", f"http://{health}"):
        sender = Collector("", f"http://{otlp}", tmp_path)
        sender.send_spans([SENT], **{"service.name": "payments", "host": "h"})
        (one,) = poll_until(lambda: received, "the span in Zipkin's form", 30)

    assert (one["traceId"], one["id"]) == (SENT["traceId"], SENT["spanId"])
    assert one["parentId"] == SENT["parentSpanId"]
    assert one["localEndpoint"]["serviceName"] == "payments"
    assert "kind" not in one
    assert "links" not in one
    assert (one["timestamp"], one["duration"]) == (1700000000123457, 1000000)
    tags = one["tags"]
    assert tags["otlp.link.0"].startswith("|".join(CAUSE))
    assert tags["span.kind"] == "internal"
    assert tags["count"] == "3"
    assert tags["text"] == "a" * 1000
    assert tags["host"] == "h"
    assert tags["otel.status_code"].endswith("ERROR")
    assert tags["otel.status_description"] == "LookupError: no"
    assert tags["error"] == "true"
    (annotation,) = one["annotations"]
    assert annotation["value"].startswith('exception|{"exception.message":"no"}')
