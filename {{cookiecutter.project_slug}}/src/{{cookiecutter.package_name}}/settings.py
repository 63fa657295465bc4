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

    watchdog_timeout_seconds: float = Field(60.0, ge=0)
    """How long the event loop may be blocked, or a consumer stand still while messages wait, before
    the process ends to be started anew; 0: for ever. Messages in hand have their own limits."""
    drain_timeout_seconds: float = Field(15.0, gt=0)
    """At shutdown, for messages that are being handled."""
    flush_timeout_seconds: float = Field(10.0, gt=0)
    """At shutdown, for telemetry. With the one above, less than the container's grace period."""
    max_body_bytes: int = Field(1_048_576, ge=1)
    """Of an HTTP request; a larger one gets a 413."""

    @property
    def shutdown_timeout_seconds(self) -> float:
        """For an orderly shutdown as a whole; less than the container's grace period."""
        return self.drain_timeout_seconds + self.flush_timeout_seconds + 10
