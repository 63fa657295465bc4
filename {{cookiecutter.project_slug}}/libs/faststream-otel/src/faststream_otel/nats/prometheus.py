"""The Prometheus middleware for NATS."""

from typing import Any

from faststream.nats.prometheus.provider import settings_provider_factory
from prometheus_client import CollectorRegistry

from ..messages.prometheus import MessagingMetrics, MessagingPrometheusMiddleware
from .telemetry import NatsConventions


class NatsPrometheusMiddleware(MessagingPrometheusMiddleware):
    """A drop-in replacement for `faststream.nats.prometheus.NatsPrometheusMiddleware`.

    `messages.prometheus` lists the additional metrics.

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
        super().__init__(
            conventions=NatsConventions(),
            metrics=metrics or MessagingMetrics(registry),
            settings_provider_factory=settings_provider_factory,
            registry=registry,
            **options,
        )
