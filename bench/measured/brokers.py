"""FastStream's own broker of each kind, as its documentation makes it.

The channels are those that a service of the library finds, so each variant consumes from the same.
"""

import os
from abc import ABC, abstractmethod
from typing import Any, ClassVar

from faststream.security import SASLPlaintext

from .flow import group


class Stock(ABC):
    """A broker, and how to consume from its channels and publish to them, one at a time in order.

    Attributes:
        title: Its name, for people.
        library: The folder of faststream_otel.
        faststream: FastStream's own package.
        prefix: How the names of classes begin.
    """

    title: ClassVar[str]
    library: ClassVar[str]
    faststream: ClassVar[str]
    prefix: ClassVar[str]
    broker: Any

    @abstractmethod
    def __init__(self, url: str, **options: Any) -> None:
        """Make the broker, with options for FastStream's class. Does not connect."""

    @abstractmethod
    def subscriber(self, channel: str) -> Any:
        """Decorate the handler of a channel."""

    @abstractmethod
    def publisher(self, channel: str) -> Any:
        """Decorate a handler whose results are published, and confirmed by the broker."""


class Kafka(Stock):
    title = "Kafka"
    library, faststream, prefix = "kafka", "kafka", "Kafka"

    def __init__(self, url: str, **options: Any) -> None:
        from faststream.kafka import KafkaBroker

        self.broker = KafkaBroker(url, **options)

    def subscriber(self, channel: str) -> Any:
        return self.broker.subscriber(
            channel, group_id=group(channel), auto_offset_reset="earliest"
        )

    def publisher(self, channel: str) -> Any:
        return self.broker.publisher(channel)


class RabbitMQ(Stock):
    title = "RabbitMQ"
    library, faststream, prefix = "rabbitmq", "rabbit", "Rabbit"

    def __init__(self, url: str, **options: Any) -> None:
        from faststream.rabbit import Channel, RabbitBroker

        self.broker = RabbitBroker(
            f"amqp://{url}/",
            security=credentials(),
            default_channel=Channel(prefetch_count=1, on_return_raises=True),
            **options,
        )

    def subscriber(self, channel: str) -> Any:
        from faststream.rabbit import RabbitQueue

        queue = RabbitQueue(group(channel), declare=False)
        return self.broker.subscriber(queue, self._exchange(channel))

    def publisher(self, channel: str) -> Any:
        return self.broker.publisher(exchange=self._exchange(channel), persist=True)

    def _exchange(self, channel: str) -> Any:
        from faststream.rabbit import ExchangeType, RabbitExchange

        return RabbitExchange(channel, type=ExchangeType.FANOUT, declare=False)


class NATS(Stock):
    title = "NATS"
    library, faststream, prefix = "nats", "nats", "Nats"

    def __init__(self, url: str, **options: Any) -> None:
        from faststream.nats import NatsBroker

        self.broker = NatsBroker(f"nats://{url}", security=credentials(), **options)

    def subscriber(self, channel: str) -> Any:
        from faststream.nats import JStream, PullSub

        return self.broker.subscriber(
            channel,
            stream=JStream(channel, declare=False),
            durable=group(channel).replace(".", "-"),
            pull_sub=PullSub(batch_size=1),
        )

    def publisher(self, channel: str) -> Any:
        from faststream.nats import JStream

        # By default it waits for half a second, which is short for a machine that is busy.
        return self.broker.publisher(channel, stream=JStream(channel, declare=False), timeout=5)


BROKERS: dict[str, type[Stock]] = {"kafka": Kafka, "rabbitmq": RabbitMQ, "nats": NATS}


def credentials() -> SASLPlaintext | None:
    """BROKER_USERNAME and BROKER_PASSWORD."""
    username = os.environ.get("BROKER_USERNAME")
    return SASLPlaintext(username, os.environ.get("BROKER_PASSWORD", "")) if username else None
