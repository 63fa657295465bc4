"""The brokers that the suite runs against: a row each.

The next broker adds a row, and what starts its server to `servers.py`. The suite stays as it is.
"""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import Flag, auto

from faststream_otel.kafka import KafkaSettings
from faststream_otel.messages.broker import Headers
from faststream_otel.settings import Settings

from . import servers


class Features(Flag):
    """What not every broker, or not every server of it, can do."""

    CHANNELS = auto()
    """Creates channels when asked; another one makes them by itself."""
    SIZE = auto()
    """Limits the size of messages."""
    ANY_HEADERS = auto()
    """Keeps headers in their order: names that repeat, any bytes, values that are missing."""
    NO_BODY = auto()
    """Knows messages without a body."""
    KEYS = auto()
    """Keeps the order of messages that have a key in common."""


@dataclass(frozen=True)
class Server:
    """One way to have a server of a broker.

    Attributes:
        start: Yields its BROKER_URL; raises `servers.Missing` where it cannot be had here.
    """

    start: Callable[[], AbstractContextManager[str]]
    features: Features


@dataclass(frozen=True)
class Row:
    """A broker.

    Attributes:
        settings: Those of a service that uses it.
        publish: Publish by another client than the library's: URL, channel, body, key, headers.
        servers: The first that can be had here, and has the features which a test needs, is taken.
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
            Server(servers.kafka, KAFKA | Features.CHANNELS | Features.SIZE),
            Server(servers.embedded_kafka, KAFKA),
        ],
    ),
}
