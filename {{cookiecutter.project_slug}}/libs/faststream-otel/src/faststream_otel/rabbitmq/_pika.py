"""Workarounds for pamqp 4 and aio-pika 10, with all private parts of them that this library uses.

pyproject.toml keeps both below the next major version. If a part is missing or looks different, the
log says so once, and the workaround is off.

- `pamqp.commands.Basic.Properties.unmarshal`, which is not documented: to read any properties.
  Without: a message whose properties are not UTF-8 closes the connection each time it is delivered.
- `RabbitSubscriber._queue_obj` and `._consumer_tag` of FastStream, and `_consumers` and `_channel`
  of aio-pika's queue and channel: to know whether RabbitMQ delivers to a consumer. Without: a
  consumer counts as attached as soon as it was started.
- `RabbitBroker._connection_kwargs` of FastStream: to close a connection that FastStream forgets if
  its start fails half-way, and to know why a channel was closed. Without: the process may not end
  by itself.
- `TestRabbitBroker._patch_producer` and `FakeProducer._execute_handler` of FastStream: to connect
  batches in memory. They are used in `memory.py`.
"""

# ruff: noqa: SLF001

import functools
from collections.abc import Callable
from typing import Any

from aio_pika import RobustConnection
from aio_pika.abc import AbstractRobustChannel
from pamqp import commands

from ..telemetry.missing import warn_missing


@functools.cache
def apply() -> None:
    """Apply the workaround for pamqp, once per process."""
    read_any_properties(commands.Basic.Properties)


def read_any_properties(properties: Any) -> bool:
    """Make the client read the properties of any message.

    AMQP does not say how names and short texts are encoded, and RabbitMQ checks nothing. Without
    this, the client closes its connection at a message that has any other text than UTF-8 in them,
    gets it again after each reconnect, and so never gets another message of that queue.

    Such texts then have replacement characters. If properties cannot be read even so, the message
    has only those before the first unreadable one.

    Args:
        properties: pamqp's class.

    Returns:
        Whether the client does.
    """
    strict = getattr(properties, "unmarshal", None)
    if strict is None:
        warn_missing(
            "pamqp",
            "`Basic.Properties.unmarshal`",
            "a message with properties that are not UTF-8 blocks its queue",
        )
        return False

    @functools.wraps(strict)
    def unmarshal(self: Any, flags: int, data: bytes) -> None:
        try:
            strict(self, flags, data)
        except Exception:
            try:
                strict(self, flags, _Tolerant(data))
            except Exception:
                self.headers = self.headers or {}

    properties.unmarshal = unmarshal
    return True


class _Tolerant(bytes):
    """Bytes that decode to text, whatever they contain."""

    def __getitem__(self, key: Any) -> Any:
        found = super().__getitem__(key)
        return _Tolerant(found) if isinstance(found, bytes) else found

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return super().decode(encoding, "replace")


def remember_connections(
    broker: Any, opened: list[RobustConnection], channel_closed: Callable[..., None]
) -> None:
    """Make a FastStream broker add each connection that it opens to this list.

    Args:
        channel_closed: Called with each channel that is closed, and the error or None.
    """

    class Remembered(RobustConnection):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            opened.append(self)

        def channel(self, *arguments: Any, **options: Any) -> AbstractRobustChannel:
            made = super().channel(*arguments, **options)
            made.close_callbacks.add(channel_closed)
            return made

    try:
        broker._connection_kwargs["connection_class"] = Remembered
    except (AttributeError, TypeError):
        warn_missing(
            "FastStream", "`RabbitBroker._connection_kwargs`", "the process may not end by itself"
        )


def is_attached(subscriber: Any) -> bool:
    """Whether RabbitMQ delivers messages to a FastStream subscriber."""
    if not subscriber.running:
        return False
    try:
        queue, tag = subscriber._queue_obj, subscriber._consumer_tag
        if queue is None or queue.channel.is_closed:
            return False
        return tag in queue.channel._channel.channel.consumers
    except AttributeError as error:
        warn_missing(
            "FastStream or aio-pika", f"`{error.name}`", "a started consumer counts as attached"
        )
        return True
