"""The broker that the services talk over: RabbitMQ."""

from faststream_otel.rabbitmq import RabbitSettings as BrokerSettings

__all__ = ("BrokerSettings",)
