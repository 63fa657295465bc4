"""Retry and dead letters for any FastStream broker for NATS."""

from typing import Any

from faststream.nats import NatsBroker

from ..messages.own_broker import OwnBrokerRetryMiddleware
from .messages import NatsMessages, parse


class NatsRetryMiddleware(OwnBrokerRetryMiddleware):
    """Retries a failing handler in process, then publishes its message to `dead-letters`.

    Put it last in the broker's `middlewares`, and pass its options to the broker:

        retry = NatsRetryMiddleware()
        broker = NatsBroker(
            "nats://localhost:4222",
            middlewares=[NatsTelemetryMiddleware(**telemetry.providers), retry],
            **retry.broker_options,
        )

    The stream `dead-letters` has to exist: `faststream-otel channels` creates it.
    `OwnBrokerRetryMiddleware` lists the arguments.
    """

    @property
    def broker_options(self) -> dict[str, Any]:
        """See `OwnBrokerRetryMiddleware`.

        `parser`: a message's id is its number in the stream. FastStream alone takes it from a
        header, or makes up a new one for each delivery.
        """
        return super().broker_options | {"parser": parse}

    def _messages(self, broker: NatsBroker | None) -> NatsMessages:
        return NatsMessages(broker)

    def _channel(self, subscriber: Any) -> str:
        return str(getattr(getattr(subscriber, "subject", None), "template", ""))

    def _acknowledges_first(self, subscriber: Any) -> bool:
        # FastStream leaves it to nats-py for a push subscription.
        by_client = getattr(subscriber, "extra_options", {}).get("manual_ack") is False
        return by_client or super()._acknowledges_first(subscriber)

    def _weakness(self, subscriber: Any) -> str:
        found = super()._weakness(subscriber)
        if not found and getattr(subscriber, "stream", None) is None:
            return (
                "has no stream, so it cannot acknowledge: core NATS delivers a message once, to"
                " whoever is connected. Messages that are published while the service is down or"
                " are in flight when it ends are lost. Pass for example"
                " stream='orders', durable='my-service'."
            )
        if not found and not subscriber.config.durable_name:
            return (
                "has no durable consumer. Messages that are in flight when the service ends are"
                " lost. Pass for example durable='my-service'."
            )
        return found
