"""Kafka's side of the Prometheus metrics."""

from typing import Any

from faststream.kafka.prometheus.provider import settings_provider_factory
from prometheus_client import CollectorRegistry

from ..messages.prometheus import MessagingMetrics, MessagingPrometheusMiddleware
from .telemetry import KafkaConventions


class KafkaPrometheusMiddleware(MessagingPrometheusMiddleware):
    """A drop-in for `faststream.kafka.prometheus.KafkaPrometheusMiddleware`.

    See `messages.prometheus` for what it measures beyond that one.

    Args:
        registry: Where the metrics are registered.
        metrics: Those beyond FastStream's own. Default: new ones in the registry.
        options: As FastStream's: `app_name`, `metrics_prefix`, `received_messages_size_buckets`.
    """

    def __init__(
        self,
        *,
        registry: CollectorRegistry,
        metrics: MessagingMetrics | None = None,
        **options: Any,
    ) -> None:
        super().__init__(
            times=KafkaConventions(),
            metrics=metrics or MessagingMetrics(registry),
            settings_provider_factory=settings_provider_factory,
            registry=registry,
            **options,
        )
