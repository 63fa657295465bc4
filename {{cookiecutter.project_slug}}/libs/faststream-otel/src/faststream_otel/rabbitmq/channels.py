"""Creates exchanges and queues.

A channel is a durable fanout exchange. Each service that consumes it has a quorum queue that is
bound to it. RabbitMQ keeps messages only in queues: what is published before a queue exists never
gets there. The dead letters are a stream, a queue that keeps what was read.
"""

from typing import Any

from aio_pika import ExchangeType
from aio_pika.abc import AbstractChannel, AbstractExchange, AbstractQueue
from faststream.rabbit import QueueType, RabbitQueue

from ..messages.dead_letters import DEAD_LETTERS

# Practically none. RabbitMQ 4 drops a message after 20 redeliveries by default. -1 would be worse:
# a redelivered message would go to the end of its queue, and RabbitMQ 3 would drop it at once.
DELIVERY_LIMIT = 2**31 - 1
# Practically none. RabbitMQ's default is 30 minutes: what a handler has not acknowledged by then is
# taken from it and delivered again, so one that is slower would never end. The library's own limits
# end a handler that hangs. As a number, not from the settings: a queue cannot change its arguments.
CONSUMER_TIMEOUT_MS = 2**31 - 1
# A stream drops old messages in whole segments, never the last one.
SEGMENT_BYTES = 50_000_000


def service_queue(name: str) -> RabbitQueue:
    """A service's queue of a channel."""
    arguments: Any = {
        "x-delivery-limit": DELIVERY_LIMIT,
        "x-consumer-timeout": CONSUMER_TIMEOUT_MS,  # RabbitMQ before 3.12 ignores it
    }
    return RabbitQueue(name, queue_type=QueueType.QUORUM, arguments=arguments)


def dead_letter_stream() -> RabbitQueue:
    """The stream of the dead letters."""
    return RabbitQueue(
        DEAD_LETTERS,
        queue_type=QueueType.STREAM,
        arguments={
            "x-max-age": "30D",  # dead letters wait for people
            "x-stream-max-segment-size-bytes": SEGMENT_BYTES,
        },
    )


async def create_exchange(channel: AbstractChannel, name: str) -> AbstractExchange:
    """Create the exchange of a channel, if there is none."""
    return await channel.declare_exchange(name, ExchangeType.FANOUT, durable=True)


async def create_queue(channel: AbstractChannel, name: str, of: str) -> None:
    """Create a service's queue of a channel, and the channel, if there is none."""
    exchange = await create_exchange(channel, of)
    queue = await _declare(channel, service_queue(name))
    await queue.bind(exchange, name)


async def create_dead_letters(channel: AbstractChannel) -> None:
    """Create the channel of the dead letters and its stream, if there is none."""
    exchange = await create_exchange(channel, DEAD_LETTERS)
    stream = await _declare(channel, dead_letter_stream())
    await stream.bind(exchange, "")


async def _declare(channel: AbstractChannel, queue: RabbitQueue) -> AbstractQueue:
    return await channel.declare_queue(queue.name, durable=True, arguments=queue.arguments)
