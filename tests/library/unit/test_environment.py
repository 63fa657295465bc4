"""Each standard `OTEL_*` variable works as OpenTelemetry's specification says."""

import logging
import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args
from unittest.mock import patch

import grpc
import pytest
import trustme
from faststream_otel.dev.receiver import OtlpReceiver, Tls
from faststream_otel.telemetry import Telemetry, exporters
from faststream_otel.telemetry.environment import (
    BadVariable,
    Signal,
    environment_warnings,
    otlp_timeout,
    prepare_environment,
)
from faststream_otel.telemetry.exporters import Delivery, make_exporter
from hypothesis import given
from hypothesis.strategies import characters, sampled_from, text
from opentelemetry import propagate

from ..ports import free_port

SIGNALS = ("TRACES", "METRICS", "LOGS")


@pytest.fixture(autouse=True)
def no_telemetry_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for signal in SIGNALS:
        monkeypatch.delenv(f"OTEL_{signal}_EXPORTER", raising=False)


@pytest.fixture(scope="module")
def receiver() -> Iterator[OtlpReceiver]:
    with OtlpReceiver() as sink:
        yield sink


@pytest.fixture
def sink(receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch) -> OtlpReceiver:
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
    """Emit a span, a log record and metrics, and export them."""
    with made.tracer_provider.get_tracer("test").start_as_current_span("span"):
        logging.getLogger("test").warning("record")
    made.close()


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_each_protocol_exports_all_signals(
    sink: OtlpReceiver, monkeypatch: pytest.MonkeyPatch, protocol: str
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
def test_a_signals_own_variables_have_precedence(
    sink: OtlpReceiver, monkeypatch: pytest.MonkeyPatch, signal: str
) -> None:
    path = f"/v1/{signal.lower()}"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL", "http/protobuf")
    # The specification: a signal's own endpoint includes the path.
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


def test_headers_and_compression(sink: OtlpReceiver, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_service_name_and_resource(sink: OtlpReceiver, monkeypatch: pytest.MonkeyPatch) -> None:
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
    sink: OtlpReceiver,
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
    sink: OtlpReceiver, monkeypatch: pytest.MonkeyPatch, signal: str
) -> None:
    monkeypatch.setenv(f"OTEL_{signal}_EXPORTER", "none")
    with telemetry() as made:
        emit_all(made)

    assert {export.signal.upper() for export in sink.exports} == set(SIGNALS) - {signal}


@pytest.mark.parametrize("value", ["otlp,console", " Console , otlp, otlp"])
def test_a_list_of_exporters(
    sink: OtlpReceiver, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    for signal in SIGNALS:
        monkeypatch.setenv(f"OTEL_{signal}_EXPORTER", value)
    script = f"from {__name__} import emit_all, Telemetry; emit_all(Telemetry('tested'))"
    printed = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    ).stdout
    assert printed.count('"name": "span"') == 1
    assert printed.count('"body": "record"') == 1
    assert "process.cpu.time" in printed
    assert [span.name for span in sink.spans] == ["span"]
    assert [record.body for record in sink.logs].count("record") == 1
    assert "process.cpu.time" in {point.name for point in sink.metrics}


def test_console(monkeypatch: pytest.MonkeyPatch) -> None:
    for signal in SIGNALS:
        monkeypatch.setenv(f"OTEL_{signal}_EXPORTER", "console")
    # In a new process: the console exporters keep the stdout of their import.
    script = f"from {__name__} import emit_all, Telemetry; emit_all(Telemetry('tested'))"
    printed = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    ).stdout
    assert '"name": "span"' in printed
    assert '"body": "record"' in printed
    assert "process.cpu.time" in printed


def test_sdk_disabled(sink: OtlpReceiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    with telemetry() as made:
        emit_all(made)

    assert sink.exports == []


def test_batch_span_processor(sink: OtlpReceiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "7")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "60000")
    with telemetry() as made:
        for _ in range(20):
            made.tracer_provider.get_tracer("test").start_span("span").end()
        made.close()

    sizes = [export.items for export in sink.exports if export.signal == "traces"]
    assert sum(sizes) == 20
    assert max(sizes) == 7


