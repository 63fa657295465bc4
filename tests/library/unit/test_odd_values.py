"""Any value in any field of telemetry is exported, and loses no other telemetry."""

import http
import json
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import pytest
from faststream_otel.dev.receiver import OtlpReceiver
from faststream_otel.telemetry import Telemetry
from faststream_otel.telemetry.prometheus import ServiceRegistry
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from opentelemetry._logs import LogRecord
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.resources import Resource
from opentelemetry.trace import (
    Link,
    SpanContext,
    Status,
    StatusCode,
    TraceFlags,
)
from prometheus_client import Counter, generate_latest

HALF = "half \udc80 of a pair"
SPECIAL: dict[str, Any] = {
    "circular": [1], "deep": [], "wide": {str(n): [n] for n in range(50)}, "set": {"a"},
    "enum": http.HTTPStatus.OK, "huge": 10**5000, "decimal": Decimal("1.5"), "object": object(),
    "keys": {1: "a", None: "b", HALF: HALF},
}  # fmt: skip
SPECIAL["circular"].append(SPECIAL["circular"])
for _ in range(200):
    SPECIAL["deep"] = [SPECIAL["deep"]]
TEXTS = st.text(st.characters(), min_size=1, max_size=10)  # including lone surrogates
PLAIN = (
    TEXTS | st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats()
    | st.binary(max_size=5) | st.sampled_from([HALF, 2**63, -(2**63) - 1, math.nan, math.inf])
)  # fmt: skip
NESTED = st.lists(PLAIN, max_size=2) | st.dictionaries(TEXTS, PLAIN, max_size=2)
VALUES = PLAIN | NESTED | st.sampled_from(sorted(SPECIAL)).map(lambda name: SPECIAL[name])


@pytest.fixture(scope="module")
def sink() -> Iterator[OtlpReceiver]:
    with OtlpReceiver() as found:
        yield found


@contextmanager
def exporting(sink: OtlpReceiver, protocol: str, **variables: str) -> Iterator[Telemetry]:
    endpoint = sink.grpc_endpoint if protocol == "grpc" else sink.http_endpoint
    with pytest.MonkeyPatch.context() as patch:
        for signal in ("TRACES", "METRICS", "LOGS"):
            patch.setenv(f"OTEL_{signal}_EXPORTER", "otlp")
        patch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        for name, value in variables.items():
            patch.setenv(name, value)
        telemetry = Telemetry("tested", make_global=False)
        try:
            yield telemetry
        finally:
            telemetry.close()


@pytest.fixture(scope="module", params=["grpc", "http/protobuf"], ids=["grpc", "http"])
def telemetry(request: pytest.FixtureRequest, sink: OtlpReceiver) -> Iterator[Telemetry]:
    with exporting(sink, request.param) as found:
        yield found


def flush(telemetry: Telemetry) -> None:
    telemetry.tracer_provider.force_flush()
    telemetry.logger_provider.force_flush()


FEW = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
CAUSE = SpanContext(1, 1, is_remote=True, trace_flags=TraceFlags(1))


@given(name=TEXTS, key=TEXTS, value=VALUES, description=TEXTS, scope=TEXTS)
@example(HALF, HALF, HALF, HALF, HALF)
@FEW
def test_spans(
    telemetry: Telemetry, sink: OtlpReceiver, name: str, key: str, value: Any, description: str,
    scope: str,
) -> None:  # fmt: skip
    sink.clear()
    tracer = telemetry.tracer_provider.get_tracer("tested")
    attributes = {key: printable(value)}
    tracer.start_span("first").end()
    tracer.start_span(name).end()
    tracer.start_span("an attribute", attributes=attributes).end()
    tracer.start_span("a link", links=[Link(CAUSE, attributes)]).end()
    telemetry.tracer_provider.get_tracer(scope).start_span("of a scope").end()
    for odd in ("an event", "a status"):
        span = tracer.start_span(odd)
        span.add_event(name, attributes)
        span.set_status(Status(StatusCode.ERROR, description))
        span.end()
    tracer.start_span("last").end()
    flush(telemetry)

    assert len(sink.spans) == 8
    by_name = {span.name: span for span in sink.spans}
    assert by_name["an attribute"].attributes.keys() == {escaped(key)}
    (link,) = by_name["a link"].links
    (event,) = by_name["an event"].events
    assert link.attributes.keys() == event.attributes.keys() == {escaped(key)}
    assert (event.name, by_name["a status"].status_message) == (escaped(name), escaped(description))
    assert escaped(name) in by_name
    assert by_name["of a scope"].scope == escaped(scope)


