"""Kafka: the one module that knows which broker this is."""

import asyncio
import copy
import logging
from collections.abc import Callable, Sequence
from typing import Any

from aiokafka import ConsumerRecord
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import (
    KafkaError,
    MessageSizeTooLargeError,
    TopicAlreadyExistsError,
    for_code,
)
from faststream import AckPolicy
from faststream.exceptions import IncorrectState
from faststream.kafka import KafkaBroker, Topic
from faststream.message import StreamMessage

from .channels import CHANNELS, DEAD_LETTERS, Publisher
from .contracts import Event
from .retry import DeadLetter, RetryPolicy
from .settings import Settings
from .telemetry import Telemetry
from .telemetry.kafka import KafkaTelemetryMiddleware
from .telemetry.kafka_prometheus import KafkaPrometheusMiddleware
from .telemetry.middleware import error_type
from .telemetry.prometheus import MessagingMetrics, ServiceRegistry

PARTITIONS = 3
PUBLISH_TIMEOUT_SECONDS = 5.0
# The dead-letter topic takes what any other does, plus the headers that say why.
MAX_MESSAGE_BYTES = 2 * 1_048_576
MAX_DEAD_LETTER_BYTES = MAX_MESSAGE_BYTES + 65_536

Unavailable = (KafkaError, IncorrectState, OSError)
"""What publishing raises while the broker cannot be reached."""
TooLarge = MessageSizeTooLargeError


def make_broker(
    settings: Settings, telemetry: Telemetry, registry: ServiceRegistry, service: str
) -> KafkaBroker:
    """Make the broker of a service: telemetry first, so that all else runs inside of its spans."""
    metrics = MessagingMetrics(registry)
    counting = (
        [KafkaPrometheusMiddleware(registry=registry, metrics=metrics, app_name=service)]
        if settings.messaging_metrics == "prometheus"
        else []
    )
    policy = RetryPolicy(
        attempts=settings.retry_attempts,
        backoff=settings.retry_backoff_seconds,
        timeout=settings.handler_timeout_seconds,
        bury=lambda letter: _bury(broker, letter, metrics),
        retried=lambda message: metrics.retry(_first(message).topic),
        singles=_singles,
    )
    broker = KafkaBroker(
        settings.broker_url.split(","),
        client_id=service,
        acks="all",
        max_request_size=MAX_DEAD_LETTER_BYTES,
        graceful_timeout=settings.drain_timeout_seconds,
        # The retry policy ends every failure in the dead letters. What escapes it could not be
        # buried, so it is read again rather than lost.
        ack_policy=AckPolicy.NACK_ON_ERROR,
        parser=_tolerant_parser,
        middlewares=[
            KafkaTelemetryMiddleware(
                **telemetry.providers, server_address=settings.broker_url.partition(":")[0]
            ),
            *counting,
            policy,
        ],
        logger=logging.getLogger("faststream.messages"),
        # "Received" and "Processed" of every message cost a fifth of its time: the trace has both.
        log_level=logging.DEBUG,
    )
    return broker


def subscriber(
    broker: KafkaBroker, channel: str, *, service: str, batch: bool = False
) -> Callable[[Callable[..., Any]], Any]:
    """Subscribe a handler. Each has a consumer group of its own, so none rebalances another."""
    options: dict[str, Any] = {
        "group_id": f"{service}.{channel}",
        # `latest` would skip what was published before the group first committed.
        "auto_offset_reset": "earliest",
        "max_partition_fetch_bytes": MAX_DEAD_LETTER_BYTES,
    }
    if batch:
        options |= {"batch": True, "max_records": 100, "batch_timeout_ms": 200}
    # Topics are made by `create_channels` before any service starts, with their limits.
    decorate: Callable[[Callable[..., Any]], Any] = broker.subscriber(
        Topic(channel, declare=False), **options
    )
    return decorate


def publisher(broker: KafkaBroker, channel: str, schema: Any | None = None) -> Publisher:
    """Declare a channel that a service publishes to."""
    made: Publisher = broker.publisher(channel, schema=schema)
    return made


