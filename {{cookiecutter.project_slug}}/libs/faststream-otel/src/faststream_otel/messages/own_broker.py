"""Retry and dead letters for an application's own FastStream broker, without a `Service`."""

import logging
from abc import ABC, abstractmethod
from typing import Any

from faststream import AckPolicy, BaseMiddleware, ContextRepo, PublishCommand
from opentelemetry.trace import TracerProvider

from ._faststream import current_subscriber
from .broker import Messages
from .prometheus import MessagingMetrics
from .retry import RetryMiddleware, RetryPolicy
from .validation import MessageSerializer

logger = logging.getLogger(__name__)


class OwnBrokerRetryMiddleware(ABC):
    """Retries a failing handler in process, then publishes its message to `dead-letters`.

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
        self._of: dict[Any, RetryMiddleware] = {}
        self._checked: set[Any] = set()

    @property
    def broker_options(self) -> dict[str, Any]:
        """Options for the broker, so that no message is lost or redelivered without end.

        - `ack_policy`: a message is acknowledged when it was handled or is a dead letter. A router
        needs it too, because it does not inherit its broker's; with FastStream's router for
        FastAPI, each subscriber.
        - `serializer`: a message that does not fit the handler's types is not retried.
        """
        return {"ack_policy": AckPolicy.NACK_ON_ERROR, "serializer": MessageSerializer()}

    @abstractmethod
    def _messages(self, broker: Any | None) -> Messages:
        """What reads and sends the messages of a FastStream broker; None outside of a message."""

    @abstractmethod
    def _channel(self, subscriber: Any) -> str:
        """What a FastStream subscriber consumes, for a log record."""

    def _acknowledges_first(self, subscriber: Any) -> bool:
        return getattr(subscriber, "ack_policy", None) is AckPolicy.ACK_FIRST

    def _weakness(self, subscriber: Any) -> str:
        """Why a subscriber can lose messages in spite of retries; empty if it cannot."""
        if self._acknowledges_first(subscriber):
            return (
                "acknowledges a message before it is handled. The message is lost if the process"
                " ends before that, or if the broker does not accept its dead letter. Pass"
                " **retry.broker_options to the broker. A router does not inherit its broker's"
                " policy: pass it ack_policy=AckPolicy.NACK_ON_ERROR. FastAPI's router takes"
                " neither: pass ack_policy=AckPolicy.NACK_ON_ERROR to each of its subscribers."
            )
        return ""

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

    def _make(self, broker: Any | None) -> RetryMiddleware:
        return RetryMiddleware(
            self.policy,
            self._messages(broker),
            tracer_provider=self._tracer_provider,
            metrics=self._metrics,
        )

    def _check(self, subscriber: Any) -> None:
        """Warn once about a subscriber that can lose messages in spite of retries."""
        if subscriber is None or subscriber in self._checked:
            return
        self._checked.add(subscriber)
        if weakness := self._weakness(subscriber):
            logger.warning("The subscriber of %s %s", self._channel(subscriber), weakness)