@given(body=VALUES, key=TEXTS, value=VALUES, event=TEXTS, scope=TEXTS)
@example(HALF, HALF, HALF, HALF, HALF)
@FEW
def test_log_records(
    telemetry: Telemetry,
    sink: OtlpReceiver,
    body: Any,
    key: str,
    value: Any,
    event: str,
    scope: str,
) -> None:
    sink.clear()
    logger = telemetry.logger_provider.get_logger("tested")
    logger.emit(LogRecord(body="first", timestamp=1))
    logger.emit(LogRecord(body=body, timestamp=1))
    logger.emit(
        LogRecord(
            body="odd",
            timestamp=1,
            attributes={key: printable(value)},
            event_name=event,
            severity_text=event,
        )
    )
    telemetry.logger_provider.get_logger(scope).emit(LogRecord(body="of a scope", timestamp=1))
    logger.emit(LogRecord(body="last", timestamp=1))
    flush(telemetry)

    assert len(sink.logs) == 5
    by_body = {record.body: record for record in sink.logs if isinstance(record.body, str)}
    odd = by_body["odd"]
    assert odd.attributes.keys() == {escaped(key)}
    assert (odd.event_name, odd.severity) == (escaped(event), escaped(event))
    assert by_body["of a scope"].scope == escaped(scope)
    if isinstance(body, str):
        assert escaped(body) in by_body


def printable(value: Any) -> Any:
    """A value that the SDK accepts: for these it raises in the call that sets them."""
    return "raises" if value is SPECIAL["circular"] or value is SPECIAL["huge"] else value


