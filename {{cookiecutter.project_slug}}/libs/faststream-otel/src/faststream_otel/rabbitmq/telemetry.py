"""The telemetry middleware for RabbitMQ (messaging semantic conventions 1.44, "RabbitMQ").

`messaging.destination.name` follows the conventions: `{exchange}:{routing key}` of a sent message,
`{exchange}:{routing key}:{queue}` of a received one, without empty parts. The channel, which is the
same for sender and receiver, is in `messaging.destination.template`.
"""

import logging
import sys
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

from aio_pika.abc import AbstractIncomingMessage
from faststream.rabbit.response import RabbitPublishCommand
from opentelemetry.metrics import Meter, MeterProvider
from opentelemetry.trace import TracerProvider

from ..messages.middleware import Destination, LinkedTelemetryMiddleware, Received
from ..telemetry import semconv as messaging
from ..telemetry.errors import MAX_TEXT, bounded
from ..telemetry.values import Attributes, decoded
from . import _pika
from .messages import (
    CORRELATION_ID,
    Delivered,
    channel_of,
    channel_sent_to,
    first,
    published_at,
)

logger = logging.getLogger(__name__)

DEFAULT_EXCHANGE = "amq.default"
"""`messaging.destination.name` of the default exchange without a routing key."""


class RabbitTelemetryMiddleware(LinkedTelemetryMiddleware):
    """A drop-in replacement for `faststream.rabbit.opentelemetry.RabbitTelemetryMiddleware`.

    `messages.middleware` lists the differences, `LinkedTelemetryMiddleware` the arguments. Put it
    first in the broker's `middlewares`, so that the others run inside its spans. It switches off
    opentelemetry-instrumentation-aio-pika, which `opentelemetry-instrument` switches on: otherwise
    each message would have its spans twice.
    """

    def __init__(
        self,
        *,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        meter: Meter | None = None,
        include_messages_counters: bool = True,
        server_address: str | None = None,
        server_port: int | None = None,
    ) -> None:
        _pika.apply()
        _switch_off_instrumentation()
        super().__init__(
            conventions=RabbitConventions(),
            tracer_provider=tracer_provider,
            meter_provider=meter_provider,
            meter=meter,
            include_messages_counters=include_messages_counters,
            server_address=server_address,
            server_port=server_port,
        )


def _switch_off_instrumentation() -> None:
    module = sys.modules.get("opentelemetry.instrumentation.aio_pika")
    if module and (instrumentor := module.AioPikaInstrumentor()).is_instrumented_by_opentelemetry:
        instrumentor.uninstrument()
        logger.info(
            "Switched off opentelemetry-instrumentation-aio-pika: this middleware makes the spans"
            " of messages"
        )


class RabbitConventions:
    """See `BrokerConventions` of `messages.middleware`, `MetricConventions` of `.prometheus`."""

    system = "rabbitmq"

    def received_from(self, message: Delivered, subscriber: Any) -> Destination:
        one = first(message)
        queue = self.consumer_group(subscriber) or ""
        parts = dict.fromkeys(filter(None, (one.exchange, one.routing_key, queue)))
        return Destination(":".join(parts) or DEFAULT_EXCHANGE, channel_of(one) or queue)

    def received(self, message: Delivered) -> Received:
        if isinstance(message, Sequence):
            return Received(
                headers=[_headers(one) for one in message],
                attributes=lambda: _batch_attributes(message),
                batch=True,
                link_attributes=[_identity(one) for one in message],
            )
        return Received(headers=(_headers(message),), attributes=lambda: _attributes(message))

    def sent_to(self, command: RabbitPublishCommand) -> Destination:
        channel = channel_sent_to(command) or DEFAULT_EXCHANGE
        return Destination(channel, channel)

    def send_attributes(self, command: RabbitPublishCommand) -> Attributes:
        # Otherwise the client chooses it when it sends the message.
        id = command.message_options.get("message_id") or str(uuid4())
        command.message_options["message_id"] = id
        attributes: Attributes = {messaging.MESSAGING_MESSAGE_ID: attribute_text(id)}
        if command.correlation_id:
            attributes[messaging.MESSAGING_MESSAGE_CONVERSATION_ID] = attribute_text(
                command.correlation_id
            )
        if command.destination:
            attributes[messaging.MESSAGING_RABBITMQ_DESTINATION_ROUTING_KEY] = attribute_text(
                command.destination
            )
        return attributes

    def consumer_group(self, subscriber: Any) -> str | None:
        return getattr(getattr(subscriber, "queue", None), "name", None)

    def published_at(self, message: Delivered) -> Sequence[float]:
        """Unix seconds, by the sender's clock."""
        messages = message if isinstance(message, Sequence) else (message,)
        return [at for at in map(published_at, messages) if at > 0]


def _headers(message: AbstractIncomingMessage) -> dict[str, str]:
    """Headers as text. Invalid UTF-8 becomes replacement characters."""
    headers = {
        name: value if isinstance(value, str) else decoded(bytes(value))
        for name, value in message.headers.items()
        if isinstance(value, str | bytes | bytearray)
    }
    if message.correlation_id:
        headers[CORRELATION_ID] = message.correlation_id
    return headers


def _identity(message: AbstractIncomingMessage) -> Attributes:
    attributes: Attributes = {}
    if message.message_id:
        attributes[messaging.MESSAGING_MESSAGE_ID] = attribute_text(message.message_id)
    if message.delivery_tag is not None:
        attributes[messaging.MESSAGING_RABBITMQ_MESSAGE_DELIVERY_TAG] = message.delivery_tag
    return attributes


def _attributes(message: AbstractIncomingMessage) -> Attributes:
    attributes = _identity(message)
    attributes[messaging.MESSAGING_MESSAGE_BODY_SIZE] = len(message.body)
    if message.correlation_id:
        attributes[messaging.MESSAGING_MESSAGE_CONVERSATION_ID] = attribute_text(
            message.correlation_id
        )
    if message.routing_key:
        attributes[messaging.MESSAGING_RABBITMQ_DESTINATION_ROUTING_KEY] = attribute_text(
            message.routing_key
        )
    return attributes


def _batch_attributes(messages: Sequence[AbstractIncomingMessage]) -> Attributes:
    return {
        messaging.MESSAGING_BATCH_MESSAGE_COUNT: len(messages),
        messaging.MESSAGING_MESSAGE_BODY_SIZE: sum(len(one.body) for one in messages),
    }


def attribute_text(value: str) -> str:
    """A name or an id as an attribute, cut at `MAX_TEXT`: the sender chooses its length."""
    return bounded(value, MAX_TEXT)
