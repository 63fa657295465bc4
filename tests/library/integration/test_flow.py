"""The whole flow: four processes, a broker on TCP, and their telemetry over OTLP."""

import json
import urllib.request
from typing import Any

from faststream_otel.dev.otlp import Span
from faststream_otel.dev.receiver import OtlpReceiver

from .conftest import PACKAGE, Process, Start

# Each signal leaves over both protocols, whichever way a trace goes.
PROTOCOLS = {
    "orders": "grpc",
    "payments": "http/protobuf",
    "shipping": "grpc",
    "notifications": "http/protobuf",
}

# (service, span) -> (service, span): the first is the parent of the second.
EDGES = [
    (("orders", "POST /orders"), ("orders", "send orders.placed")),
    (("orders", "send orders.placed"), ("payments", "process orders.placed")),
    (("payments", "process orders.placed"), ("payments", "authorize card")),
    (("payments", "process orders.placed"), ("payments", "send payments.authorized")),
    (("payments", "send payments.authorized"), ("shipping", "process payments.authorized")),
    (("shipping", "process payments.authorized"), ("shipping", "send shipments.dispatched")),
]


def order(process: Process, **fields: Any) -> str:
    """Place an order and return its trace id."""
    body = {"sku": "keyboard", "amount_cents": 12900, "country": "FI", **fields}
    request = urllib.request.Request(
        f"http://127.0.0.1:{process.port}/orders",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        trace_id: str = json.load(answer)["trace_id"]
    return trace_id


def find(spans: list[Span], service: str, name: str) -> Span | None:
    return next((span for span in spans if (span.service, span.name) == (service, name)), None)


def test_orders_arrive_whole(sink: OtlpReceiver, start: Start) -> None:
    endpoints = {"grpc": sink.grpc_endpoint, "http/protobuf": sink.http_endpoint}
    processes = {
        name: start(
            "-m", PACKAGE, name,
            OTEL_EXPORTER_OTLP_ENDPOINT=endpoints[protocol],
            OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
            OTEL_BSP_SCHEDULE_DELAY="100",
            OTEL_BLRP_SCHEDULE_DELAY="100",
            RETRY_BACKOFF_SECONDS="0.01",
        )
        for name, protocol in PROTOCOLS.items()
    }  # fmt: skip
    for process in processes.values():
        process.wait_ready()

    good = order(processes["orders"])
    declined = order(processes["orders"], amount_cents=100_001)
    failing = order(processes["orders"], country="AQ")

    sink.wait_for(lambda sink: len(sink.trace(good)) >= 7, "the good order's 7 spans", 20)
    spans = sink.trace(good)
    for parent, child in EDGES:
        found = find(spans, *child)
        origin = find(spans, *parent)
        assert found, f"{child} is missing: {sink.summary()}"
        assert origin, f"{parent} is missing: {sink.summary()}"
        assert found.parent_id == origin.span_id, f"{child} does not hang off {parent}"

    sent = find(spans, "shipping", "send shipments.dispatched")
    assert sent
    batch = sink.wait_for(
        lambda sink: [
            span
            for span in sink.spans
            if span.name == "process shipments.dispatched"
            and sent.span_id in {link.span_id for link in span.links}
        ],
        "the batch that links to the shipment",
        20,
    )
    assert [(span.service, span.parent_id) for span in batch] == [("notifications", None)]

    sink.wait_for(
        lambda sink: find(sink.trace(declined), "payments", "send payments.declined"),
        "the declined payment",
        20,
    )
    assert not [span for span in sink.trace(declined) if span.status == "ERROR"]

    sink.wait_for(
        lambda sink: find(sink.trace(failing), "shipping", "process payments.authorized"),
        "the failing order's end",
        20,
    )
    names = [span.name for span in sink.trace(failing) if span.service == "shipping"]
    assert names.count("retry payments.authorized") == 2
    assert names.count("send dead-letters") == 1
    failed = find(sink.trace(failing), "shipping", "process payments.authorized")
    assert failed
    assert failed.status == "ERROR"

    logged = sink.wait_for(
        lambda sink: {record.service for record in sink.logs if record.trace_id == good} >= {
            "orders", "payments", "shipping"},
        "log records of the good order from three services",
        20,
    )  # fmt: skip
    assert logged

    for process in processes.values():
        assert process.stop() == 0
    assert {"process.cpu.time"} <= {point.name for point in sink.metrics}
    assert {point.service for point in sink.metrics} == set(PROTOCOLS)
    assert sink.problems == []