def test_batch_log_record_processor(sink: OtlpReceiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BLRP_MAX_EXPORT_BATCH_SIZE", "7")
    monkeypatch.setenv("OTEL_BLRP_SCHEDULE_DELAY", "60000")
    with telemetry() as made:
        for _ in range(20):
            logging.getLogger("test").warning("record")
        made.close()

    sizes = [export.items for export in sink.exports if export.signal == "logs"]
    assert sum(sizes) == 20
    assert max(sizes) == 7


def encodable(value: str) -> bool:
    """Whether an environment variable can hold this text."""
    try:
        os.fsencode(value)
    except UnicodeEncodeError:
        return False
    return True


REFUSED = [
    ("OTEL_TRACES_EXPORTER", "jaeger", "otlp"),
    ("OTEL_TRACES_EXPORTER", "otlp,jaeger", "otlp"),
    ("OTEL_METRICS_EXPORTER", "prometheus", "otlp"),
    ("OTEL_LOGS_EXPORTER", "none,otlp", "otlp"),
    ("OTEL_LOGS_EXPORTER", ",", "otlp"),
    ("OTEL_PROPAGATORS", "tracecontext,b4", "tracecontext,baggage"),
    ("OTEL_PROPAGATORS", "none,baggage", "tracecontext,baggage"),
    ("OTEL_PROPAGATORS", "jaeger", "tracecontext,baggage"),
    ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json", "grpc"),
    ("OTEL_EXPORTER_OTLP_LOGS_PROTOCOL", "http", "grpc"),
    ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd", "gzip"),
    ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s", "10000"),
    ("OTEL_EXPORTER_OTLP_TIMEOUT", "-1", "10000"),
    ("OTEL_EXPORTER_OTLP_TIMEOUT", "inf", "10000"),
    ("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "nan", "10000"),
    ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "1e300", "10000"),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://the collector:4317", "http://otel-collector:4317"),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "ftp://collector:4317", "http://otel-collector:4317"),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:431799", "http://otel-collector:4317"),
    ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://", "http://otel-collector:4317"),
    ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/no/such/file.pem", "/certificates/ca.pem"),
    ("OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", "/", "/certificates/ca.pem"),
    ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "gamma", "cumulative"),
    ("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", "x", "explicit_bucket_histogram"),
    ("OTEL_METRICS_EXEMPLAR_FILTER", "some", "trace_based"),
    ("OTEL_METRIC_EXPORT_INTERVAL", "15s", "15000"),
    ("OTEL_METRIC_EXPORT_INTERVAL", "0", "15000"),
    ("OTEL_METRIC_EXPORT_TIMEOUT", "-30000", "30000"),
    ("OTEL_BSP_SCHEDULE_DELAY", "0", "5000"),
    ("OTEL_BSP_SCHEDULE_DELAY", "0.5", "5000"),
    ("OTEL_BSP_MAX_QUEUE_SIZE", "many", "2048"),
    ("OTEL_BSP_MAX_QUEUE_SIZE", "99999999999999999999", "2048"),
    ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "70000", "512"),
    ("OTEL_BSP_EXPORT_TIMEOUT", "soon", "30000"),
    ("OTEL_BLRP_SCHEDULE_DELAY", "-5", "1000"),
    ("OTEL_BLRP_MAX_QUEUE_SIZE", "0", "2048"),
    ("OTEL_BLRP_MAX_EXPORT_BATCH_SIZE", "0", "512"),
    ("OTEL_ATTRIBUTE_COUNT_LIMIT", "-1", "128"),
    ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "few", "128"),
    ("OTEL_LOGRECORD_ATTRIBUTE_VALUE_LENGTH_LIMIT", "1k", "128"),
    ("OTEL_LOG_LEVEL", "loud", "info"),
]


@pytest.mark.parametrize(("variable", "value", "good"), REFUSED)
def test_an_error_names_the_bad_value_and_a_good_one(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, good: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ValueError, match=variable) as raised:
        Telemetry("tested", make_global=False)
    assert value in str(raised.value)
    assert f"{variable}={good}" in str(raised.value)


@given(
    variable=sampled_from(sorted({variable for variable, _, _ in REFUSED})),
    value=text(characters(exclude_characters="\0", exclude_categories=())).filter(encodable),
)
def test_any_value_is_accepted_or_refused(variable: str, value: str) -> None:
    with patch.dict(os.environ, {variable: value}):
        try:
            prepare_environment()
            assert all(otlp_timeout(signal) > 0 for signal in get_args(Signal))
            environment_warnings()
        except BadVariable as bad:
            assert str(bad).startswith(variable)  # noqa: PT017


