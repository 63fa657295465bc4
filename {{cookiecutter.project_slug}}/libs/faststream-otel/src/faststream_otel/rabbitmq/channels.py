"""Creates exchanges and queues.

A channel is a durable fanout exchange. Each service that consumes it has a quorum queue that is
bound to it. RabbitMQ keeps messages only in queues: what is published before a queue exists never
gets there. The dead letters are a stream, a queue that keeps what was read.
"""

from typing import Any

from aio_pika import ExchangeType
from aio_pika.abc import AbstractChannel, AbstractExchange, AbstractQueue

from ..messages.dead_letters import DEAD_LETTERS

# Practically none. RabbitMQ 4 drops a message after 20 redeliveries by default. -1 would be worse:
# a redelivered message would go to the end of its queue, and RabbitMQ 3 would drop it at once.
DELIVERY_LIMIT = 2**31 - 1
QUORUM_QUEUE: dict[str, Any] = {"x-queue-type": "quorum", "x-delivery-limit": DELIVERY_LIMIT}
DEAD_LETTER_STREAM: dict[str, Any] = {
    "x-queue-type": "stream",
    "x-max-age": "30D",  # dead letters wait for people
    # A stream drops what is too old in whole segments, never the last one.
    "x-stream-max-segment-size-bytes": 50_000_000,
}


async def create_exchange(channel: AbstractChannel, name: str) -> AbstractExchange:
    """Create the exchange of a channel, if there is none."""
    return await channel.declare_exchange(name, ExchangeType.FANOUT, durable=True)


async def create_queue(channel: AbstractChannel, name: str, of: str) -> None:
    """Create a service's queue of a channel, and the channel, if there is none."""
    exchange = await create_exchange(channel, of)
    queue = await channel.declare_queue(name, durable=True, arguments=QUORUM_QUEUE)
    await queue.bind(exchange, name)


async def create_dead_letters(channel: AbstractChannel) -> AbstractQueue:
    """Create the channel of the dead letters and its stream, if there is none."""
    exchange = await create_exchange(channel, DEAD_LETTERS)
    stream = await channel.declare_queue(DEAD_LETTERS, durable=True, arguments=DEAD_LETTER_STREAM)
    await stream.bind(exchange, "")
    return stream
