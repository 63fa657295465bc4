"""The telemetry middleware for Kafka (messaging semantic conventions 1.44, "Kafka")."""

import logging
import sys
from collections.abc import Sequence
from typing import Any, TypeAlias

from aiokafka import ConsumerRecord
from faststream.kafka.response import KafkaPublishCommand
from opentelemetry.metrics import Meter, MeterProvider
from opentelemetry.trace import TracerProvider

from ..messages.middleware import Destination, LinkedTelemetryMiddleware, Received
from ..telemetry import semconv as messaging
from ..telemetry.errors import MAX_TEXT, bounded
from ..telemetry.values import Attributes, decoded

Record: TypeAlias = ConsumerRecord[bytes, bytes]
Records: TypeAlias = tuple[Record, ...] | list[Record]
# FastStream's test broker has lists. Not `Sequence`: asking an abstract class takes ten times as
# long, and each message asks several times.
BATCH = (tuple, list)

logger = logging.getLogger(__name__)


class KafkaTelemetryMiddleware(LinkedTelemetryMiddleware):
    """A drop-in replacement for `faststream.kafka.opentelemetry.KafkaTelemetryMiddleware`.

    `messages.middleware` lists the differences, `LinkedTelemetryMiddleware` the arguments. Put it
    first in the broker's `middlewares`, so that the others run inside its spans. It switches off
    opentelemetry-instrumentation-aiokafka, which `opentelemetry-instrument` switches on: otherwise
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
        _switch_off_instrumentation()
        super().__init__(
            conventions=KafkaConventions(),
            tracer_provider=tracer_provider,
            meter_provider=meter_provider,
            meter=meter,
            include_messages_counters=include_messages_counters,
            server_address=server_address,
            server_port=server_port,
        )


def _switch_off_instrumentation() -> None:
    module = sys.modules.get("opentelemetry.instrumentation.aiokafka")
    if module and (instrumentor := module.AIOKafkaInstrumentor()).is_instrumented_by_opentelemetry:
        instrumentor.uninstrument()
        logger.info(
            "Switched off opentelemetry-instrumentation-aiokafka: this middleware makes the spans"
            " of messages"
        )


class KafkaConventions:
    """See `BrokerConventions` of `messages.middleware`, `MetricConventions` of `.prometheus`."""

    system = "kafka"

    def received_from(self, message: Record | Records, subscriber: Any) -> Destination:
        first = message[0] if isinstance(message, BATCH) else message
        return Destination(first.topic, first.topic)

    def received(self, message: Record | Records) -> Received:
        if isinstance(message, BATCH):
            return Received(
                headers=[_headers(record) for record in message],
                attributes=lambda: _batch_attributes(message),
                batch=True,
                link_attributes=[_position(record) for record in message],
            )
        headers = _headers(message)
        return Received(
            headers=(headers,),
            attributes=lambda: _attributes(message, headers.get("correlation_id")),
        )

    def sent_to(self, command: KafkaPublishCommand) -> Destination:
        return Destination(command.destination, command.destination)

    def send_attributes(self, command: KafkaPublishCommand) -> Attributes:
        attributes: Attributes = {}
        if command.correlation_id:
            attributes[messaging.MESSAGING_MESSAGE_CONVERSATION_ID] = attribute_text(
                command.correlation_id
            )
        if command.partition is not None:
            attributes[messaging.MESSAGING_DESTINATION_PARTITION_ID] = str(command.partition)
        key = getattr(command, "key", None)
        if key is not None:
            attributes[messaging.MESSAGING_KAFKA_MESSAGE_KEY] = attribute_text(key)
        return attributes

    def consumer_group(self, subscriber: Any) -> str | None:
        return getattr(subscriber, "group_id", None)

    def published_at(self, message: Record | Records) -> Sequence[float]:
        """Unix seconds, by the producer's clock (`message.timestamp.type=CreateTime`)."""
        records = message if isinstance(message, BATCH) else (message,)
        # -1 if the producer omitted it; None in the oldest message format.
        return [record.timestamp / 1000 for record in records if (record.timestamp or 0) > 0]


def _headers(record: Record) -> dict[str, str]:
    """Headers as text. Invalid UTF-8 becomes replacement characters."""
    return {name: decoded(value) for name, value in record.headers if value}


def _position(record: Record) -> Attributes:
    return {
        messaging.MESSAGING_DESTINATION_PARTITION_ID: str(record.partition),
        messaging.MESSAGING_KAFKA_OFFSET: record.offset,
    }


def _attributes(record: Record, correlation_id: str | None) -> Attributes:
    attributes = _position(record)
    attributes[messaging.MESSAGING_MESSAGE_BODY_SIZE] = len(record.value or b"")
    if correlation_id:
        attributes[messaging.MESSAGING_MESSAGE_CONVERSATION_ID] = attribute_text(correlation_id)
    if record.key is not None:
        attributes[messaging.MESSAGING_KAFKA_MESSAGE_KEY] = attribute_text(record.key)
    if record.value is None:
        attributes[messaging.MESSAGING_KAFKA_MESSAGE_TOMBSTONE] = True
    return attributes


def _batch_attributes(records: Sequence[Record]) -> Attributes:
    attributes: Attributes = {
        messaging.MESSAGING_BATCH_MESSAGE_COUNT: len(records),
        messaging.MESSAGING_MESSAGE_BODY_SIZE: sum(len(record.value or b"") for record in records),
    }
    if len({record.partition for record in records}) == 1:
        attributes[messaging.MESSAGING_DESTINATION_PARTITION_ID] = str(records[0].partition)
    return attributes


def attribute_text(value: object) -> str:
    """A key or an id as an attribute, cut at `MAX_TEXT`: the sender chooses its length."""
    return bounded(decoded(value) if isinstance(value, bytes) else str(value), MAX_TEXT)
