"""The brokers that the suite runs against, one row each.

A new broker adds a row here, and the start of its server to `servers.py`.
"""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import Flag, auto

from faststream_otel.kafka import KafkaSettings
from faststream_otel.messages.broker import Headers
from faststream_otel.nats import NatsSettings
from faststream_otel.settings import Settings

from . import servers


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


@dataclass(frozen=True)
class Server:
    """A server of a broker.

    Attributes:
        start: Yields its BROKER_URL; raises `servers.Missing` if this machine lacks it.
    """

    start: Callable[[], AbstractContextManager[str]]
    features: Features


@dataclass(frozen=True)
class Row:
    """A broker.

    Attributes:
        settings: The settings class of a service that uses it.
        publish: Publishes without the library. Takes URL, channel, body, key, headers.
        servers: A test uses the first available server with the features that it needs.
    """

    settings: type[Settings]
    publish: Callable[[str, str, bytes | None, bytes | None, Headers], Awaitable[None]]
    servers: Sequence[Server]


KAFKA = Features.KEYS | Features.ANY_HEADERS | Features.NO_BODY

BROKERS = {
    "kafka": Row(
        settings=KafkaSettings,
        publish=servers.publish_to_kafka,
        servers=[
            Server(servers.kafka, KAFKA | Features.CHANNELS | Features.SIZE | Features.BATCHES),
            Server(servers.embedded_kafka, KAFKA),
        ],
    ),
    "nats": Row(
        settings=NatsSettings,
        publish=servers.publish_to_nats,
        servers=[
            Server(
                servers.embedded_nats,
                Features.CHANNELS | Features.SIZE | Features.KEYS | Features.BATCHES,
            ),
        ],
    ),
}