@pytest.mark.parametrize("value", ["token", "a=1,=2", "key=b\u00e4r", "key=a;b", "key=a%0Ab"])
def test_malformed_headers_are_refused_and_not_quoted(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    """Headers contain credentials."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", value)
    with pytest.raises(ValueError, match="OTEL_EXPORTER_OTLP_HEADERS") as raised:
        Telemetry("tested", make_global=False)
    assert value not in str(raised.value)
    assert "OTEL_EXPORTER_OTLP_HEADERS=api-key=" in str(raised.value)


def test_over_http_an_endpoint_needs_a_scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over gRPC `otel-collector:4317` is valid too; the specification says that it uses TLS."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "otel-collector:4317")
    prepare_environment()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    with pytest.raises(ValueError, match="OTEL_EXPORTER_OTLP_ENDPOINT=http://otel-collector:4318"):
        Telemetry("tested", make_global=False)


@pytest.mark.parametrize(
    "endpoint",
    ["http://user:hunter2@host:port", "http://user:a/hunter2@host:4317", "user:a hunter2@host",
     "http://user:a@hunter2@host:port"],
)  # fmt: skip
def test_a_password_in_an_endpoint_is_not_quoted(
    endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
    with pytest.raises(ValueError, match="OTEL_EXPORTER_OTLP_ENDPOINT") as raised:
        Telemetry("tested", make_global=False)
    assert "hunter2" not in str(raised.value)


def test_bytes_that_are_not_utf8_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", os.fsdecode(b"http://\xff:4317"))
    with pytest.raises(ValueError, match="OTEL_EXPORTER_OTLP_ENDPOINT is not UTF-8 text"):
        Telemetry("tested", make_global=False)


@pytest.mark.parametrize("value", ["", "  "])
def test_an_empty_value_is_not_set(
    sink: OtlpReceiver,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    value: str,
) -> None:
    endpoint = os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"]
    for name in [
        *(variable for variable, _, _ in REFUSED),
        "OTEL_SDK_DISABLED", "OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES",
        "OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_INSECURE",
        "OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG", "OTEL_SPAN_EVENT_COUNT_LIMIT",
    ]:  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f" {endpoint} ")
    with telemetry() as made:
        emit_all(made)
    assert {export.signal for export in sink.exports} == {"traces", "metrics", "logs"}
    assert {span.service for span in sink.spans} == {"tested"}
    assert [record.getMessage() for record in caplog.records] == ["record"]


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "10", "write OTEL_EXPORTER_OTLP_TIMEOUT=10000"),
        ("OTEL_EXPORTER_OTLP_LOGS_TIMEOUT", "0.9", "write OTEL_EXPORTER_OTLP_LOGS_TIMEOUT=1000"),
        ("OTEL_SDK_DISABLED", "yes", "taken as false; write OTEL_SDK_DISABLED=true"),
        ("OTEL_EXPORTER_OTLP_INSECURE", "1", "taken as false"),
        ("OTEL_CONFIG_FILE", "otel.yaml", "OTEL_CONFIG_FILE is not supported"),
        ("OTEL_TRACES_SAMPLER", "half", "recognize sampler half"),
        ("OTEL_RESOURCE_ATTRIBUTES", "team", "attribute pair team"),
    ],
)
def test_a_surprising_value_is_logged_once(
    sink: OtlpReceiver,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    variable: str,
    value: str,
    said: str,
) -> None:
    monkeypatch.setenv(variable, value)
    with telemetry() as made:
        emit_all(made)
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len([warning for warning in warnings if said in warning]) == 1
    assert {export.signal for export in sink.exports} == {"traces", "metrics", "logs"}


@pytest.mark.parametrize(
    ("argument", "expected"), [("half", 100), ("2", 100), ("-1", 100), ("nan", 100), ("0", 0)]
)
def test_a_bad_argument_of_a_sampler_is_ignored_with_a_warning(
    sink: OtlpReceiver,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    argument: str,
    expected: int,
) -> None:
    """See the specification, "General SDK Configuration"."""
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", argument)
    with telemetry() as made:
        for _ in range(100):
            made.tracer_provider.get_tracer("test").start_span("span").end()
    assert len(sink.spans) == expected
    assert ("TRACES_SAMPLER_ARG" in caplog.text) == (expected == 100)


@pytest.mark.parametrize(
    ("general", "own", "seconds"),
    [
        ("", "", 10.0),
        ("90000", "", 90.0),
        ("1000", "", 1.0),
        ("90", "", 90.0),
        ("2.5", "", 2.5),
        ("90000", "5000", 5.0),
    ],
)
@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_a_time_out_of_1000_or_more_is_milliseconds(
    monkeypatch: pytest.MonkeyPatch, protocol: str, general: str, own: str, seconds: float
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", general)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", own)
    prepare_environment()
    assert otlp_timeout("traces") == seconds


def test_a_time_out_of_zero_is_no_limit(
    sink: OtlpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0")
    with telemetry() as made:
        emit_all(made)
    assert {export.signal for export in sink.exports} == {"traces", "metrics", "logs"}


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
@pytest.mark.parametrize(("general", "own"), [("gzip", "none"), ("none", "GZIP")])
def test_compression_none(
    sink: OtlpReceiver, monkeypatch: pytest.MonkeyPatch, protocol: str, general: str, own: str
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
    endpoint = sink.grpc_endpoint if protocol == "grpc" else sink.http_endpoint
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", general)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_LOGS_COMPRESSION", own)
    with telemetry() as made:
        emit_all(made)
    assert {export.signal for export in sink.exports} == {"traces", "metrics", "logs"}
    header = "content-encoding"  # gRPC keeps its own to itself
    if protocol != "grpc":
        compressed = {e.signal: e.headers.get(header) == "gzip" for e in sink.exports}
        logs = own == "GZIP"
        assert compressed == {"logs": logs, "traces": not logs, "metrics": not logs}


def test_the_scheme_has_precedence_over_insecure(
    sink: OtlpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_INSECURE", "false")
    with telemetry() as made:
        emit_all(made)
    assert {export.signal for export in sink.exports} == {"traces", "metrics", "logs"}


def test_without_a_scheme_insecure_applies(
    sink: OtlpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_INSECURE", "true")
    address = sink.grpc_endpoint.removeprefix("http://")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
    with telemetry() as made:
        emit_all(made)
    assert {export.signal for export in sink.exports} == {"traces", "metrics", "logs"}


def test_a_queue_smaller_than_a_batch(sink: OtlpReceiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "100")
    monkeypatch.setenv("OTEL_BLRP_MAX_QUEUE_SIZE", "100")
    with telemetry() as made:
        emit_all(made)
    assert {export.signal for export in sink.exports} == {"traces", "metrics", "logs"}


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ("service.name = billing", {"service.name": "billing"}),
        ("peer.service.name=x", {"service.name": "tested", "peer.service.name": "x"}),
        ("service.name=", {"service.name": "tested"}),
        ("service.name=a,service.name=b", {"service.name": "b"}),
        ("service.name=a%2Cb%20c,team=x=y,", {"service.name": "a,b c", "team": "x=y"}),
        ("team,service.name=a", {"service.name": "a"}),
        ("service.name=unknown_service", {"service.name": "unknown_service"}),
        (" service.instance.id = 7 ", {"service.instance.id": "7"}),
    ],
)
def test_resource_attributes(
    sink: OtlpReceiver, monkeypatch: pytest.MonkeyPatch, attributes: str, expected: dict[str, str]
) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", attributes)
    with telemetry() as made:
        found = {key: made.resource.attributes.get(key) for key in expected}
    assert found == expected


def test_a_name_that_ends_like_the_instances_id_does_not_change_it(
    sink: OtlpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stays the same after a restart: a version 5 UUID, not the SDK's random one."""
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "peer.service.instance.id=7")
    with telemetry() as made:
        assert uuid.UUID(str(made.resource.attributes["service.instance.id"])).version == 5


