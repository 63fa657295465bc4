"""All private parts of FastStream that this library uses.

FastStream may change them in any version; pyproject.toml keeps it below the next minor version. If
one is missing, the library works without it.

- `handler_` in FastStream's context while a message is handled: to know the consumer group for
  spans and metrics; to give a trace to the record "Processed", which FastStream logs after all
  middlewares; to count redeliveries per consumer. Without: no group, no trace for that record, and
  one count for all consumers.
- `_publishers` of a decorated handler: to refuse a batch handler that has a publisher, because its
  results could be lost. Without: it is not refused.
- `_start_broker` of an application: to wait for a broker that is unreachable at the start. Without:
  FastStream tries to connect once, and the service keeps running without consumers.
- `_connect` and `_connection_kwargs` of `NatsBroker`, in `faststream_otel/nats/broker.py`: for a
  client that gives up if no server answers at the start, and sends no password unencrypted.
  Without: FastStream's own client, which does neither.

Not private, but not documented by FastStream either: `faststream.prometheus.consts`, `.container`
and `.types`, `faststream.kafka.subscriber.usecase`, the `provider` modules, and `calls` of
`broker.subscribers`.
"""

# ruff: noqa: SLF001

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from faststream import ContextRepo

from ..telemetry.missing import warn_missing


def current_subscriber(context: ContextRepo) -> Any | None:
    """The FastStream subscriber whose message is being handled; None outside of a message."""
    return context.get_local("handler_")


def publishers_of(handler: Any) -> Sequence[Any]:
    """The publishers that decorate this handler; empty if unknown."""
    publishers: Sequence[Any] = getattr(handler, "_publishers", ())
    return publishers


def start_brokers_with(app: Any, start: Callable[[], Awaitable[None]]) -> bool:
    """Make an application call `start` instead of starting its brokers. Returns whether it does.

    `start` runs beside the server: after the `on_startup` hooks, before the `after_startup` hooks.
    """
    if not callable(getattr(app, "_start_broker", None)):
        warn_missing(
            "FastStream",
            "`_start_broker`",
            "the service does not wait for a broker that is unreachable at the start",
        )
        return False
    app._start_broker = start
    return True
