"""The telemetry middleware for NATS.

The messaging semantic conventions 1.44 have no section about NATS. Chosen here, by their general
rules, and as close to their other brokers as possible:

- `messaging.system` is `nats`: the conventions allow custom values.
- `messaging.destination.name` is the subject: sender and receiver both know it, unlike the stream.
- `messaging.destination.template` is what the subscriber was declared with, such as `orders.*`, and
  otherwise the subject. It names spans and groups metrics, so it must not vary with each message.
- `messaging.consumer.group.name` is the durable consumer, or the queue group of core NATS: in both,
  one member gets a message.
- `messaging.message.id` is the message's number in its stream: only the server sets it. A message
  of core NATS has none.
"""

from collections.abc import Sequence
from typing import Any

from faststream.nats.response import NatsPublishCommand
from nats.aio.msg import Msg
from nats.errors import NotJSMessageError
from opentelemetry.metrics import Meter, MeterProvider
from opentelemetry.trace import TracerProvider

from ..messages.middleware import Destination, LinkedTelemetryMiddleware, Received
from ..telemetry import semconv as messaging
from ..telemetry.errors import MAX_TEXT, bounded
from ..telemetry.values import Attributes
from .messages import sequence


class NatsTelemetryMiddleware(LinkedTelemetryMiddleware):
    """A drop-in replacement for `faststream.nats.opentelemetry.NatsTelemetryMiddleware`.

    `messages.middleware` lists the differences, `LinkedTelemetryMiddleware` the arguments. Put it
    first in the broker's `middlewares`, so that the others run inside its spans.
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
        super().__init__(
            conventions=NatsConventions(),
            tracer_provider=tracer_provider,
            meter_provider=meter_provider,
            meter=meter,
            include_messages_counters=include_messages_counters,
            server_address=server_address,
            server_port=server_port,
        )


class NatsConventions:
    """See `BrokerConventions` of `messages.middleware`, `MetricConventions` of `.prometheus`."""

    system = "nats"

    def received_from(self, message: Msg | Sequence[Msg], subscriber: Any) -> Destination:
        first = message[0] if isinstance(message, Sequence) else message
        subject = getattr(subscriber, "subject", None)
        channel = getattr(subject, "template", "") or first.subject
        # For a pattern, each message's own subject is among the attributes of `received`.
        return Destination(channel, channel)

    def received(self, message: Msg | Sequence[Msg]) -> Received:
        if isinstance(message, Sequence):
            return Received(
                headers=[one.headers or {} for one in message],
                attributes=lambda: _batch_attributes(message),
                batch=True,
                link_attributes=[_id(one) for one in message],
            )
        return Received(headers=(message.headers or {},), attributes=lambda: _attributes(message))

    def sent_to(self, command: NatsPublishCommand) -> Destination:
        return Destination(command.destination, command.destination)

    def send_attributes(self, command: NatsPublishCommand) -> Attributes:
        return _conversation(command.correlation_id)

    def consumer_group(self, subscriber: Any) -> str | None:
        durable = getattr(getattr(subscriber, "config", None), "durable_name", None)
        return durable or getattr(subscriber, "queue", None) or None

    def published_at(self, message: Msg | Sequence[Msg]) -> Sequence[float]:
        """Unix seconds, by the server's clock, which stamps a message when it stores it."""
        messages = message if isinstance(message, Sequence) else (message,)
        try:
            return [one.metadata.timestamp.timestamp() for one in messages]
        except NotJSMessageError:
            return ()


def _id(message: Msg) -> Attributes:
    number = sequence(message)
    return {} if number is None else {messaging.MESSAGING_MESSAGE_ID: str(number)}


def _attributes(message: Msg) -> Attributes:
    return {
        **_id(message),
        **_conversation((message.headers or {}).get("correlation_id")),
        messaging.MESSAGING_DESTINATION_NAME: message.subject,
        messaging.MESSAGING_MESSAGE_BODY_SIZE: len(message.data),
    }


def _batch_attributes(messages: Sequence[Msg]) -> Attributes:
    return {
        messaging.MESSAGING_BATCH_MESSAGE_COUNT: len(messages),
        messaging.MESSAGING_MESSAGE_BODY_SIZE: sum(len(one.data) for one in messages),
    }


def _conversation(correlation_id: str | None) -> Attributes:
    if not correlation_id:
        return {}
    return {messaging.MESSAGING_MESSAGE_CONVERSATION_ID: bounded(correlation_id, MAX_TEXT)}