def run_service(**variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "order_flow", "orders"],
        env=os.environ | variables, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OTEL_PROPAGATORS", "tracecontext,baggage,b3multi"),
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "few"),  # these two are read at import
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
    ],
)
def test_a_service_with_a_bad_value_ends_with_one_line(variable: str, value: str) -> None:
    ended = run_service(**{variable: value})
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"{variable}={value!r} ")
    assert ended.stdout == ""
    if "b3multi" in value:
        assert "opentelemetry-propagator-b3" in line


@pytest.mark.parametrize(
    ("value", "level"),
    [("", logging.CRITICAL), ("error", logging.CRITICAL), ("debug", logging.DEBUG)],
)
def test_log_level_applies_to_the_sdk(
    monkeypatch: pytest.MonkeyPatch, sink: OtlpReceiver, value: str, level: int
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


@pytest.mark.parametrize(("value", "logged"), [("", False), ("warn", False), ("info", True)])
def test_malformed_headers_of_messages_do_not_fill_the_log(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    sink: OtlpReceiver,
    value: str,
    logged: bool,
) -> None:
    monkeypatch.setenv("OTEL_LOG_LEVEL", value)
    with telemetry():
        before = len(caplog.records)
        for headers in HOSTILE:
            propagate.extract({"traceparent": f"00-{1:032x}-{1:016x}-01"} | headers)
        assert (len(caplog.records) > before) == logged


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_certificate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, protocol: str) -> None:
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):  # over HTTP, they have precedence
        monkeypatch.delenv(name, raising=False)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    pair = Tls(certificate=tmp_path / "server.pem", key=tmp_path / "server.pem")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "2000")
    with OtlpReceiver(tls=pair) as sink:
        endpoint = sink.grpc_endpoint if protocol == "grpc" else sink.http_endpoint
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        with telemetry() as made:  # without the variable, the certificate is not trusted
            emit_all(made)
        assert sink.spans == []

        monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(tmp_path / "ca.pem"))
        with telemetry() as made:
            emit_all(made)
        assert {export.signal for export in sink.exports} == {"traces", "metrics", "logs"}


