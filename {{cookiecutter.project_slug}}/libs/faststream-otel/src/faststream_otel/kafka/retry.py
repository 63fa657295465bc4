"""Retry and dead letters for any FastStream broker for Kafka."""

from typing import Any

from faststream.kafka import KafkaBroker

from ..messages.own_broker import OwnBrokerRetryMiddleware
from .messages import KafkaMessages, decode, parse


class KafkaRetryMiddleware(OwnBrokerRetryMiddleware):
    """Retries a failing handler in process, then publishes its message to `dead-letters`.

    Put it last in the broker's `middlewares`, and pass its options to the broker:

        retry = KafkaRetryMiddleware()
        broker = KafkaBroker(
            "localhost:9092",
            middlewares=[KafkaTelemetryMiddleware(**telemetry.providers), retry],
            **retry.broker_options,
        )

    `OwnBrokerRetryMiddleware` lists the arguments.
    """

    @property
    def broker_options(self) -> dict[str, Any]:
        """See `OwnBrokerRetryMiddleware`.

        `parser` and `decoder`: a message that cannot be read becomes a dead letter. FastStream
        alone skips it. If you need your own parser, drop ours: FastStream then skips such a
        message.
        """
        return super().broker_options | {"parser": parse, "decoder": decode}

    def _messages(self, broker: KafkaBroker | None) -> KafkaMessages:
        return KafkaMessages(broker)

    def _channel(self, subscriber: Any) -> str:
        return ", ".join(getattr(subscriber, "topic_names", ()))

    def _weakness(self, subscriber: Any) -> str:
        found = super()._weakness(subscriber)
        if not found and getattr(subscriber, "group_id", None) is None:
            return (
                "has no group_id, so it cannot acknowledge (FastStream logs IllegalOperation for"
                " each message). Messages that are published while the service is down or are in"
                " flight when it ends are lost. Pass for example group_id='my-service'."
            )
        return found
