"""The private parts of FastStream that this library uses, all of them.

FastStream may change them in any version; pyproject.toml keeps it below the next minor one. Where
one is missing, the library works without it.

- `handler_` in FastStream's context, while a message is handled: for the consumer group of spans
  and metrics; for the trace of the record "Processed", which FastStream logs when all else is done;
  for redeliveries in a row, which are counted by consumer. Without: no group, no trace for that
  record, and one count for all consumers.
- `_publishers` of a decorated handler: to refuse a batch handler that has a publisher, and could
  lose what it returns. Without: it is not refused.
- `_start_broker` of an application: to wait for a broker that is away at the start. Without:
  FastStream tries to connect once, and the service lives on without consumers.

Not private, but on no page of FastStream's documentation either: `faststream.prometheus.consts`,
`.container` and `.types`, `faststream.kafka.subscriber.usecase`, the `provider` modules, and
`calls` of `broker.subscribers`.
"""

# ruff: noqa: SLF001

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from faststream import ContextRepo

logger = logging.getLogger(__name__)


def current_subscriber(context: ContextRepo) -> Any | None:
    """FastStream's subscriber whose message is being handled; None outside of any."""
    return context.get_local("handler_")


def publishers_of(handler: Any) -> Sequence[Any]:
    """Those that decorate this handler; none where that is not known."""
    publishers: Sequence[Any] = getattr(handler, "_publishers", ())
    return publishers


def start_brokers_with(app: Any, start: Callable[[], Awaitable[None]]) -> bool:
    """Have an application call `start` in place of starting its brokers; return whether it does.

    `start` runs beside the server, after the `on_startup` hooks and before the `after_startup`
    ones.
    """
    if not callable(getattr(app, "_start_broker", None)):
        logger.warning(
            "This version of FastStream has no `_start_broker`, or another one: a broker that is"
            " away at the start is not waited for"
        )
        return False
    app._start_broker = start
    return True