@pytest.mark.parametrize("own", ["CERTIFICATE", "CLIENT_CERTIFICATE CLIENT_KEY"])
def test_a_clients_certificate_over_grpc(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, own: str
) -> None:
    """General and per-signal variables may be mixed; the SDK itself does not support that."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    for name, identity in (("server", "127.0.0.1"), ("client", "client.example")):
        issued = authority.issue_cert(identity)
        issued.cert_chain_pems[0].write_to_path(tmp_path / f"{name}.pem")
        issued.private_key_pem.write_to_path(tmp_path / f"{name}.key")
    files = {
        "CERTIFICATE": "ca.pem",
        "CLIENT_CERTIFICATE": "client.pem",
        "CLIENT_KEY": "client.key",
    }
    for option, file in files.items():
        form = f"TRACES_{option}" if option in own.split() else option
        monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{form}", str(tmp_path / file))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "2000")
    key, chain, ca = (
        (tmp_path / name).read_bytes() for name in ("server.key", "server.pem", "ca.pem")
    )
    credentials = grpc.ssl_server_credentials([(key, chain)], ca, require_client_auth=True)
    with traces_server(lambda request, context: b"", credentials) as address:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"https://{address}")
        prepare_environment()
        exporter = make_exporter("traces", Delivery())
        assert exporter.export([]).name == "SUCCESS"
        exporter.shutdown()


@pytest.mark.parametrize(
    ("given", "missing"),
    [("CLIENT_KEY", "CLIENT_CERTIFICATE"), ("CLIENT_CERTIFICATE", "CLIENT_KEY")],
)
def test_a_clients_certificate_needs_its_key(
    monkeypatch: pytest.MonkeyPatch, given: str, missing: str
) -> None:
    monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{given}", __file__)
    with pytest.raises(ValueError, match=f"_{given} also needs OTEL_EXPORTER_OTLP_{missing}:"):
        prepare_environment()


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_timeout(monkeypatch: pytest.MonkeyPatch, protocol: str) -> None:
    """An export to a receiver that never answers ends at the time-out."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
    waited = []
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        for number in ("0.3", "1500"):  # seconds, as the SDK has them, and milliseconds
            monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", number)
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
        ("Baggage, baggage,", {"baggage"}),
        ("b3multi", {"b3"}),
        ("none", set()),
    ],
)
def test_propagators(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, chosen: str, fields: set[str]
) -> None:
    """In a new process: OpenTelemetry's API reads the variable once, at import."""
    installed = tmp_path / "stand_in-1.dist-info"  # as of the package that has b3multi
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: stand-in\nVersion: 1\n")
    (installed / "entry_points.txt").write_text("[opentelemetry_propagator]\nb3multi=stand_in:B3\n")
    (tmp_path / "stand_in.py").write_text("class B3:\n    fields = {'b3'}\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("OTEL_PROPAGATORS", chosen)
    script = (
        "from faststream_otel.telemetry import prepare_environment\n"
        "prepare_environment()\n"
        "from opentelemetry import propagate\n"
        "print(len(propagate.get_global_textmap()._propagators))\n"
        "print(*propagate.get_global_textmap().fields)"
    )
    printed = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    ).stdout.split()
    assert set(printed[1:]) == fields
    assert int(printed[0]) == len(set(chosen.lower().replace(",", " ").split()) - {"none"})


