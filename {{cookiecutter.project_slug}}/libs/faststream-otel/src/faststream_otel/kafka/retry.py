"""Retry and dead letters for any FastStream broker for Kafka."""

import logging
from typing import Any

from faststream import AckPolicy, BaseMiddleware, ContextRepo, PublishCommand
from faststream.kafka import KafkaBroker
from opentelemetry.trace import TracerProvider

from ..messages._faststream import current_subscriber
from ..messages.prometheus import MessagingMetrics
from ..messages.retry import RetryMiddleware, RetryPolicy
from ..messages.validation import MessageSerializer
from .messages import KafkaMessages, decode, parse

logger = logging.getLogger(__name__)


class KafkaRetryMiddleware:
    """Retries a failing handler in process, then publishes its message to `dead-letters`.

    Put it last in the broker's `middlewares`, and pass its options to the broker:

        retry = KafkaRetryMiddleware()
        broker = KafkaBroker(
            "localhost:9092",
            middlewares=[KafkaTelemetryMiddleware(**telemetry.providers), retry],
            **retry.broker_options,
        )

    One object serves any number of brokers. A dead letter goes to the broker that the message came
    from.

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
        self.policy = policy or RetryPolicy()
        self._tracer_provider = tracer_provider
        self._metrics = metrics
        self._outside = self._make(None)
        self._of: dict[KafkaBroker, RetryMiddleware] = {}
        self._checked: set[Any] = set()

    @property
    def broker_options(self) -> dict[str, Any]:
        """Options for `KafkaBroker`, so that no message is lost or redelivered without end.

        - `ack_policy`: a message is acknowledged when it was handled or is a dead letter. A
          `KafkaRouter` needs it too: `KafkaRouter(ack_policy=AckPolicy.NACK_ON_ERROR)`.
        - `parser`, `decoder`: a message that cannot be read becomes a dead letter. By itself
          FastStream skips it. If you need your own parser, drop ours: FastStream then skips such a
          message.
        - `serializer`: a message that does not fit the handler's types is not retried.
        """
        return {
            "ack_policy": AckPolicy.NACK_ON_ERROR,
            "parser": parse,
            "decoder": decode,
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

    def _make(self, broker: KafkaBroker | None) -> RetryMiddleware:
        return RetryMiddleware(
            self.policy,
            KafkaMessages(broker),
            tracer_provider=self._tracer_provider,
            metrics=self._metrics,
        )

    def _check(self, subscriber: Any) -> None:
        """Warn once about a subscriber that can lose messages in spite of retries."""
        if subscriber is None or subscriber in self._checked:
            return
        self._checked.add(subscriber)
        if getattr(subscriber, "ack_policy", None) is AckPolicy.ACK_FIRST:
            logger.warning(
                "The subscriber of %s acknowledges a message before it is handled. The message is"
                " lost if the process ends meanwhile, or if the broker does not accept its dead"
                " letter. Use KafkaBroker(…, **retry.broker_options). A KafkaRouter does not take"
                " over its broker's policy: pass it ack_policy=AckPolicy.NACK_ON_ERROR.",
                ", ".join(getattr(subscriber, "topic_names", ())),
            )
        elif getattr(subscriber, "group_id", None) is None:
            logger.warning(
                "The subscriber of %s has no group_id, so it cannot acknowledge (FastStream logs"
                " IllegalOperation for each message). Messages that are published while the service"
                " is down, or in flight when it ends, are lost. Pass for example"
                " group_id='my-service'.",
                ", ".join(getattr(subscriber, "topic_names", ())),
            )
