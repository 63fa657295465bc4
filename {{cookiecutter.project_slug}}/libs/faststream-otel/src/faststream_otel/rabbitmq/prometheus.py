"""The Prometheus middleware for RabbitMQ."""

import time
from collections.abc import Mapping
from typing import Any

from faststream.message import StreamMessage
from faststream.prometheus import ConsumeAttrs
from faststream.rabbit.prometheus.provider import RabbitMetricsSettingsProvider
from prometheus_client import CollectorRegistry

from ..messages.prometheus import MessagingMetrics, MessagingPrometheusMiddleware
from .messages import PUBLISHED, RabbitBatch
from .telemetry import RabbitConventions


class RabbitPrometheusMiddleware(MessagingPrometheusMiddleware):
    """A drop-in replacement for `faststream.rabbit.prometheus.RabbitPrometheusMiddleware`.

    `messages.prometheus` lists the additional metrics. The time from publication to receipt is in
    milliseconds if the sender uses this middleware too; AMQP's own timestamps have whole seconds.

    Args:
        registry: Registers the metrics.
        metrics: The additional metrics. Default: new ones in the registry.
        options: Same as FastStream's: `app_name`, `metrics_prefix`,
            `received_messages_size_buckets`.
    """

    def __init__(
        self,
        *,
        registry: CollectorRegistry,
        metrics: MessagingMetrics | None = None,
        **options: Any,
    ) -> None:
        provider = _Provider()
        super().__init__(
            conventions=RabbitConventions(),
            metrics=metrics or MessagingMetrics(registry),
            settings_provider_factory=lambda _: provider,
            registry=registry,
            **options,
        )

    def sent_headers(self) -> Mapping[str, str]:
        return {PUBLISHED: str(int(time.time() * 1000))}


class _Provider(RabbitMetricsSettingsProvider):
    """FastStream's, which knows no batches."""

    def get_consume_attrs_from_message(self, msg: StreamMessage[Any]) -> ConsumeAttrs:
        each = msg.each if isinstance(msg, RabbitBatch) else (msg,)
        return {
            "destination_name": "",  # `RabbitConventions` has it
            "message_size": sum(len(one.body) for one in each),
            "messages_count": len(each),
        }
