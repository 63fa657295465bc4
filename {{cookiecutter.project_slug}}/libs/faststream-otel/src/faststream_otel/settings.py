"""Settings that may differ between environments. Telemetry has its standard `OTEL_*` variables."""

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, ValidationError
from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

if TYPE_CHECKING:
    from .messages.broker import Broker


class BadSetting(ValueError):
    """A setting is wrong. The text names the variable, the fault and a good value."""


class Settings(BaseSettings):
    """Each field is read from the environment variable of its name in capitals.

    An empty variable counts as not set. A project inherits from its broker's settings, such as
    `faststream_otel.kafka.KafkaSettings`, and adds its own fields.

    Raises:
        BadSetting: Variables are wrong; a line for each.
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
    """Number of attempts, including the first, before a message becomes a dead letter."""
    retry_backoff_seconds: float = Field(default=0.2, ge=0)
    """Pause before the second attempt; doubles for each further one, with jitter."""
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
    """Link to a trace for people: a URL with `{trace_id}` and, for a store that must know how far
    to look back, `{age}`, replaced with hours such as `3h`. Without it, lists show trace ids."""
    api_pages: bool = False
    """Whether to serve HTML pages of the AsyncAPI document at /asyncapi and, for a service with its
    own routes, of the OpenAPI document at /docs. The pages load scripts from a CDN. The documents
    themselves are always served: /asyncapi.json and /openapi.json."""
    max_body_bytes: int = Field(default=1_048_576, ge=1)
    """Maximum size of an HTTP request's body; a larger one gets a 413."""
    body_timeout_seconds: float = Field(default=10.0, gt=0)
    """How long a request's body may take to arrive; a slower one gets a 408."""
    max_requests: int = Field(default=100, ge=1)
    """Concurrent requests with a body, which is kept in memory; further ones get a 503."""

    if not TYPE_CHECKING:  # the fields say what it takes

        def __init__(self, **values: Any) -> None:
            try:
                super().__init__(**values)
            except ValidationError as error:
                found = error.errors(include_url=False)
                raise BadSetting("\n".join(_line(type(self), one) for one in found)) from None
            except SettingsError as error:  # of a project's own field
                name = str(error).partition('"')[2].partition('"')[0].upper()
                raise BadSetting(f'{name} is not JSON: set for example {name}=["a", "b"]') from None

    def broker(self) -> "Broker":
        """Create the broker that these settings describe, without connecting.

        Raises:
            BadSetting: A `BROKER_*` variable is wrong, or contradicts another one.
        """
        raise NotImplementedError(
            "use the settings of a broker: faststream_otel.kafka.KafkaSettings"
        )

    @property
    def shutdown_timeout_seconds(self) -> float:
        """Limit of the whole orderly shutdown, with five seconds for HTTP, and five for hooks and
        the broker. It must be less than the container's grace period."""
        return self.drain_timeout_seconds + self.flush_timeout_seconds + 10


_REASONS = {
    "bool": "is neither true nor false",
    "float": "is not a number",
    "greater_than": "is not more than {gt:g}",
    "greater_than_equal": "is less than {ge:g}",
    "int": "is not a whole number",
    "less_than": "is not less than {lt:g}",
    "less_than_equal": "is more than {le:g}",
    "literal_error": "is not one of {expected}",
}
"""By the type of pydantic's error, or its first word."""


def _line(settings: type[Settings], error: Any) -> str:
    """What is wrong with a variable, and a good value."""
    field = ".".join(map(str, error["loc"]))
    kind, context = error["type"], error.get("ctx", {})
    name = f"{settings.model_config.get('env_prefix', '')}{field}".upper() or settings.__name__
    if kind == "missing":
        return f"{name} is not set"
    reason = _REASONS.get(kind) or _REASONS.get(kind.partition("_")[0])
    if reason is None:  # a project's own check
        return f"{name} is wrong: {context.get('error') or error['msg']}"
    text = f"{name}={str(error['input'])[:50]} {reason.format(**context)}"
    info = settings.model_fields.get(field)
    good = None if info is None or info.default is PydanticUndefined else info.default
    if kind == "literal_error" and good is None:
        good = context["expected"].split("'")[1]
    if good in (None, ""):
        return text
    if isinstance(good, bool | float):
        good = f"{good:g}" if isinstance(good, float) else str(good).lower()
    return f"{text}: set for example {name}={good}"
