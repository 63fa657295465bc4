"""The broker that the services talk over: NATS with JetStream."""

from faststream_otel.nats import NatsSettings as BrokerSettings

__all__ = ("BrokerSettings",)
