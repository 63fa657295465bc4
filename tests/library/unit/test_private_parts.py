"""The private parts of other libraries exist, and the library works without them.

If the first test fails, it names the part that a new version has changed, and what no longer works;
the module that uses the part says more. The other tests remove the parts.
"""

import asyncio
import inspect
import ssl
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple
from unittest.mock import Mock, patch

import pytest
from aio_pika.channel import Channel
from fast_depends.library.serializer import OptionItem
from faststream import BaseMiddleware, ContextRepo
from faststream.asgi import AsgiFastStream
from faststream.kafka import KafkaBroker, TestKafkaBroker
from faststream.rabbit.subscriber.usecase import RabbitSubscriber
from faststream_otel import connections
from faststream_otel.connections import Connection
from faststream_otel.messages import _faststream
from faststream_otel.messages.broker import Unreachable
from faststream_otel.messages.validation import MessageSerializer, is_about_message
from faststream_otel.nats import NatsSettings
from faststream_otel.nats import _natspy as natspy
from faststream_otel.rabbitmq._pika import read_any_properties
from faststream_otel.telemetry import _opentelemetry
from faststream_otel.telemetry.missing import warn_missing
from nats.aio.subscription import Subscription
from nats.js import JetStreamContext
from opentelemetry.context import attach, detach, get_current
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import (
    OTLPSpanExporter as HttpSpanExporter,
)
from opentelemetry.instrumentation.utils import is_instrumentation_enabled
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricsData
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pamqp import commands
from pydantic import ValidationError
from uvicorn import Config
from uvicorn.server import ServerState


async def application(scope: Any, receive: Any, send: Any) -> None:
    """An ASGI application that does nothing."""


RESOURCE = Resource({"service.name": "ours"})
GRPC: dict[str, tuple[Callable[..., Any], Any]] = {
    "traces": (OTLPSpanExporter, []),
    "metrics": (OTLPMetricExporter, MetricsData([])),
    "logs": (OTLPLogExporter, []),
}


def sends_with_ours(signal: str) -> bool:
    """Whether each export calls our function, with a time-out, even after a new channel."""
    make, nothing = GRPC[signal]
    exporter = make(endpoint="http://127.0.0.1:1", timeout=3)
    timeouts: list[float] = []
    connections: list[_opentelemetry.GrpcConnection] = []

    def send(connection: Any, request: Any, timeout: float, options: Any) -> None:
        timeouts.append(timeout)
        connections.append(connection)

    assert _opentelemetry.send_with(exporter, send)
    results = [exporter.export(nothing).name]
    before = exporter._channel
    connections[0].renew()
    results.append(exporter.export(nothing).name)
    running = connections[0].wait(0)
    exporter.shutdown()
    return (
        results == ["SUCCESS"] * 2
        and len(timeouts) == 2
        and all(2 < timeout <= 3 for timeout in timeouts)
        and exporter._channel is not before
        and (running, connections[0].wait(0)) == (False, True)
    )


def encodes_with_ours(make: Any, monkeypatch: pytest.MonkeyPatch) -> bool:
    encoded: list[Any] = []

    def ours(spans: Any) -> Any:
        encoded.append(spans)
        return encode_spans(spans)

    module = sys.modules[make.__module__]
    monkeypatch.setattr(module, "encode_spans", encode_spans)
    exporter = make(endpoint="http://127.0.0.1:1", timeout=0.01)
    assert _opentelemetry.encode_with(exporter, encode_spans, ours)
    exporter.export([])
    exporter.shutdown()
    return encoded == [[]]


def suppresses_instrumentation() -> bool:
    token = attach(_opentelemetry.suppressed())
    try:
        return not is_instrumentation_enabled()
    finally:
        detach(token)


def sees_who_exports() -> bool:
    tracers = TracerProvider(shutdown_on_exit=False)
    loggers = LoggerProvider(shutdown_on_exit=False)
    meters = MeterProvider(shutdown_on_exit=False)
    bare = [_opentelemetry.is_bare(provider) for provider in (tracers, loggers, meters)]
    kept = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]
    tracers.add_span_processor(SimpleSpanProcessor(InMemorySpanExporter()))
    loggers.add_log_record_processor(SimpleLogRecordProcessor(kept))
    meters = MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False)
    return all(bare) and not any(map(_opentelemetry.is_bare, (tracers, loggers, meters)))


