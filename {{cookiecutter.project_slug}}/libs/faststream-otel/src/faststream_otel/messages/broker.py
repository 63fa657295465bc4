"""What the library asks of a message broker. Each broker's folder answers it in a class of its own.

Nothing here knows offsets, partitions or consumer groups: a channel is where messages are published
to and consumed from (Kafka's topic), an id is an opaque text.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from faststream.message import StreamMessage
from prometheus_client import CollectorRegistry

if TYPE_CHECKING:
    from .dead_letters.store import DeadLetterStore
    from .prometheus import MessagingMetrics

Headers: TypeAlias = Sequence[tuple[str, bytes | None]]
"""In their order. Names may repeat; a value may be any bytes, or missing."""


Busy: TypeAlias = Callable[[int], float]
"""Seconds that a message, or a batch of so many, may take at most."""


class Unavailable(Exception):
    """The broker did not confirm a message, which may still arrive."""


class TooLarge(Exception):
    """The broker does not take messages of this size. It was not sent."""


class Unreachable(Exception):
    """The broker does not answer, or does not let this client in; says why."""


@dataclass(frozen=True, slots=True)
class Raw:
    """One message as the broker delivered it.

    Attributes:
        channel: Where it was consumed from.
        id: What names it there, such as Kafka's `<partition>/<offset>`.
        key: What keeps messages in order that share it; None where there is none.
        body: None for a message without a body, which is not the same as an empty one.
        headers: To the byte.
    """

    channel: str
    id: str
    key: bytes | None
    body: bytes | None
    headers: Headers


@dataclass(frozen=True, slots=True)
class Progress:
    """How one consumer stands.

    Attributes:
        attached: Whether the broker delivers to it.
        waiting: Whether it has something to do: messages that it has not acknowledged.
        reached: Whatever is different after it has made progress.
    """

    attached: bool
    waiting: bool
    reached: object


@dataclass(frozen=True, slots=True)
class Lag:
    """Messages of a channel that a consumer group has not acknowledged."""

    channel: str
    group: str
    ready: int
    """Not delivered yet."""
    in_flight: int
    """Delivered and not acknowledged; 0 where the broker does not count them."""


class Publisher(Protocol):
    """A channel to publish to: decorates a handler, whose result it publishes, or publishes now."""

    def __call__(self, handler: Callable[..., Any], /) -> Callable[..., Any]: ...

    @property
    def publish(self) -> Callable[..., Awaitable[Any]]: ...


class Messages(Protocol):
    """How to read a broker's messages, and how to send one. What retries and dead letters need."""

    takes_options: bool
    """Whether an acknowledgement takes options, as in `NackMessage(delay=1)`."""
    dead_letter_sizes: Sequence[int]
    """Bytes that are tried, largest first, for a dead letter that is larger than its channel takes.
    0 keeps only the headers that say what happened."""

    def channel(self, message: StreamMessage[Any]) -> str:
        """Where a message, or each of a batch, was consumed from. Called for every message."""

    def count(self, message: StreamMessage[Any]) -> int:
        """How many messages a batch holds; 1 for a single message."""

    def raw(self, message: StreamMessage[Any]) -> Raw:
        """The message as it was delivered; the first one of a batch."""

    def singles(self, message: StreamMessage[Any]) -> list[StreamMessage[Any]]:
        """Take a batch apart into batches of one message; a single message as it is."""

    def in_hand(self, message: StreamMessage[Any]) -> AbstractAsyncContextManager[object]:
        """A context around handling: keeps the broker from redelivering the message meanwhile."""

    def confirmation(self) -> AbstractAsyncContextManager[object]:
        """A context around a publication.

        Raises:
            Unavailable: The broker did not confirm it in time.
            TooLarge: It does not take messages of this size.
        """

    def settled(self) -> Exception:
        """What to raise to have a message acknowledged that has ended in the dead letters."""

    def again(self, error: Exception) -> Exception:
        """What to raise to have the broker deliver a message again, because of this error."""

    async def send(
        self,
        channel: str,
        *,
        body: bytes,
        key: bytes | None,
        headers: dict[str, str],
        correlation_id: str | None,
    ) -> None:
        """Publish a message through the service's own broker.

        Raises:
            Unavailable, TooLarge: As `confirmation`.
        """


class Broker(Messages, Protocol):
    """All that a service needs of its broker, beside what FastStream does."""

    system: str
    """`messaging.system`."""
    unreachable: tuple[type[Exception], ...]
    """What the client raises while the broker cannot be reached."""
    noisy_loggers: Mapping[str, str]
    """The client's loggers that repeat themselves, with the level that each has by default."""

    @property
    def url(self) -> str:
        """Where the broker is, for people: without a password."""

    @property
    def faststream(self) -> Any:
        """FastStream's broker; `build` makes it."""

    def build(
        self, service: str, middlewares: Sequence[Any], *, drain_seconds: float, busy: Busy
    ) -> None:
        """Make FastStream's broker, with these middlewares; connects nowhere.

        Args:
            service: Its name; also the prefix of its consumer groups.
            drain_seconds: For messages that are being handled when it stops.
            busy: How long a consumer may be busy with what it took.
        """

    def telemetry(self, providers: Mapping[str, Any]) -> Any:
        """The broker's own telemetry middleware, with these providers."""

    def prometheus(
        self, registry: CollectorRegistry, metrics: "MessagingMetrics", service: str
    ) -> Any:
        """The broker's own Prometheus middleware."""

    def subscriber(self, channel: str, *, batch: bool) -> Callable[..., Any]:
        """Decorate a handler of a channel's messages, each service in a group of its own.

        Raises:
            BatchPublisherError: The handler takes batches and has a publisher.
        """

    def publisher(self, channel: str, schema: Any | None) -> Publisher:
        """Declare a channel to publish to."""

    def in_memory(self, *others: Any) -> AbstractAsyncContextManager[object]:
        """Connect this broker, and others of its kind, in memory and without a server: for tests.

        Publishing returns when every handler that follows from it has returned.
        """

    def check(self) -> None:
        """Look at all handlers before the start. Raises BatchPublisherError."""

    async def publish(self, publisher: Publisher, body: Any, *, key: str | None) -> None:
        """Publish now; messages of one key keep their order where the broker can do that.

        Raises:
            Unavailable, TooLarge: As `confirmation`.
        """

    async def create_channels(self, channels: Collection[str]) -> None:
        """Create the channels that do not exist yet, and that of the dead letters.

        Raises:
            Unreachable: Says why.
        """

    async def obstacle(self, error: Exception) -> str:
        """What stands between the service and the broker, after the client failed with this."""

    def joined(self) -> bool:
        """Whether every consumer is attached, as far as the client knows."""

    async def answers(self) -> bool:
        """Whether the broker soon answers over a connection that the service has."""

    async def answers_anew(self) -> bool:
        """Whether a service that starts now would reach the broker."""

    async def progress(self) -> Mapping[str, Progress]:
        """How each consumer stands, by channel. One that cannot be asked has made no progress."""

    async def lag(self) -> list[Lag]:
        """The lag of each consumer group of the service, whether anything runs in it or not.

        Asks the broker from outside: joins no group, and needs no connection of the service.

        Raises:
            Unreachable: Says why.
        """

    def dead_letters(self) -> "DeadLetterStore":
        """Where dead letters are kept."""
