"""What may differ between environments; telemetry has its own standard `OTEL_*` variables."""

from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Read from environment variables of the same names, in capitals."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore")

    broker_url: str = "localhost:9092"
    host: str = "127.0.0.1"
    port: int = Field(8000, ge=1, le=65535)
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    messaging_metrics: Literal["prometheus", "otlp"] = "prometheus"
    """Who counts messages: FastStream's Prometheus middleware, or the telemetry middleware."""

    retry_attempts: int = Field(3, ge=1)
    """Attempts in all, the first one included, before a message is a dead letter."""
    retry_backoff_seconds: float = Field(0.2, ge=0)
    """Before the second attempt; doubled for each further one, with jitter."""
    handler_timeout_seconds: float = Field(10.0, gt=0)
    """For one attempt."""

    connect_timeout_seconds: float = Field(60.0, gt=0)
    """How long to wait for the broker at start before the process gives up."""
    drain_timeout_seconds: float = Field(15.0, gt=0)
    """At shutdown, for messages that are being handled."""
    flush_timeout_seconds: float = Field(10.0, gt=0)
    """At shutdown, for telemetry. With the one above, less than the container's grace period."""
    max_body_bytes: int = Field(1_048_576, ge=1)
    """Of an HTTP request; a larger one gets a 413."""