async def send(publisher: Publisher, event: Event) -> None:
    """Publish an event; those of one order keep their order, since they share a key.

    Raises:
        Unavailable: The broker did not confirm it.
        TooLarge: The broker does not take messages of this size.
    """
    # The client's own limit is 40 s, and a shorter one would also end its requests to join a
    # consumer group, which rightly take as long as the other members need.
    async with asyncio.timeout(PUBLISH_TIMEOUT_SECONDS):
        await publisher.publish(event, key=event.order_id.encode())


async def create_channels(settings: Settings) -> None:
    """Create all topics that do not exist yet.

    Raises:
        KafkaError: The broker cannot be reached, or refuses.
    """
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.broker_url.split(","))
    await admin.start()
    try:
        for channel in CHANNELS:
            limit = MAX_DEAD_LETTER_BYTES if channel == DEAD_LETTERS else MAX_MESSAGE_BYTES
            answer = await admin.create_topics(
                [
                    NewTopic(
                        channel,
                        num_partitions=PARTITIONS,
                        replication_factor=-1,  # the broker's default
                        replica_assignments={},  # aiokafka asks for them beside a -1
                        topic_configs={"max.message.bytes": str(limit)},
                    )
                ]
            )
            for name, code, *reason in answer.topic_errors:
                error = for_code(code)
                if code and error is not TopicAlreadyExistsError:
                    raise error(f"topic {name}: {' '.join(map(str, reason))}")
    finally:
        await admin.close()


async def _bury(broker: KafkaBroker, letter: DeadLetter, metrics: MessagingMetrics) -> None:
    record = _first(letter.message)
    with metrics.dead_letter(record.topic, letter.error, letter.message.headers):
        await broker.publish(
            record.value or b"",
            DEAD_LETTERS,
            key=record.key,
            correlation_id=letter.message.correlation_id,
            headers={
                "content-type": letter.message.content_type or "",
                "dead-letter.topic": record.topic,
                "dead-letter.partition": str(record.partition),
                "dead-letter.offset": str(record.offset),
                "dead-letter.attempts": str(letter.attempts),
                "dead-letter.error.type": error_type(letter.error),
                "dead-letter.reason": str(letter.error)[:1000],
            },
        )


def _first(message: StreamMessage[Any]) -> "ConsumerRecord[Any, Any]":
    raw = message.raw_message
    record: ConsumerRecord[Any, Any] = raw[0] if isinstance(raw, tuple) else raw
    return record


def _singles(message: StreamMessage[Any]) -> list[StreamMessage[Any]]:
    if not isinstance(message.raw_message, tuple) or len(message.raw_message) == 1:
        return [message]
    singles = []
    for position, record in enumerate(message.raw_message):
        single = copy.copy(message)
        single.raw_message = (record,)
        single.body = [message.body[position]]
        single.batch_headers = [message.batch_headers[position]]
        single.headers = single.batch_headers[0]
        single.correlation_id = single.headers.get("correlation_id", single.correlation_id)
        single.content_type = single.headers.get("content-type")
        single.message_id = f"{record.offset}-{record.timestamp}"
        singles.append(single)
    return singles


async def _tolerant_parser(message: Any, parse: Callable[[Any], Any]) -> StreamMessage[Any]:
    """Parse a message also when a header is not UTF-8, over which FastStream drops the message."""
    if isinstance(message, Sequence):
        message = tuple(_with_readable_headers(record) for record in message)
    else:
        message = _with_readable_headers(message)
    parsed: StreamMessage[Any] = await parse(message)
    return parsed


def _with_readable_headers(record: Any) -> Any:
    try:
        for _, value in record.headers:
            (value or b"").decode()
    except UnicodeDecodeError:
        record = copy.copy(record)
        object.__setattr__(
            record,
            "headers",
            tuple((name, (value or b"").decode(errors="replace").encode())
                  for name, value in record.headers),
        )  # fmt: skip
    return record
