"""Retry and dead letters for any FastStream broker for RabbitMQ."""

import logging
from typing import Any

from faststream import AckPolicy, BaseMiddleware, ContextRepo, PublishCommand
from faststream.rabbit import Channel, RabbitBroker
from opentelemetry.trace import TracerProvider

from ..messages._faststream import current_subscriber
from ..messages.prometheus import MessagingMetrics
from ..messages.retry import RetryMiddleware, RetryPolicy
from ..messages.validation import MessageSerializer
from . import _pika
from .messages import RabbitMessages

logger = logging.getLogger(__name__)


class RabbitRetryMiddleware:
    """Retries a failing handler in process, then publishes its message to `dead-letters`.

    Put it last in the broker's `middlewares`, and pass its options to the broker:

        retry = RabbitRetryMiddleware()
        broker = RabbitBroker(
            "amqp://localhost",
            middlewares=[RabbitTelemetryMiddleware(**telemetry.providers), retry],
            **retry.broker_options,
        )

    One object serves any number of brokers. A dead letter goes to the broker that the message came
    from, to the exchange `dead-letters`; the first one creates it, with its stream.

    Args:
        policy: How often, and for how long. Default: 3 attempts of 10 s each, 0.2 s before the
            second.
        tracer_provider: For the spans of retries. Default: the global one.
        metrics: Counts retries and dead letters. Default: no counting.
    """

    def __init__(
        self,
        policy: RetryPolicy | None = None,
        *,
        tracer_provider: TracerProvider | None = None,
        metrics: MessagingMetrics | None = None,
    ) -> None:
        _pika.apply()
        self.policy = policy or RetryPolicy()
        self._tracer_provider = tracer_provider
        self._metrics = metrics
        self._outside = self._make(None)
        self._of: dict[RabbitBroker, RetryMiddleware] = {}
        self._checked: set[Any] = set()

    @property
    def broker_options(self) -> dict[str, Any]:
        """Options for `RabbitBroker`, so that no message is lost or redelivered without end.

        - `ack_policy`: a message is acknowledged when it was handled or is a dead letter. A
          `RabbitRouter` needs it too: `RabbitRouter(ack_policy=AckPolicy.NACK_ON_ERROR)`.
        - `default_channel`: a consumer gets one message at a time, rather than all at once; and a
          message that no queue takes, such as a dead letter, raises an error.
        - `serializer`: a message that does not fit the handler's types is not retried.
        """
        return {
            "ack_policy": AckPolicy.NACK_ON_ERROR,
            "default_channel": Channel(prefetch_count=1, on_return_raises=True),
            "serializer": MessageSerializer(),
        }

    def __call__(
        self, msg: Any | None, /, *, context: ContextRepo
    ) -> BaseMiddleware[PublishCommand, Any]:
        # FastStream's `Context("broker")`; None outside of a message.
        broker = context.get_local("broker")
        if msg is None or broker is None:
            return self._outside(msg, context=context)
        self._check(current_subscriber(context))
        made = self._of.get(broker)
        if made is None:
            made = self._of[broker] = self._make(broker)
        return made(msg, context=context)

    def _make(self, broker: RabbitBroker | None) -> RetryMiddleware:
        return RetryMiddleware(
            self.policy,
            RabbitMessages(broker),
            tracer_provider=self._tracer_provider,
            metrics=self._metrics,
        )

    def _check(self, subscriber: Any) -> None:
        """Warn once about a subscriber that can lose messages in spite of retries."""
        if subscriber is None or subscriber in self._checked:
            return
        self._checked.add(subscriber)
        queue = getattr(subscriber, "queue", None)
        if getattr(subscriber, "ack_policy", None) is AckPolicy.ACK_FIRST:
            logger.warning(
                "The subscriber of %s acknowledges a message before it is handled. The message is"
                " lost if the process ends meanwhile, or if the broker does not accept its dead"
                " letter. Use RabbitBroker(…, **retry.broker_options). A RabbitRouter does not take"
                " over its broker's policy: pass it ack_policy=AckPolicy.NACK_ON_ERROR.",
                getattr(queue, "name", ""),
            )
        elif queue is not None and not queue.durable:
            logger.warning(
                "The queue %s is not durable: its messages are lost when RabbitMQ restarts. Declare"
                " it for example as RabbitQueue(%r, queue_type=QueueType.QUORUM).",
                queue.name, queue.name,
            )  # fmt: skip
