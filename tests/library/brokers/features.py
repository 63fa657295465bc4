"""The brokers that the suite runs against, one row each.

A new broker adds a row here, and the start of its server to `servers.py`.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import Flag, auto
from typing import Any

from faststream_otel.kafka import KafkaSettings
from faststream_otel.messages.broker import Headers
from faststream_otel.nats import NatsSettings
from faststream_otel.rabbitmq import RabbitSettings
from faststream_otel.settings import Settings

from . import servers
from .servers import Secured


class Features(Flag):
    """Features that some brokers, or some of their servers, lack."""

    CHANNELS = auto()
    """Creates channels on request; other servers create them by themselves."""
    SIZE = auto()
    """Limits the size of messages."""
    ANY_HEADERS = auto()
    """Keeps headers in order, with repeated names, any bytes, and missing values."""
    NO_BODY = auto()
    """Supports messages without a body."""
    KEYS = auto()
    """Keeps the order of messages with the same key."""
    BATCHES = auto()
    """Delivers messages that are waiting as one batch, though they were published one by one."""
    IN_FLIGHT = auto()
    """Lag counts messages that are being handled."""
    REPLICAS = auto()
    """Tells its clients how many copies of a channel it keeps."""
    RESTARTS = auto()
    """`start` yields a `servers.Process`, which can be restarted and frozen."""
    INSTANCES = auto()
    """Supports several instances of a service at once."""
    NAMES_CHANNELS = auto()
    """An error names the channel that nobody has created."""


@dataclass(frozen=True)
class Server:
    """A server of a broker.

    Attributes:
        start: Starts a server with a port and data of its own, and yields it; raises
            `servers.Missing` if this machine lacks it.
    """

    start: Callable[[], AbstractContextManager[servers.Running]]
    features: Features


@dataclass(frozen=True)
class Row:
    """A broker.

    Attributes:
        settings: The settings class of a service that uses it.
        publish: Publishes without the library. Takes URL, channel, body, key, headers.
        servers: A test uses the first available server with the features that it needs.
        message_id: The id of a message, as in `Raw`, from the attributes of its process span.
        quick_redelivery: A context in which new services let their broker redeliver a message after
            these few seconds, if they show no sign of life. Default: the broker has no such time.
        secured: A server with TLS and a password. Default: there is none.
    """

    settings: type[Settings]
    publish: Callable[[str, str, bytes | None, bytes | None, Headers], Awaitable[None]]
    servers: Sequence[Server]
    message_id: Callable[[Mapping[str, Any]], object] = lambda found: found["messaging.message.id"]
    quick_redelivery: Callable[[], AbstractContextManager[float]] | None = None
    secured: Callable[[], AbstractContextManager[Secured]] | None = None


KAFKA = (
    Features.KEYS | Features.ANY_HEADERS | Features.NO_BODY | Features.IN_FLIGHT | Features.REPLICAS
)

BROKERS = {
    "kafka": Row(
        settings=KafkaSettings,
        publish=servers.publish_to_kafka,
        message_id=lambda found: (
            f"{found['messaging.destination.partition.id']}/{found['messaging.kafka.offset']}"
        ),
        quick_redelivery=servers.quick_kafka,
        secured=servers.secured_kafka,
        servers=[
            Server(
                servers.kafka,
                KAFKA
                | Features.CHANNELS
                | Features.SIZE
                | Features.BATCHES
                | Features.RESTARTS
                | Features.INSTANCES
                | Features.NAMES_CHANNELS,
            ),
            Server(servers.embedded_kafka, KAFKA),
        ],
    ),
    "nats": Row(
        settings=NatsSettings,
        publish=servers.publish_to_nats,
        quick_redelivery=servers.quick_nats,
        secured=servers.secured_nats,
        servers=[
            Server(
                servers.nats_server,
                Features.CHANNELS
                | Features.SIZE
                | Features.KEYS
                | Features.BATCHES
                | Features.RESTARTS
                | Features.INSTANCES
                | Features.NAMES_CHANNELS
                | Features.IN_FLIGHT
                | Features.REPLICAS,
            ),
        ],
    ),
    "rabbitmq": Row(
        settings=RabbitSettings,
        publish=servers.publish_to_rabbitmq,
        secured=servers.secured_rabbitmq,
        servers=[
            Server(
                servers.rabbitmq,
                Features.CHANNELS
                | Features.SIZE
                | Features.KEYS
                | Features.BATCHES
                | Features.RESTARTS
                | Features.INSTANCES
                | Features.NAMES_CHANNELS,
            ),
        ],
    ),
}
