"""Settings that may differ between environments. Telemetry has its standard `OTEL_*` variables."""

from typing import TYPE_CHECKING, Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

if TYPE_CHECKING:
    from .messages.broker import Broker


class BadSetting(ValueError):
    """A setting is wrong. The text names the variable, the fault and a good value."""


class Settings(BaseSettings):
    """Each field is read from the environment variable of its name in capitals.

    An empty variable counts as not set. A project inherits from its broker's settings, such as
    `faststream_otel.kafka.KafkaSettings`, and adds its own fields.
    """

    model_config = SettingsConfigDict(
        frozen=True,
        extra="ignore",
        env_ignore_empty=True,
        hide_input_in_errors=True,  # one of them is a password
    )

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=1, le=65535)
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    messaging_metrics: Literal["prometheus", "otlp"] = "prometheus"
    """Source of message metrics: FastStream's Prometheus middleware (scraped), or OTLP (pushed)."""

    broker_start_timeout_seconds: float = Field(default=300.0, ge=0)
    """How long a starting service waits for its broker before the process exits with an error, so
    that it is restarted; 0: forever. Meanwhile the service is live, but not ready."""

    retry_attempts: int = Field(default=3, ge=1)
    """All attempts, the first one included, before a message becomes a dead letter."""
    retry_backoff_seconds: float = Field(default=0.2, ge=0)
    """Pause before the second attempt; doubled for each further one, with jitter."""
    handler_timeout_seconds: float = Field(default=10.0, gt=0)
    """Limit of one attempt. A plain `def` handler runs in a thread, which cannot be interrupted."""

    watchdog_timeout_seconds: float = Field(default=60.0, ge=0)
    """How long the event loop may be blocked, or a consumer stalled while messages wait, before the
    process exits so that it is restarted; 0: forever. Messages in flight have their own limits."""
    drain_timeout_seconds: float = Field(default=15.0, gt=0)
    """At shutdown, for messages in flight."""
    flush_timeout_seconds: float = Field(default=10.0, gt=0)
    """At shutdown, to export telemetry. See `shutdown_timeout_seconds`."""
    trace_url: str = ""
    """Link to a trace, for people: a URL with `{trace_id}` and, for a store that needs to know how
    far to look back, `{age}`, filled in as hours like `3h`. Without it, lists show trace ids."""
    api_pages: bool = False
    """Whether to serve HTML pages of the AsyncAPI document at /asyncapi and, for a service with its
    own routes, of the OpenAPI document at /docs. The pages load scripts from a CDN. The documents
    themselves are always served: /asyncapi.json and /openapi.json."""
    max_body_bytes: int = Field(default=1_048_576, ge=1)
    """Limit of an HTTP request's body; a larger one gets a 413."""
    body_timeout_seconds: float = Field(default=10.0, gt=0)
    """How long a request's body may take to arrive; a slower one gets a 408."""
    max_requests: int = Field(default=100, ge=1)
    """Concurrent requests with a body, each of which is kept in memory; further ones get a 503."""

    def broker(self) -> "Broker":
        """Create the broker that these settings describe, without connecting.

        Raises:
            BadSetting: A `BROKER_*` variable is wrong, or contradicts another one.
        """
        raise NotImplementedError("use a broker's settings: faststream_otel.kafka.KafkaSettings")

    @property
    def shutdown_timeout_seconds(self) -> float:
        """Limit of the whole orderly shutdown, with five seconds for HTTP, and five for hooks and
        the broker. It must be less than the container's grace period."""
        return self.drain_timeout_seconds + self.flush_timeout_seconds + 10
