"""Each standard `OTEL_*` variable does what OpenTelemetry's specification says of it."""

import logging
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from opentelemetry import propagate

from {{ cookiecutter.package_name }}.telemetry import Telemetry, exporters
from {{ cookiecutter.package_name }}.telemetry.exporters import Delivery, make_exporter

from ..ports import free_port
from devtools.sink import OtlpSink, Tls

SIGNALS = ("TRACES", "METRICS", "LOGS")


@pytest.fixture(autouse=True)
def no_telemetry_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for signal in SIGNALS:
        monkeypatch.delenv(f"OTEL_{signal}_EXPORTER", raising=False)


@pytest.fixture(scope="module")
def receiver() -> Iterator[OtlpSink]:
    with OtlpSink() as sink:
        yield sink


@pytest.fixture
def sink(receiver: OtlpSink, monkeypatch: pytest.MonkeyPatch) -> OtlpSink:
    receiver.clear()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.grpc_endpoint)
    return receiver


@contextmanager
def telemetry(name: str = "tested") -> Iterator[Telemetry]:
    made = Telemetry(name, make_global=False)
    try:
        yield made
    finally:
        made.close()


def emit_all(made: Telemetry) -> None:
    """One of each signal, exported by the time this returns."""
    with made.tracer_provider.get_tracer("test").start_as_current_span("span"):
        logging.getLogger("test").warning("record")
    made.close()


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_protocol_carries_all_signals(
    sink: OtlpSink, monkeypatch: pytest.MonkeyPatch, protocol: str
) -> None:
    endpoint = sink.grpc_endpoint if protocol == "grpc" else sink.http_endpoint
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
    with telemetry() as made:
        emit_all(made)

    assert {export.protocol for export in sink.exports} == {protocol}
    (span,) = sink.spans
    (record,) = (record for record in sink.logs if record.body == "record")
    assert (record.trace_id, record.span_id) == (span.trace_id, span.span_id)
    assert {"process.cpu.time", "process.memory.usage"} <= {point.name for point in sink.metrics}
    assert any(point.name.startswith("otel.sdk.") for point in sink.metrics)
    assert sink.problems == []


@pytest.mark.parametrize("signal", SIGNALS)
def test_a_signals_own_variables_come_first(
    sink: OtlpSink, monkeypatch: pytest.MonkeyPatch, signal: str
) -> None:
    path = f"/v1/{signal.lower()}"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL", "http/protobuf")
    # Used as it stands, as the specification says: the path is the variable's own.
    monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT", sink.http_endpoint + path)
    monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{signal}_HEADERS", "x-own=1")
    with telemetry() as made:
        emit_all(made)

    protocols = {export.signal: export.protocol for export in sink.exports}
    assert protocols == {
        name.lower(): "http/protobuf" if name == signal else "grpc" for name in SIGNALS
    }
    own = [export for export in sink.exports if export.signal == signal.lower()]
    assert all(export.headers["x-own"] == "1" for export in own)


def test_headers_and_compression(sink: OtlpSink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", sink.http_endpoint)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "api-key=secret,x-team=orders")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
    with telemetry() as made:
        emit_all(made)

    assert {export.signal for export in sink.exports} == {"traces", "metrics", "logs"}
    for export in sink.exports:
        assert export.headers["api-key"] == "secret"
        assert export.headers["x-team"] == "orders"
        assert export.headers["content-encoding"] == "gzip"


def test_service_name_and_resource(sink: OtlpSink, monkeypatch: pytest.MonkeyPatch) -> None:
    with telemetry("from-code") as made:
        attributes = made.resource.attributes
        assert attributes["service.name"] == "from-code"
        assert uuid.UUID(str(attributes["service.instance.id"]))

    monkeypatch.setenv(
        "OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=here,service.name=a"
    )
    with telemetry("from-code") as made:
        assert made.resource.attributes["service.name"] == "a"
        assert made.resource.attributes["deployment.environment.name"] == "here"

    monkeypatch.setenv("OTEL_SERVICE_NAME", "from-variable")
    with telemetry("from-code") as made:
        assert made.resource.attributes["service.name"] == "from-variable"
        emit_all(made)
    assert {span.service for span in sink.spans} == {"from-variable"}


@pytest.mark.parametrize(
    ("sampler", "argument", "expected"),
    [
        ("always_off", "", range(1)),
        ("always_on", "", range(100, 101)),
        ("parentbased_traceidratio", "0.5", range(20, 81)),
    ],
)
def test_sampler(
    sink: OtlpSink,
    monkeypatch: pytest.MonkeyPatch,
    sampler: str,
    argument: str,
    expected: range,
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", sampler)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", argument)
    with telemetry() as made:
        for _ in range(100):
            made.tracer_provider.get_tracer("test").start_span("span").end()
        made.close()

    assert len(sink.spans) in expected


@pytest.mark.parametrize("signal", SIGNALS)
def test_none_switches_a_signal_off(
    sink: OtlpSink, monkeypatch: pytest.MonkeyPatch, signal: str
) -> None:
    monkeypatch.setenv(f"OTEL_{signal}_EXPORTER", "none")
    with telemetry() as made:
        emit_all(made)

    assert {export.signal.upper() for export in sink.exports} == set(SIGNALS) - {signal}


def test_console(monkeypatch: pytest.MonkeyPatch) -> None:
    for signal in SIGNALS:
        monkeypatch.setenv(f"OTEL_{signal}_EXPORTER", "console")
    # A process of its own: the console exporters keep the stdout that was there at import.
    script = f"from {__name__} import emit_all, Telemetry; emit_all(Telemetry('tested'))"
    printed = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    ).stdout
    assert '"name": "span"' in printed
    assert '"body": "record"' in printed
    assert "process.cpu.time" in printed


