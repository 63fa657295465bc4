"""Retry and dead letters for any FastStream broker for RabbitMQ."""

from typing import Any

from faststream.rabbit import Channel, RabbitBroker

from ..messages.own_broker import OwnBrokerRetryMiddleware
from . import _pika
from .messages import RabbitMessages, parse


class RabbitRetryMiddleware(OwnBrokerRetryMiddleware):
    """Retries a failing handler in process, then publishes its message to `dead-letters`.

    Put it last in the broker's `middlewares`, and pass its options to the broker:

        retry = RabbitRetryMiddleware()
        broker = RabbitBroker(
            "amqp://localhost",
            middlewares=[RabbitTelemetryMiddleware(**telemetry.providers), retry],
            **retry.broker_options,
        )

    The first dead letter creates the exchange `dead-letters` and its stream.
    `OwnBrokerRetryMiddleware` lists the arguments.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        _pika.apply()
        super().__init__(*arguments, **options)

    @property
    def broker_options(self) -> dict[str, Any]:
        """See `OwnBrokerRetryMiddleware`.

        - `default_channel`: a consumer gets one message at a time, by itself it gets all at once;
          and a message that no queue takes raises an error, by itself it is lost.
        - `parser`: a message without an id has the same one at each delivery.
        """
        channel = Channel(prefetch_count=1, on_return_raises=True)
        return super().broker_options | {"default_channel": channel, "parser": parse}

    def _messages(self, broker: RabbitBroker | None) -> RabbitMessages:
        return RabbitMessages(broker)

    def _channel(self, subscriber: Any) -> str:
        return str(getattr(getattr(subscriber, "queue", None), "name", ""))

    def _weakness(self, subscriber: Any) -> str:
        queue = getattr(subscriber, "queue", None)
        found = super()._weakness(subscriber)
        if not found and queue is not None and not queue.durable:
            return (
                "has a queue that is not durable: its messages are lost when RabbitMQ restarts."
                f" Pass for example RabbitQueue({queue.name!r}, queue_type=QueueType.QUORUM)."
            )
        return found
