"""Spans of HTTP requests; and a span processor or a sampler that raises harms nobody."""

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import httpx
import pytest
from fastapi import Request
from faststream.kafka import TestKafkaBroker
from faststream_otel.http import HttpService
from faststream_otel.http.tracing import RequestTracerProvider
from faststream_otel.kafka import KafkaSettings
from opentelemetry import baggage, trace
from opentelemetry.instrumentation._semconv import (
    _OpenTelemetrySemanticConventionStability as Stability,
)
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from pydantic import BaseModel, ValidationError

from ..spans import context, named

SECRET = "my-secret"
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Parcel(BaseModel):
    weight: int


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[HttpService]:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "false")
    service = HttpService("scales", KafkaSettings(retry_backoff_seconds=0))

    @service.http.get("/parcels/{number}")
    async def find(number: int) -> dict[str, str]:
        return {name: str(value) for name, value in baggage.get_all().items()}

    @service.http.get("/broken")
    async def broken() -> None:
        Parcel.model_validate({"weight": SECRET})

    yield service
    service.telemetry.close()


@pytest.fixture
def exported(service: HttpService) -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    service.telemetry.tracer_provider.add_span_processor(SimpleSpanProcessor(exporter))
    return exporter


async def get(
    service: HttpService,
    path: str,
    headers: Sequence[tuple[str, str | bytes]] = (),
    method: str = "GET",
) -> httpx.Response:
    lines = [
        (name.encode(), value.encode() if isinstance(value, str) else value)
        for name, value in headers
    ]
    transport = httpx.ASGITransport(service.app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8000") as client:
        return await client.request(method, path, headers=lines)


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


async def test_a_request_has_one_span_with_names_of_today_and_nothing_personal(
    service: HttpService, exported: InMemorySpanExporter
) -> None:
    await get(service, "/parcels/5?token=my-secret", [("User-Agent", "me")])
    (span,) = exported.get_finished_spans()
    assert (span.name, span.kind, span.parent) == ("GET /parcels/{number}", SpanKind.SERVER, None)
    assert attributes(span) == {
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "http.route": "/parcels/{number}",
        "network.protocol.version": "1.1",
        "server.address": "localhost",
        "server.port": 8000,
        "url.path": "/parcels/5",
        "url.scheme": "http",
    }
    assert span.resource.attributes["service.name"] == "scales"


async def test_health_metrics_and_documents_have_none(
    service: HttpService, exported: InMemorySpanExporter
) -> None:
    for path in ("/health/live", "/health/ready", "/metrics", "/asyncapi.json", "/openapi.json"):
        await get(service, path)
    assert exported.get_finished_spans() == ()
    await get(service, "/a/health/live")  # somebody else's
    assert [span.name for span in exported.get_finished_spans()] == ["GET"]


def request_durations(reader: InMemoryMetricReader) -> list[dict[str, Any]]:
    """The attributes of each series of `http.server.request.duration`."""
    data = reader.get_metrics_data()
    assert data
    return [
        dict(point.attributes or {})
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == "http.server.request.duration"
        for point in metric.data.data_points
    ]


async def test_what_strangers_choose_names_no_span_and_no_series(
    service: HttpService, exported: InMemorySpanExporter
) -> None:
    reader = InMemoryMetricReader()
    service.telemetry.meter_provider.add_metric_reader(reader)
    await get(service, "/parcels/1", method="BREW")
    await get(service, "/parcels/2", method="BREW")
    await get(service, "/nowhere/3")
    names = [span.name for span in exported.get_finished_spans()]
    assert names == ["HTTP /parcels/{number}"] * 2 + ["GET"]

    points = request_durations(reader)
    shared = {"network.protocol.version": "1.1", "url.scheme": "http"}
    assert points == [
        {
            **shared, "http.request.method": "_OTHER", "http.route": "/parcels/{number}",
            "http.response.status_code": 405,
        },
        {**shared, "http.request.method": "GET", "http.response.status_code": 404},
    ]  # fmt: skip


async def test_a_server_error_counts_for_its_route(service: HttpService) -> None:
    reader = InMemoryMetricReader()
    service.telemetry.meter_provider.add_metric_reader(reader)
    await get(service, "/broken")
    (found,) = request_durations(reader)
    assert found["http.route"] == "/broken"
    assert found["http.response.status_code"] == 500


async def test_an_error_is_described_without_what_it_is_about(
    service: HttpService, exported: InMemorySpanExporter
) -> None:
    answer = await get(service, "/broken")
    assert answer.status_code == 500
    (span,) = exported.get_finished_spans()
    assert span.status.status_code is StatusCode.ERROR
    assert str(span.status.description).startswith("ValidationError: weight: ")
    assert attributes(span)["error.type"] == "pydantic_core._pydantic_core.ValidationError"
    assert attributes(span)["http.response.status_code"] == 500
    (event,) = span.events
    assert event.name == "exception"
    assert SECRET not in repr((span.status.description, event.attributes))


def test_a_task_in_the_background_is_described_likewise() -> None:
    provider, exporter = TracerProvider(), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = RequestTracerProvider(provider).get_tracer("tasks")
    with pytest.raises(ValidationError), tracer.start_as_current_span("BackgroundTask later"):
        Parcel.model_validate({"weight": SECRET})
    (span,) = exporter.get_finished_spans()
    assert str(span.status.description).startswith("ValidationError: weight: ")
    assert SECRET not in repr((span.status.description, span.events))


async def test_a_route_may_say_itself_what_becomes_of_its_span(
    service: HttpService, exported: InMemorySpanExporter
) -> None:
    @service.http.get("/own")
    async def own() -> None:
        span = trace.get_current_span()
        span.set_attribute("client.address", "asked for")
        try:
            Parcel.model_validate({"weight": SECRET})
        except ValidationError as error:
            span.record_exception(error)

    await get(service, "/own")
    (span,) = exported.get_finished_spans()
    assert attributes(span)["client.address"] == "asked for"
    assert span.status.status_code is StatusCode.UNSET
    assert SECRET not in repr(span.events[0].attributes)


async def test_the_callers_context_reaches_the_route(
    service: HttpService, exported: InMemorySpanExporter
) -> None:
    lines = [("traceparent", PARENT), ("baggage", "a=1"), ("baggage", "b=2")]
    assert (await get(service, "/parcels/5", lines)).json() == {"a": "1", "b": "2"}
    (span,) = exported.get_finished_spans()
    assert span.parent is not None
    assert f"{context(span).trace_id:032x}" in PARENT


@pytest.mark.parametrize("name", ["traceparent", "tracestate", "baggage", "user-agent", "x"])
async def test_headers_of_any_bytes_cost_no_request(
    service: HttpService, exported: InMemorySpanExporter, name: str
) -> None:
    @service.http.get("/echo")
    async def echo(request: Request) -> list[str]:
        return request.headers.getlist(name)

    answer = await get(service, "/echo", [(name, b"\xff\\x"), (name, b"\xe4")])
    assert answer.status_code == 200
    assert answer.json()[-2:] == ["\xff\\x", "\xe4"]  # Latin-1, as Starlette reads headers
    assert named(exported.get_finished_spans(), "GET /echo").parent is None


class Faulty(SpanProcessor):
    """What a team may add to its tracer provider, and what may have a bug."""

    def __init__(self, where: str) -> None:
        self.where = where

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        if self.where == "start":
            raise LookupError("start")

    def on_end(self, span: Any) -> None:
        if self.where == "end":
            raise LookupError("end")


@pytest.mark.parametrize("where", ["start", "end"])
async def test_an_attempt_that_succeeds_is_the_last(where: str, service: HttpService) -> None:
    service.telemetry.tracer_provider.add_span_processor(Faulty(where))
    attempts = []

    @service.subscriber("numbers")
    async def handle(number: int) -> None:
        attempts.append(number)
        if len(attempts) == 1:
            raise ConnectionError("for now")

    async with TestKafkaBroker(service.broker.faststream) as broker:
        await broker.publish(1, "numbers")
    assert attempts == [1, 1]


@pytest.mark.parametrize("where", ["start", "end"])
async def test_a_request_is_answered(
    where: str, service: HttpService, caplog: pytest.LogCaptureFixture
) -> None:
    service.telemetry.tracer_provider.add_span_processor(Faulty(where))
    answer = await get(service, "/parcels/5", [("baggage", "a=1")])
    assert (answer.status_code, answer.json()) == (200, {"a": "1"})
    errors = [one for one in caplog.records if one.levelno >= logging.ERROR]
    assert {one.name for one in errors} <= {"faststream_otel.telemetry.spans"}


async def test_a_sampler_that_raises_costs_the_span_alone(
    service: HttpService, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise LookupError

    monkeypatch.setattr(service.telemetry.tracer_provider.sampler, "should_sample", fail)
    assert (await get(service, "/parcels/5")).status_code == 200


@pytest.fixture
def undecided(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As where an instrumentation has looked for the variable, and found none."""
    with monkeypatch.context() as patch:
        patch.delenv("OTEL_SEMCONV_STABILITY_OPT_IN", raising=False)
        patch.setattr(Stability, "_initialized", False)
        patch.setattr(Stability, "_OTEL_SEMCONV_STABILITY_SIGNAL_MAPPING", {})
        initialize: Callable[[], None] = Stability._initialize
        initialize()
        yield


def http_names() -> set[str]:
    service = HttpService("scales", KafkaSettings())
    exporter = InMemorySpanExporter()
    service.telemetry.tracer_provider.add_span_processor(SimpleSpanProcessor(exporter))
    asyncio.run(get(service, "/nowhere?token=my-secret"))
    service.telemetry.close()
    (span,) = exporter.get_finished_spans()
    assert SECRET not in repr(span.attributes)
    return {*attributes(span)} & {"http.method", "http.request.method", "http.url", "http.target"}


@pytest.mark.usefixtures("undecided")
def test_names_are_of_today_though_another_instrumentation_looked_before() -> None:
    assert http_names() == {"http.request.method"}


@pytest.mark.usefixtures("undecided")
def test_the_user_may_have_names_of_yesterday_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", "http/dup")
    Stability._initialized = False
    assert http_names() == {"http.method", "http.request.method"}
