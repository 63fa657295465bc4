"""The lag of RabbitMQ's queues."""

from collections.abc import Collection

from aio_pika.abc import AbstractConnection
from aio_pika.exceptions import ChannelNotFoundEntity

from ..messages.broker import Group, Lag
from .security import connected
from .settings import RabbitSettings

CLIENT = "lag"


async def lag(settings: RabbitSettings, groups: Collection[Group]) -> list[Lag]:
    """See `Broker.lag`.

    AMQP counts only ready messages. RabbitMQ's own metrics have those in flight.

    Args:
        groups: Each one's name is that of its queue. A queue that does not exist has no lag.

    Raises:
        Unreachable: The text says why.
    """
    found = []
    async with connected(settings, CLIENT) as connection:
        for channel, queue in groups:
            try:
                ready, _ = await standing(connection, queue)
            except ChannelNotFoundEntity:
                continue
            found.append(Lag(channel, queue, ready=ready, in_flight=0))
    return found


async def standing(connection: AbstractConnection, queue: str) -> tuple[int, int]:
    """The number of ready messages in a queue, and of its consumers.

    Raises:
        ChannelNotFoundEntity: There is no such queue.
    """
    # A channel of its own: RabbitMQ closes it if there is no such queue.
    transport = connection.transport
    if transport is None:
        raise ConnectionError("not connected")
    channel = await transport.connection.channel(publisher_confirms=False)
    try:
        found = await channel.queue_declare(queue, passive=True)
        return found.message_count or 0, found.consumer_count or 0
    finally:
        if not channel.is_closed:
            await channel.close()