def escaped(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()


def test_values_keep_their_types(telemetry: Telemetry, sink: OtlpReceiver) -> None:
    sink.clear()
    values: dict[str, Any] = {
        "text": HALF, "number": 2**63 - 1, "large": 2**63, "enum": http.HTTPStatus.NOT_FOUND,
        "infinite": -math.inf, "bytes": b"\x00\xff", "list": ["a", HALF, 1], "map": {"a": {"b": 1}},
    }  # fmt: skip
    telemetry.tracer_provider.get_tracer("t").start_span("span", attributes=values).end()
    telemetry.logger_provider.get_logger("t").emit(LogRecord(body=values, attributes=values))
    flush(telemetry)
    (span,), (record,) = sink.spans, sink.logs
    for found in (span.attributes, record.attributes, record.body):
        assert found["text"] == r"half \udc80 of a pair"
        assert (found["number"], found["large"]) == (2**63 - 1, str(2**63))
        assert (found["enum"], found["infinite"]) == (404, -math.inf)
        assert list(found["list"]) == ["a", r"half \udc80 of a pair", 1]
        assert found["map"] == {"a": {"b": 1}}


def test_an_endless_container_is_cut(telemetry: Telemetry, sink: OtlpReceiver) -> None:
    sink.clear()
    pairs = {str(number): number for number in range(5000)}
    logging.getLogger("odd").warning("long", extra={"numbers": range(10**12), "pairs": pairs})
    flush(telemetry)
    (record,) = sink.logs
    assert [len(record.attributes[name]) for name in ("numbers", "pairs")] == [1000, 1000]


def test_an_instance_of_a_subclass_of_int(telemetry: Telemetry, sink: OtlpReceiver) -> None:
    """`in range(…)` would iterate for it, and the export would never end."""
    sink.clear()
    attributes = {"status": http.HTTPStatus.OK}
    telemetry.tracer_provider.get_tracer("t").start_span("span", attributes=attributes).end()
    flush(telemetry)
    (span,) = sink.spans
    assert span.attributes == {"status": 200}


@pytest.mark.parametrize(
    "options",
    [{"start_time": 1.7e9}, {"start_time": -1}, {"start_time": 2**70}, {"kind": "server"}],
    ids=str,
)
def test_a_span_with_a_field_of_the_wrong_type_does_not_lose_others(
    options: Any, telemetry: Telemetry, sink: OtlpReceiver
) -> None:
    sink.clear()
    tracer = telemetry.tracer_provider.get_tracer("t")
    tracer.start_span("first").end()
    tracer.start_span("odd", **options).end()
    odd = tracer.start_span("odd event")
    odd.add_event("early", timestamp=options.get("start_time"))
    odd.end()
    tracer.start_span(404).end()  # type: ignore[arg-type]
    flush(telemetry)
    assert {span.name for span in sink.spans} == {"first", "odd", "odd event", "404"}


def test_dropped_attributes_are_counted(
    sink: OtlpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests: list[Any] = []
    monkeypatch.setattr(sink, "receive", lambda *one: requests.append(one[1]))
    with exporting(sink, "grpc", OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT="1") as telemetry:
        tracer = telemetry.tracer_provider.get_tracer("t")
        tracer.start_span("odd", attributes={"a": 1, "b": 2, "c": HALF}).end()
        flush(telemetry)
    (span,) = requests[0].resource_spans[0].scope_spans[0].spans
    assert span.dropped_attributes_count == 2


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"], ids=["grpc", "http"])
def test_metrics(protocol: str, sink: OtlpReceiver) -> None:
    with exporting(sink, protocol) as telemetry:
        sink.clear()
        meter = telemetry.meter_provider.get_meter(HALF)
        meter.create_counter("plain").add(1)
        meter.create_counter("described", description=HALF).add(1)
        meter.create_counter("labelled").add(1, {HALF: HALF, "n": 2**70, "none": None})
        meter.create_counter("huge").add(2**70)
        meter.create_counter("decimal").add(Decimal("1.5"))  # type: ignore[arg-type]
        meter.create_histogram("spread").record(2**70)

        def observe(_: CallbackOptions) -> list[Observation]:
            return [Observation(-(2**70), {"of": HALF})]

        meter.create_observable_gauge("gauge", [observe])
        telemetry.meter_provider.force_flush()
        points = {point.name: point for point in sink.metrics}
        assert points.keys() >= {"plain", "described", "labelled", "huge", "decimal", "spread",
                                 "gauge", "process.cpu.time"}  # fmt: skip
        assert points["labelled"].attributes.keys() == {escaped(HALF), "n", "none"}


def test_a_time_before_1970(telemetry: Telemetry, sink: OtlpReceiver) -> None:
    sink.clear()
    logger = telemetry.logger_provider.get_logger("t")
    for time in (-1, 1, 2**64, 1.7e9):
        logger.emit(LogRecord(body="x", timestamp=time))  # type: ignore[arg-type]
    flush(telemetry)
    assert len(sink.logs) == 4


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"], ids=["grpc", "http"])
def test_a_resource(protocol: str, sink: OtlpReceiver) -> None:
    """Its attributes come from the environment, and may be any bytes."""
    sink.clear()
    odd = {"OTEL_SERVICE_NAME": HALF, "OTEL_RESOURCE_ATTRIBUTES": f"team={HALF}"}
    with exporting(sink, protocol, **odd) as telemetry:
        telemetry.tracer_provider.get_tracer("t").start_span("plain").end()
        telemetry.logger_provider.get_logger("t").emit(LogRecord(body="plain"))
        flush(telemetry)
        telemetry.meter_provider.force_flush()
        generate_latest(ServiceRegistry(telemetry.resource))
        resources = [sink.spans[0].resource, sink.logs[0].resource]
        assert [one["service.name"] for one in resources] == [escaped(HALF)] * 2
        assert [one["team"] for one in resources] == [escaped(HALF)] * 2
        assert sink.metrics[0].service == escaped(HALF)


@given(label=TEXTS)
@example(HALF)
@FEW
def test_a_label_with_a_lone_surrogate_does_not_fail_the_scrape(label: str) -> None:
    registry = ServiceRegistry(Resource({"service.name": "tested"}))
    counter = Counter("seen", "What was seen", ["destination"], registry=registry)
    counter.labels(label).inc()
    counter.labels("orders").inc()
    text = generate_latest(registry).decode()
    assert 'destination="orders"' in text
    assert text.count("seen_total{") == (1 if label == "orders" else 2)


def test_json_can_contain_a_lone_surrogate() -> None:
    assert json.loads('"half \\udc80 of a pair"') == HALF