def test_propagators_are_tracecontext_and_baggage() -> None:
    assert propagate.get_global_textmap().fields == {"traceparent", "tracestate", "baggage"}


def test_an_unreachable_collector_is_logged_once(
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

    found = [record for record in caplog.records if record.levelno >= logging.WARNING]
    found = [record for record in found if record.getMessage() != "record"]
    found = [record for record in found if "is taken as" not in record.getMessage()]
    assert [record.name.rpartition(".")[2] for record in found] == ["exporters", "providers"]
    assert "OTEL_EXPORTER_OTLP_ENDPOINT" in found[0].getMessage()
    assert ": 1 spans and " in found[1].getMessage()  # not the five that were logged before


@pytest.fixture
def closed_port() -> int:
    return free_port()


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_an_export_retries_until_its_time_out(
    protocol: str, closed_port: int,
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """By itself, the exporter stops after about 3 of these 6 seconds: its next pause is longer."""
    monkeypatch.setattr(exporters, "RECONNECT_SECONDS", 0.5)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{closed_port}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "6000")
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "none")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
    with telemetry() as made:
        with made.tracer_provider.get_tracer("test").start_as_current_span("span"):
            pass
        time.sleep(4.3)
        grpc_port, http_port = (closed_port, 0) if protocol == "grpc" else (0, closed_port)
        with OtlpReceiver(grpc_port=grpc_port, http_port=http_port) as late:
            late.wait_for(lambda sink: sink.spans, "the span")
    assert "cannot be exported" not in caplog.text


def test_an_export_retries_while_the_collectors_name_is_unknown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Such as a stopped container's. By itself, the exporter stops after about 3 seconds."""
    monkeypatch.setattr(exporters, "RECONNECT_SECONDS", 0.5)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://otel-collector.invalid:4317")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "6000")
    exporter = make_exporter("traces", Delivery())
    assert exporter is not None
    started = time.monotonic()
    assert exporter.export([]).name == "FAILURE"
    assert time.monotonic() - started > 4.5
    exporter.shutdown()


def test_an_export_is_resent_while_the_collector_is_unavailable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The Collector's queue may be full. By itself, the exporter sends six times."""
    monkeypatch.setattr(exporters, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(exporters, "RECONNECT_SECONDS", 0.1)
    sent = []

    def export(request: bytes, context: grpc.ServicerContext) -> bytes:
        sent.append(request)
        if len(sent) <= 10:
            context.abort(grpc.StatusCode.UNAVAILABLE, "sending queue is full")
        return b""

    with traces_server(export) as address:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://{address}")
        exporter = make_exporter("traces", Delivery())
        assert exporter is not None
        assert exporter.export([]).name == "SUCCESS"
        assert len(sent) == 11
        exporter.shutdown()


@contextmanager
def traces_server(
    export: Callable[[bytes, grpc.ServicerContext], bytes],
    credentials: grpc.ServerCredentials | None = None,
) -> Iterator[str]:
    """Run a gRPC receiver of traces with this handler, and yield its address."""
    server = grpc.server(ThreadPoolExecutor(max_workers=1))
    method: Any = grpc.unary_unary_rpc_method_handler(export)
    service = "opentelemetry.proto.collector.trace.v1.TraceService"
    handler = grpc.method_handlers_generic_handler(service, {"Export": method})
    server.add_generic_rpc_handlers([handler])
    if credentials:
        port = server.add_secure_port("127.0.0.1:0", credentials)
    else:
        port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(grace=None)