def test_sdk_disabled(sink: OtlpSink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    with telemetry() as made:
        emit_all(made)

    assert sink.exports == []


def test_batch_span_processor(sink: OtlpSink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "7")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "60000")
    with telemetry() as made:
        for _ in range(20):
            made.tracer_provider.get_tracer("test").start_span("span").end()
        made.close()

    sizes = [export.items for export in sink.exports if export.signal == "traces"]
    assert sum(sizes) == 20
    assert max(sizes) == 7


def test_batch_log_record_processor(sink: OtlpSink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BLRP_MAX_EXPORT_BATCH_SIZE", "7")
    monkeypatch.setenv("OTEL_BLRP_SCHEDULE_DELAY", "60000")
    with telemetry() as made:
        for _ in range(20):
            logging.getLogger("test").warning("record")
        made.close()

    sizes = [export.items for export in sink.exports if export.signal == "logs"]
    assert sum(sizes) == 20
    assert max(sizes) == 7


@pytest.mark.parametrize(
    ("variable", "value", "good"),
    [
        ("OTEL_TRACES_EXPORTER", "jaeger", "OTEL_TRACES_EXPORTER=otlp"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json", "OTEL_EXPORTER_OTLP_PROTOCOL=grpc"),
        ("OTEL_LOG_LEVEL", "loud", "OTEL_LOG_LEVEL=info"),
    ],
)
def test_a_bad_value_is_named_with_a_good_one(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, good: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ValueError, match=variable) as raised:
        Telemetry("tested", make_global=False)
    assert value in str(raised.value)
    assert good in str(raised.value)


@pytest.mark.parametrize(
    ("value", "level"),
    [("", logging.CRITICAL), ("error", logging.CRITICAL), ("debug", logging.DEBUG)],
)
def test_log_level_is_the_sdks_own(
    monkeypatch: pytest.MonkeyPatch, sink: OtlpSink, value: str, level: int
) -> None:
    monkeypatch.setenv("OTEL_LOG_LEVEL", value)
    with telemetry():
        assert logging.getLogger("opentelemetry.exporter").getEffectiveLevel() == level


HOSTILE = [
    {"baggage": "a=" + "b" * 10_000},
    {"baggage": ",".join(f"key{number}=value" for number in range(500))},
    {"baggage": "no pair, \x01=\x02, =, caf\u00e9=1"},
    {"tracestate": "rubbish,=,A=b"},
    {"traceparent": f"00-{1:032x}-{1:016x}-01-" + "a" * 10_000},
]


@pytest.mark.parametrize(("value", "told"), [("", False), ("warn", False), ("info", True)])
def test_a_strangers_headers_do_not_fill_the_log(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    sink: OtlpSink,
    value: str,
    told: bool,
) -> None:
    monkeypatch.setenv("OTEL_LOG_LEVEL", value)
    with telemetry():
        for headers in HOSTILE:
            before = len(caplog.records)
            propagate.extract({"traceparent": f"00-{1:032x}-{1:016x}-01"} | headers)
            assert (len(caplog.records) > before) == told, headers


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_certificate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, protocol: str) -> None:
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):  # over HTTP, they come first
        monkeypatch.delenv(name, raising=False)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    pair = Tls(certificate=tmp_path / "server.pem", key=tmp_path / "server.pem")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "2")
    with OtlpSink(tls=pair) as sink:
        endpoint = sink.grpc_endpoint if protocol == "grpc" else sink.http_endpoint
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        with telemetry() as made:  # not trusted without the variable
            emit_all(made)
        assert sink.spans == []

        monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(tmp_path / "ca.pem"))
        with telemetry() as made:
            emit_all(made)
        assert {export.signal for export in sink.exports} == {"traces", "metrics", "logs"}


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_timeout(monkeypatch: pytest.MonkeyPatch, protocol: str) -> None:
    """A receiver that accepts and never answers holds an export for the time-out, not for ever."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
    waited = []
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        for seconds in (0.3, 1.5):
            monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", str(seconds))
            exporter = make_exporter("traces", Delivery())
            assert exporter is not None
            started = time.monotonic()
            assert exporter.export([]).name == "FAILURE"
            waited.append(time.monotonic() - started)
            exporter.shutdown()
    assert waited[1] > 2 * waited[0]


@pytest.mark.parametrize(
    ("chosen", "fields"),
    [
        ("tracecontext", {"traceparent", "tracestate"}),
        ("baggage", {"baggage"}),
        ("baggage,tracecontext", {"traceparent", "tracestate", "baggage"}),
    ],
)
def test_propagators(monkeypatch: pytest.MonkeyPatch, chosen: str, fields: set[str]) -> None:
    """Read once, when OpenTelemetry's API is imported: in a process of its own."""
    monkeypatch.setenv("OTEL_PROPAGATORS", chosen)
    script = "from opentelemetry import propagate; print(*propagate.get_global_textmap().fields)"
    printed = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    ).stdout
    assert set(printed.split()) == fields


