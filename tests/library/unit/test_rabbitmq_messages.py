"""RabbitMQ's names of spans and metrics, ids of messages, and its server for development."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import aiormq.abc
import pytest
from aio_pika.message import IncomingMessage
from faststream.rabbit import RabbitExchange
from faststream.rabbit.response import RabbitPublishCommand
from faststream.response.publish_type import PublishType
from faststream_otel.rabbitmq.embedded import embedded_rabbitmq
from faststream_otel.rabbitmq.messages import message_id, published_at
from faststream_otel.rabbitmq.telemetry import RabbitConventions, RabbitTelemetryMiddleware
from opentelemetry.metrics import NoOpMeterProvider
from pamqp import commands
from pamqp.header import ContentHeader

CONVENTIONS = RabbitConventions()


def message(exchange: str = "", routing_key: str = "", **properties: Any) -> IncomingMessage:
    return IncomingMessage(
        aiormq.abc.DeliveredMessage(
            delivery=commands.Basic.Deliver("", 7, exchange=exchange, routing_key=routing_key),
            header=ContentHeader(properties=commands.Basic.Properties(**properties)),
            body=b"body",
            channel=None,  # type: ignore[arg-type]
        )
    )


@pytest.mark.parametrize(
    ("exchange", "key", "queue", "sent", "received", "channel"),
    [
        ("orders", "", "pay.orders", "orders", "orders:pay.orders", "orders"),
        ("orders", "eu", "pay", "orders:eu", "orders:eu:pay", "orders:eu"),
        ("", "pay", "pay", "pay", "pay", "pay"),
        ("orders", "pay", "pay", "orders:pay", "orders:pay", "orders:pay"),
        ("", "", "", "amq.default", "amq.default", ""),
    ],
)
def test_destinations_have_their_conventional_names(
    exchange: str, key: str, queue: str, sent: str, received: str, channel: str
) -> None:
    subscriber = SimpleNamespace(queue=SimpleNamespace(name=queue))
    found = CONVENTIONS.received_from(message(exchange, key), subscriber)
    assert found == (received, channel)
    command = RabbitPublishCommand(
        b"", routing_key=key, exchange=RabbitExchange(exchange), _publish_type=PublishType.PUBLISH
    )
    assert CONVENTIONS.sent_to(command).name == sent
    assert CONVENTIONS.sent_to(command).channel == (channel or sent)


def test_the_id_of_a_sent_message_is_in_its_span() -> None:
    command = RabbitPublishCommand(b"", _publish_type=PublishType.PUBLISH)
    attributes = CONVENTIONS.send_attributes(command)
    assert attributes["messaging.message.id"] == command.message_options["message_id"]


def test_a_message_without_an_id_has_the_same_one_at_each_delivery() -> None:
    first = message(headers={"a": "1"})
    again = message(headers={"a": "1", "x-delivery-count": 3})
    assert message_id(first) == message_id(again)
    assert message_id(message(headers={"a": "2"})) != message_id(first)
    assert message_id(message(message_id="own")) == "own"


def test_the_time_of_publication_has_milliseconds() -> None:
    assert published_at(message(headers={"published-at": "1700000000123"})) == 1700000000.123
    assert published_at(message(headers={"published-at": "soon"})) == 0
    assert published_at(message()) == 0


def test_without_a_server_one_sentence_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    needed = r"install RabbitMQ.*BROKER_URL"
    with pytest.raises(FileNotFoundError, match=needed), embedded_rabbitmq():
        pass


def test_a_server_that_runs_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BROKER_URL", "rabbit")
    with embedded_rabbitmq() as address:
        assert address == "rabbit:5672"


def test_it_switches_off_the_instrumentation_of_aio_pika(monkeypatch: pytest.MonkeyPatch) -> None:
    instrumentor = Mock(is_instrumented_by_opentelemetry=True)
    module = SimpleNamespace(AioPikaInstrumentor=lambda: instrumentor)
    monkeypatch.setitem(sys.modules, "opentelemetry.instrumentation.aio_pika", module)
    RabbitTelemetryMiddleware(meter_provider=NoOpMeterProvider())
    instrumentor.uninstrument.assert_called_once_with()