def sets_the_resource() -> bool:
    exporter = InMemorySpanExporter()
    tracers = TracerProvider(shutdown_on_exit=False)
    tracers.add_span_processor(BatchSpanProcessor(exporter))
    providers = [
        tracers, MeterProvider(shutdown_on_exit=False), LoggerProvider(shutdown_on_exit=False)
    ]  # fmt: skip
    done = [_opentelemetry.set_resource(provider, RESOURCE) for provider in providers]
    tracers.get_tracer("test").start_span("span").end()
    tracers.shutdown()
    (span,) = exporter.get_finished_spans()
    return done == [True] * 3 and span.resource.attributes["service.name"] == "ours"


def names_the_subscriber() -> bool:
    seen = []

    class Look(BaseMiddleware):
        async def on_receive(self) -> None:
            seen.append(_faststream.current_subscriber(self.context))

    broker = KafkaBroker(middlewares=[Look], logger=None)

    @broker.subscriber("orders")
    async def handle(body: str) -> None: ...

    async def publish() -> None:
        async with TestKafkaBroker(broker):
            await broker.publish("one", "orders")

    asyncio.run(publish())
    outside = _faststream.current_subscriber(broker.context)
    return seen == [broker.subscribers[0]] and outside is None


def knows_the_publishers() -> bool:
    broker = KafkaBroker(logger=None)
    publisher = broker.publisher("payments")

    @broker.subscriber("orders")
    @publisher
    async def both(body: str) -> str:
        return body

    @broker.subscriber("orders")
    async def one(body: str) -> None: ...

    return [*_faststream.publishers_of(both)] == [publisher] and not _faststream.publishers_of(one)


def starts_with_ours() -> bool:
    steps: list[str] = []

    async def start() -> None:
        steps.append("brokers")

    app = AsgiFastStream(
        KafkaBroker(logger=None),
        on_startup=[lambda: steps.append("before")],
        after_startup=[lambda: steps.append("after")],
        logger=None,
    )
    assert _faststream.start_brokers_with(app, start)

    async def run() -> None:
        async with app.start_lifespan_context():
            await asyncio.sleep(0.01)

    asyncio.run(run())
    return steps == ["before", "brokers", "after"]


def connects_to_nats_with_ours() -> bool:
    broker: Any = NatsSettings(broker_url="127.0.0.1:1").broker()
    broker.build("tested", [], drain_seconds=1, busy=lambda _: 1.0)
    refused = patch.object(natspy.Client, "connect", side_effect=Unreachable)
    with refused as connect, suppress(Unreachable):
        asyncio.run(broker.faststream.connect())
    return bool(connect.call_args.kwargs["servers"] == ["nats://127.0.0.1:1"])


def ends_a_delivery() -> bool:
    client = natspy.Client()
    client._status = client.CONNECTED
    made = JetStreamContext.PullSubscription(
        client.jetstream(), Subscription(client, id=7), "stream", "consumer", b"inbox"
    )
    with (
        patch.object(natspy.Client, "_send_command") as sent,
        patch.object(natspy.Client, "_flush_pending"),
        patch.object(natspy.Client, "flush") as flushed,
    ):
        asyncio.run(natspy.end_delivery(client, made))
    return sent.call_args.args == (b"UNSUB 7 \r\n",) and flushed.called


def has_the_parts_of_nats() -> bool:
    client = natspy.Client()
    client._server_info = {"tls_required": True}
    client.options |= {
        "tls": ssl.create_default_context(), "tls_handshake_first": False, "verbose": False,
        "pedantic": False, "name": None, "no_echo": False,
    }  # fmt: skip
    message = client._build_message(1, b"s", b"$JS.ACK.x", b"", {"Status": "503"})
    return client._connect_command().startswith(b"CONNECT") and message.headers == {"status": "503"}


def sees_connections_wait() -> bool:
    async def serve() -> bool:
        config = Config(application, limit_concurrency=5, log_config=None)
        connection = Connection(config, ServerState(), {})
        transport = Mock()
        transport.get_extra_info.return_value = None
        connection.connection_made(transport)
        idle = connection.waits, connection.limit_concurrency, connection in connection.connections
        connection.data_received(b"GET / HTTP/1.1\r\nhost: here\r\n\r\n")
        busy = connection.waits
        connection.connection_lost(None)
        return idle == (True, 5, True) and not busy

    return asyncio.run(serve())


def recognizes_a_message_that_does_not_fit() -> bool:
    validate = MessageSerializer()(
        name="handle", options=[OptionItem("number", int)], response_type=inspect.Parameter.empty
    )
    try:
        validate({"number": "none"})
    except ValidationError as error:
        return is_about_message(error)
    return False