def test_propagators_are_tracecontext_and_baggage() -> None:
    assert propagate.get_global_textmap().fields == {"traceparent", "tracestate", "baggage"}


def test_an_absent_collector_is_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, closed_port: int
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{closed_port}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.2")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    with telemetry() as made:
        for _ in range(5):
            made.tracer_provider.get_tracer("test").start_span("span").end()
            made.tracer_provider.force_flush()
        emit_all(made)

    told = [record for record in caplog.records if record.levelno >= logging.WARNING]
    told = [record for record in told if record.getMessage() != "record"]
    assert [record.name.rpartition(".")[2] for record in told] == ["exporters", "providers"]
    assert "OTEL_EXPORTER_OTLP_ENDPOINT" in told[0].getMessage()
    assert ": 1 spans and " in told[1].getMessage()  # not the five before, which were counted


@pytest.fixture
def closed_port() -> int:
    return free_port()


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_an_export_waits_for_the_collector_until_its_time_out(
    protocol: str, closed_port: int,
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """The exporter alone gives up after some 3 of these 6 seconds, as its next pause is longer."""
    monkeypatch.setattr(exporters, "RECONNECT_SECONDS", 0.5)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{closed_port}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "6")
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "none")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
    with telemetry() as made:
        with made.tracer_provider.get_tracer("test").start_as_current_span("span"):
            pass
        time.sleep(4.3)
        grpc_port, http_port = (closed_port, 0) if protocol == "grpc" else (0, closed_port)
        with OtlpSink(grpc_port=grpc_port, http_port=http_port) as late:
            late.wait_for(lambda sink: sink.spans, "the span")
    assert "cannot be exported" not in caplog.text


def test_an_export_waits_for_a_collector_whose_name_is_not_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As that of a container that is away. The exporter alone gives up after some 3 seconds."""
    monkeypatch.setattr(exporters, "RECONNECT_SECONDS", 0.5)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://otel-collector.invalid:4317")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "6")
    exporter = make_exporter("traces", Delivery())
    assert exporter is not None
    started = time.monotonic()
    assert exporter.export([]).name == "FAILURE"
    assert time.monotonic() - started > 4.5
    exporter.shutdown()


def test_an_export_is_sent_again_while_the_collector_refuses_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its queue may be full for long. The exporter alone sends six times."""
    monkeypatch.setattr(exporters, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(exporters, "RECONNECT_SECONDS", 0.1)
    sent = []

    def export(request: bytes, context: grpc.ServicerContext) -> bytes:
        sent.append(request)
        if len(sent) <= 10:
            context.abort(grpc.StatusCode.UNAVAILABLE, "sending queue is full")
        return b""

    server = grpc.server(ThreadPoolExecutor(max_workers=1))
    method: Any = grpc.unary_unary_rpc_method_handler(export)
    service = "opentelemetry.proto.collector.trace.v1.TraceService"
    handler = grpc.method_handlers_generic_handler(service, {"Export": method})
    server.add_generic_rpc_handlers([handler])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
        exporter = make_exporter("traces", Delivery())
        assert exporter is not None
        assert exporter.export([]).name == "SUCCESS"
        assert len(sent) == 11
        exporter.shutdown()
    finally:
        server.stop(grace=None)
