"""What may differ between environments; telemetry has its own standard `OTEL_*` variables."""

from typing import TYPE_CHECKING, Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

if TYPE_CHECKING:
    from .messages.broker import Broker


class BadSetting(ValueError):
    """Names the variable, what is wrong with it, and a good value."""


class Settings(BaseSettings):
    """Read from environment variables of the same names, in capitals; an empty one is not set.

    A project takes those of its broker, such as `faststream_otel.kafka.KafkaSettings`, and adds its
    own fields by inheriting.
    """

    model_config = SettingsConfigDict(
        frozen=True,
        extra="ignore",
        env_ignore_empty=True,
        hide_input_in_errors=True,  # one of them is a password
    )

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
    """For one attempt. A plain `def` handler runs in a thread, which is waited for all the same."""

    watchdog_timeout_seconds: float = Field(60.0, ge=0)
    """How long the event loop may be blocked, or a consumer stand still while messages wait, before
    the process ends to be started anew; 0: for ever. Messages in hand have their own limits."""
    drain_timeout_seconds: float = Field(15.0, gt=0)
    """At shutdown, for messages that are being handled."""
    flush_timeout_seconds: float = Field(10.0, gt=0)
    """At shutdown, for telemetry. With the one above, less than the container's grace period."""
    trace_url: str = ""
    """Where people see a trace: an address with `{trace_id}` in it and, if it has to be told how
    far to look back, `{age}`, which becomes hours as in `3h`. Without it, lists show trace ids."""
    max_body_bytes: int = Field(1_048_576, ge=1)
    """Of an HTTP request; a larger one gets a 413."""
    body_timeout_seconds: float = Field(10.0, gt=0)
    """For it to come in; a slower one gets a 408."""
    max_requests: int = Field(100, ge=1)
    """With a body, at once. It may hold as many bodies in memory; further ones get a 503."""

    def broker(self) -> "Broker":
        """Make the broker that these settings describe; connects nowhere.

        Raises:
            BadSetting: A `BROKER_*` variable is wrong, or does not fit the others.
        """
        raise NotImplementedError("take the settings of a broker: faststream_otel.kafka")

    @property
    def shutdown_timeout_seconds(self) -> float:
        """For an orderly shutdown as a whole, five seconds for HTTP and five for hooks and the
        broker included; less than the container's grace period."""
        return self.drain_timeout_seconds + self.flush_timeout_seconds + 10
