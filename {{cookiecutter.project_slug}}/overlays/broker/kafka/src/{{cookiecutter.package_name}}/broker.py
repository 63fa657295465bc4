"""The broker that the services talk over: Kafka."""

from faststream_otel.kafka import KafkaSettings as BrokerSettings

__all__ = ("BrokerSettings",)
