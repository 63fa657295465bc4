"""The lag of RabbitMQ's queues."""

from collections.abc import Collection

from aio_pika.abc import AbstractConnection
from aio_pika.exceptions import ChannelNotFoundEntity
from aiormq.abc import AbstractChannel

from ..messages.broker import Group, Lag
from .in_flight import InFlight
from .security import connected
from .settings import RabbitSettings

CLIENT = "lag"


async def lag(
    settings: RabbitSettings, in_flight: InFlight, groups: Collection[Group]
) -> list[Lag]:
    """See `Broker.lag`.

    Args:
        groups: Each one's name is that of its queue. A queue that does not exist has no lag.

    Raises:
        Unreachable: The text says why.
    """
    ready = {}
    async with connected(settings, CLIENT) as connection:
        for channel, queue in groups:
            try:
                ready[channel, queue] = await ready_messages(connection, queue)
            except ChannelNotFoundEntity:
                continue
    delivered = await in_flight.by_queue()
    return [
        Lag(channel, queue, ready=number, in_flight=delivered.get(queue))
        for (channel, queue), number in ready.items()
    ]


async def open_channel(
    connection: AbstractConnection, seconds: float | None = None
) -> AbstractChannel:
    """Open a channel that aio-pika does not open again after a reconnect.

    Raises:
        ConnectionError: The client is not connected.
        TimeoutError: The broker does not answer in time.
    """
    transport = connection.transport
    if transport is None or transport.connection.is_closed:
        raise ConnectionError("not connected")
    return await transport.connection.channel(publisher_confirms=False, timeout=seconds)


async def ready_messages(connection: AbstractConnection, queue: str) -> int:
    """The number of messages in a queue that were not delivered yet.

    Raises:
        ChannelNotFoundEntity: There is no such queue.
    """
    channel = await open_channel(connection)  # RabbitMQ closes it if there is no such queue
    try:
        found = await channel.queue_declare(queue, passive=True)
        return found.message_count or 0
    finally:
        if not channel.is_closed:
            await channel.close()