def reads_any_properties() -> bool:
    class Properties(commands.Basic.Properties):
        pass

    assert read_any_properties(Properties)
    found = Properties()
    found.unmarshal(Properties.flags["content_type"], b"\x01\xff")
    return found.content_type == "\N{REPLACEMENT CHARACTER}"


def has_the_parts_of_rabbitmq() -> bool:
    parts = {"_queue_obj", "_consumer_tag"}
    return parts < {*RabbitSubscriber.__slots__} and "_channel" in Channel.__annotations__


class Part(NamedTuple):
    package: str
    part: str
    without: str
    works: Callable[..., bool]
    arguments: tuple[Any, ...] = ()


PARTS = [
    *(
        Part(
            "opentelemetry-exporter-otlp-proto-grpc",
            f"_stub, _client, _channel, _initialize_channel_and_stub, _shutdown_in_progress: {one}",
            "the exporter drops a batch before its time-out while the Collector is unreachable",
            sends_with_ours,
            (one,),
        )
        for one in GRPC
    ),
    *(
        Part(
            f"opentelemetry-exporter-otlp-proto-{protocol}",
            "the name encode_spans in the module trace_exporter",
            "encoding spans costs several times as much",
            encodes_with_ours,
            (exporter,),
        )
        for protocol, exporter in (("grpc", OTLPSpanExporter), ("http", HttpSpanExporter))
    ),
    Part(
        "opentelemetry-api", "_SUPPRESS_INSTRUMENTATION_KEY of opentelemetry.context",
        "instrumentations of clients may record each export", suppresses_instrumentation,
    ),
    Part(
        "opentelemetry-sdk", "_update_resource of the providers",
        "under opentelemetry-instrument, telemetry of others has another resource",
        sets_the_resource,
    ),
    Part(
        "opentelemetry-sdk", "_span_processors, _log_record_processors, _metric_readers",
        "a provider that was set before and exports nothing gets no exporter",
        sees_who_exports,
    ),
    Part(
        "faststream", "handler_ in the context",
        "no consumer group, no trace of the record 'Processed', one count of redeliveries for all",
        names_the_subscriber,
    ),
    Part(
        "faststream", "_publishers of a handler",
        "a batch handler with a publisher is not refused",
        knows_the_publishers,
    ),
    Part(
        "faststream", "_start_broker of an application",
        "a service whose broker is unreachable at the start keeps running without consumers",
        starts_with_ours,
    ),
    Part(
        "faststream", "_connect and _connection_kwargs of NatsBroker",
        "a service that finds no NATS server waits for ever and does not log why",
        connects_to_nats_with_ours,
    ),
    Part(
        "nats-py", "_connect_command and _build_message of its Client, and its _server_info",
        "BROKER_TLS does not protect the password, a header Status makes a message come for ever",
        has_the_parts_of_nats,
    ),
    Part(
        "nats-py", "_send_unsubscribe of its Client, and _sub._id of a pull subscription",
        "a stop can delay a message until ack_wait",
        ends_a_delivery,
    ),
    Part(
        "pamqp", "unmarshal of Basic.Properties",
        "a message with properties that are not UTF-8 blocks its queue",
        reads_any_properties,
    ),
    Part(
        "aio-pika", "_channel of its Channel; of FastStream, _queue_obj and _consumer_tag",
        "a consumer counts as attached as soon as it was started",
        has_the_parts_of_rabbitmq,
    ),
    Part(
        "uvicorn", "attributes and methods of H11Protocol",
        "idle connections are not closed early, and too many of them end in 503 for all",
        sees_connections_wait,
    ),
    Part(
        "fast-depends", "library.serializer, and an attribute on pydantic's ValidationError",
        "a message that does not fit its handler is retried before it goes to the dead letters",
        recognizes_a_message_that_does_not_fit,
    ),
]  # fmt: skip


