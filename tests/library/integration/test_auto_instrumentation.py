"""`opentelemetry-instrument` around services: each span and each log record arrives once."""

import sys
from collections import Counter
from pathlib import Path

from faststream_otel.dev.receiver import OtlpReceiver

from .conftest import PACKAGE, Start
from .test_flow import order

COMMAND = str(Path(sys.executable).with_name("opentelemetry-instrument"))


def test_each_span_and_each_record_arrives_once(sink: OtlpReceiver, start: Start) -> None:
    services = ("orders", "payments")
    settings = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": sink.grpc_endpoint,
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "OTEL_BLRP_SCHEDULE_DELAY": "100",
        "OTEL_METRIC_EXPORT_INTERVAL": "500",
        "RETRY_BACKOFF_SECONDS": "0.01",
        "RETRY_ATTEMPTS": "2",
    }
    processes = [
        start(COMMAND, sys.executable, "-m", PACKAGE, name, **settings) for name in services
    ]
    for process in processes:
        process.wait_ready()
    good, failing = order(processes[0]), order(processes[0], country="AQ")
    sink.wait_for(lambda sink: len(sink.trace(good)) >= 5, "the good order's spans", 20)
    sink.wait_for(
        lambda sink: any(span.name == "process orders.placed" for span in sink.trace(failing)),
        "the span of the failing order",
        20,
    )
    for process in processes:
        assert process.stop() == 0, process.output.read_text()

    spans = Counter((span.service, span.name) for span in sink.trace(good))
    assert spans == Counter(
        [
            ("orders", "POST /orders"),
            ("orders", "send orders.placed"),
            ("payments", "process orders.placed"),
            ("payments", "authorize card"),
            ("payments", "send payments.authorized"),
        ]
    )
    assert {span.service for span in sink.spans} == set(services)
    assert {record.service for record in sink.logs} == set(services)
    assert {point.service for point in sink.metrics} == set(services)
    records = Counter(
        (record.service, record.body, record.time_ns) for record in sink.logs if record.trace_id
    )
    assert records
    assert set(records.values()) == {1}
    assert len({span.resource["service.instance.id"] for span in sink.spans}) == len(services)
    for process in processes:
        output = process.output.read_text()
        assert output.count("Using the providers that opentelemetry-instrument") == 1
        assert output.count("Replaced the handler that opentelemetry-instrument added") == 1
        assert "not allowed" not in output
