"""The measured pipeline on each broker: FastStream's own broker and nothing else.

Channels are durable, publications confirmed, and a message is acknowledged after its handler, as in
what is baked.
"""

import functools
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

from faststream import AckPolicy
from faststream.security import SASLPlaintext

DELIVERY_LIMIT = 2**31 - 1
"""As in what is baked, practically none."""
QUEUE_EXPIRES_MS = 600_000


class Pipeline(ABC):
    """A broker, and how to consume from its channels and publish to them.

    Attributes:
        library: The folder of faststream_otel with the drop-in middlewares.
        faststream: FastStream's own package.
        prefix: How the names of middlewares begin.
    """

    library: ClassVar[str]
    faststream: ClassVar[str]
    prefix: ClassVar[str]
    broker: Any

    @abstractmethod
    def __init__(self, url: str, **options: Any) -> None:
        """Make the broker, with options for FastStream's class. Does not connect."""

    @abstractmethod
    def subscriber(self, channel: str) -> Callable[..., Any]:
        """Decorate the handler of a channel."""

    @abstractmethod
    async def publish(self, body: int, channel: str) -> object:
        """Publish a message, and wait until the broker has confirmed it."""

    async def create(self, channels: Iterable[str]) -> None:  # noqa: B027
        """Create what FastStream does not create at the start."""

    async def delete(self, channels: Iterable[str]) -> None:  # noqa: B027
        """Delete what the broker would keep."""


class Kafka(Pipeline):
    library, faststream, prefix = "kafka", "kafka", "Kafka"

    def __init__(self, url: str, **options: Any) -> None:
        from faststream.kafka import KafkaBroker

        self.url = url
        self.broker = KafkaBroker(url, acks="all", enable_idempotence=True, **options)

    def subscriber(self, channel: str) -> Any:
        return self.broker.subscriber(channel, group_id=channel, auto_offset_reset="earliest")

    async def publish(self, body: int, channel: str) -> object:
        return await self.broker.publish(body, channel)

    async def delete(self, channels: Iterable[str]) -> None:
        from aiokafka.admin import AIOKafkaAdminClient

        admin = AIOKafkaAdminClient(bootstrap_servers=self.url)
        await admin.start()
        try:
            await admin.delete_topics(list(channels))
        finally:
            await admin.close()


class RabbitMQ(Pipeline):
    library, faststream, prefix = "rabbitmq", "rabbit", "Rabbit"

    def __init__(self, url: str, **options: Any) -> None:
        from faststream.rabbit import Channel, ExchangeType, RabbitBroker, RabbitExchange

        self.broker = RabbitBroker(
            f"amqp://{url}/",
            security=credentials(),
            default_channel=Channel(prefetch_count=1, on_return_raises=True),
            **options,
        )
        # It is deleted with its last queue, which expires.
        self.exchange = functools.cache(
            lambda channel: RabbitExchange(channel, type=ExchangeType.FANOUT, auto_delete=True)
        )

    def subscriber(self, channel: str) -> Any:
        from faststream.rabbit import QueueType, RabbitQueue

        queue = RabbitQueue(
            f"bench.{channel}",
            queue_type=QueueType.QUORUM,
            durable=True,
            arguments={"x-delivery-limit": DELIVERY_LIMIT, "x-expires": QUEUE_EXPIRES_MS},
        )
        return self.broker.subscriber(queue, exchange=self.exchange(channel))

    async def publish(self, body: int, channel: str) -> object:
        return await self.broker.publish(body, exchange=self.exchange(channel), persist=True)


class NATS(Pipeline):
    library, faststream, prefix = "nats", "nats", "Nats"

    def __init__(self, url: str, **options: Any) -> None:
        from faststream.nats import NatsBroker

        self.broker = NatsBroker(f"nats://{url}", security=credentials(), **options)

    def subscriber(self, channel: str) -> Any:
        from faststream.nats import JStream, PullSub

        return self.broker.subscriber(
            channel,
            stream=JStream(channel, declare=False),
            durable=f"bench-{channel}",
            pull_sub=PullSub(batch_size=1),
        )

    async def publish(self, body: int, channel: str) -> object:
        return await self.broker.publish(body, channel, stream=channel)

    async def create(self, channels: Iterable[str]) -> None:
        streams = (await self.broker.connect()).jetstream()
        for channel in channels:
            await streams.add_stream(name=channel, subjects=[channel])

    async def delete(self, channels: Iterable[str]) -> None:
        streams = (await self.broker.connect()).jetstream()
        for channel in channels:
            await streams.delete_stream(channel)


PIPELINES: dict[str, type[Pipeline]] = {"kafka": Kafka, "rabbitmq": RabbitMQ, "nats": NATS}
OPTIONS = {"ack_policy": AckPolicy.NACK_ON_ERROR}


def credentials() -> SASLPlaintext | None:
    """BROKER_USERNAME and BROKER_PASSWORD."""
    username = os.environ.get("BROKER_USERNAME")
    return SASLPlaintext(username, os.environ.get("BROKER_PASSWORD", "")) if username else None