@pytest.mark.parametrize("part", PARTS, ids=lambda part: f"{part.package}: {part.part}")
def test_a_private_part_is_as_this_library_expects(
    part: Part, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = (monkeypatch,) if part.works is encodes_with_ours else ()
    try:
        works = part.works(*part.arguments, *more)
    except Exception as error:
        error.add_note(broken(part))
        raise
    assert works, broken(part)


def broken(part: Part) -> str:
    return (
        f"{part.package} {version(part.package)} has changed: {part.part}. Without: {part.without}."
    )


@pytest.fixture(autouse=True)
def nothing_logged() -> None:
    """Let each test log what a process logs only once."""
    warn_missing.cache_clear()


@pytest.fixture
def grpc_exporter() -> SimpleNamespace:
    """An exporter with only the private parts."""
    return SimpleNamespace(
        _stub=Mock(),
        _channel=Mock(),
        _client=Mock(),
        _initialize_channel_and_stub=Mock(),
        _shutdown_in_progress=threading.Event(),
    )


@pytest.mark.parametrize(
    "part",
    ["_stub", "_channel", "_client", "_initialize_channel_and_stub", "_shutdown_in_progress"],
)
@pytest.mark.parametrize("other", [False, True], ids=["missing", "different"])
def test_an_exporter_without_a_private_part_stays_unchanged(
    part: str, other: bool, grpc_exporter: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    assert _opentelemetry.send_with(grpc_exporter, Mock())  # with all of them
    if other:
        setattr(grpc_exporter, part, object())
    else:
        delattr(grpc_exporter, part)
    before = vars(grpc_exporter).copy()
    for _ in range(3):
        assert not _opentelemetry.send_with(grpc_exporter, Mock())
    assert vars(grpc_exporter) == before
    assert [record.levelname for record in caplog.records] == ["WARNING"]  # once


def test_an_export_without_a_timeout_is_passed_through(grpc_exporter: SimpleNamespace) -> None:
    client = Mock()
    grpc_exporter._stub = lambda channel: client
    send = Mock()
    assert _opentelemetry.send_with(grpc_exporter, send)
    grpc_exporter._client.Export("request", metadata="metadata")
    client.Export.assert_called_once_with("request", metadata="metadata")
    send.assert_not_called()


@pytest.mark.parametrize(
    "source", ["", "encode_spans = len", "from os import replace as encode_spans"]
)
def test_an_exporter_without_encode_spans_keeps_its_encoder(
    source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType("newer")
    monkeypatch.setitem(sys.modules, "newer", module)
    exec(
        f"{source}\nclass Exporter:\n    def export(self, spans): return encode_spans(spans)\n",
        vars(module),
    )
    before = vars(module).get("encode_spans")
    assert not _opentelemetry.encode_with(vars(module)["Exporter"](), encode_spans, Mock())
    assert vars(module).get("encode_spans") is before


def test_an_exporter_that_ignores_encode_spans_keeps_its_encoder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The name exists, but nothing uses it: values must be converted in another way."""
    module = ModuleType("newer")
    vars(module)["encode_spans"] = encode_spans
    monkeypatch.setitem(sys.modules, "newer", module)
    exec("class Exporter:\n    def export(self, spans): return len(spans)\n", vars(module))
    assert not _opentelemetry.encode_with(vars(module)["Exporter"](), encode_spans, Mock())
    assert vars(module)["encode_spans"] is encode_spans


def test_without_the_other_private_parts_everything_works(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr("opentelemetry.context._SUPPRESS_INSTRUMENTATION_KEY")
    assert _opentelemetry.suppressed() == get_current()
    stranger = SimpleNamespace()
    assert not _opentelemetry.set_resource(stranger, RESOURCE)
    assert not _opentelemetry.set_resource(SimpleNamespace(_update_resource=dict.clear), RESOURCE)
    assert _faststream.current_subscriber(ContextRepo()) is None
    assert [*_faststream.publishers_of(stranger)] == []
    assert not _faststream.start_brokers_with(stranger, Mock())
    assert vars(stranger) == {}


async def test_a_different_uvicorn_protocol_keeps_its_own_limits(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(connections, "_ATTRIBUTES", ("gone",))
    state = ServerState()
    for _ in range(3):
        connection = Connection(
            Config(application, limit_concurrency=1, log_config=None), state, {}
        )
        transport = Mock()
        transport.get_extra_info.return_value = None
        connection.connection_made(transport)
        transport.abort.assert_not_called()
    assert len(state.connections) == 3
    assert [record.levelname for record in caplog.records] == ["WARNING"]


async def test_a_nats_broker_without_the_connection_options_logs_that_its_client_is_not_ours(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker: Any = NatsSettings(broker_url="127.0.0.1:1").broker()
    broker.build("tested", [], drain_seconds=1, busy=lambda _: 1.0)
    monkeypatch.delattr(broker.faststream, "_connection_kwargs")
    with pytest.raises(AttributeError):  # as FastStream's own way would with such a part missing
        await broker.faststream.connect()
    assert "_connection_kwargs" in caplog.text
