"""What the library needs from a message broker. Each broker's folder implements these protocols.

They contain no offsets and no partitions. A channel is where messages are published to and consumed
from, such as a Kafka topic. An id is an opaque text.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

from faststream import PublishCommand
from faststream.message import StreamMessage
from prometheus_client import CollectorRegistry

if TYPE_CHECKING:
    from .dead_letters.store import DeadLetterStore
    from .prometheus import MessagingMetrics

Headers: TypeAlias = Sequence[tuple[str, bytes | None]]
"""Headers in order. Names may repeat; a value may be any bytes, or None."""

Busy: TypeAlias = Callable[[int], float]
"""Takes a number of messages. Returns the longest time in seconds that handling them may take."""


class Unavailable(Exception):
    """The broker did not confirm a message. The message may still arrive."""


class NotSent(Unavailable):
    """The broker has nowhere to store the channel's messages. The message certainly does not
    arrive."""


class TooLarge(Exception):
    """The broker does not accept messages of this size. The message was not sent."""


class Unreachable(Exception):
    """The broker does not answer, or refuses this client. The text says why."""


@dataclass(frozen=True, slots=True)
class Raw:
    """One message as the broker delivered it.

    Attributes:
        channel: The channel that it was consumed from.
        id: Its id in that channel, such as Kafka's `<partition>/<offset>`.
        key: Messages with the same key keep their order. None for no key.
        body: None for no body, which is not the same as an empty body.
        headers: Unchanged bytes.
    """

    channel: str
    id: str
    key: bytes | None
    body: bytes | None
    headers: Headers


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of one consumer.

    Attributes:
        attached: Whether the broker delivers messages to it.
        waiting: Whether there are messages that it has not acknowledged.
        reached: Its position; a different value after each progress.
    """

    attached: bool
    waiting: bool
    reached: object


class Group(NamedTuple):
    """A consumer group, by the names that telemetry has."""

    channel: str
    """The channel that it consumes."""
    name: str
    """`messaging.consumer.group.name`."""


@dataclass(frozen=True, slots=True)
class Lag:
    """Messages of a channel that a consumer group has not acknowledged.

    If the broker divides channels into partitions, there is one for each.
    """

    channel: str
    group: str
    ready: int
    """Number of messages that were not delivered yet."""
    in_flight: int | None
    """Number of messages that were delivered and not acknowledged; None if unknown."""
    position: int | None = None
    """Grows with each acknowledged message; None if the broker does not report it."""
    partition: str = ""


@dataclass(frozen=True, slots=True)
class Replicas:
    """The replicas that a broker keeps of a channel, or of one of its partitions."""

    channel: str
    configured: int
    in_sync: int
    """Number of replicas that have every message; 0 if nothing can be published or consumed."""
    partition: str = ""


class Publisher(Protocol):
    """A channel to publish to: with `publish`, or as a decorator that publishes results."""

    def __call__(self, handler: Callable[..., Any], /) -> Callable[..., Any]: ...

    @property
    def publish(self) -> Callable[..., Awaitable[Any]]: ...


class Messages(Protocol):
    """Reads and sends a broker's messages: what retries and dead letters need from the broker."""

    takes_options: bool
    """Whether an acknowledgement takes options, as in `NackMessage(delay=1)`."""
    any_headers: bool
    """Whether the broker keeps headers in their order, with repeated names and any bytes. If not, a
    dead letter carries the headers of its message encoded, in one header."""
    dead_letter_sizes: Sequence[int]
    """Size limits in bytes to try, largest first, for a dead letter that is too large for its
    channel. 0 keeps only the headers that say what happened."""

    def channel(self, message: StreamMessage[Any]) -> str:
        """The channel of a message or a batch. Called for every message."""

    def sent_to(self, command: PublishCommand) -> str:
        """The channel of a publication."""

    def count(self, message: StreamMessage[Any]) -> int:
        """Number of messages in a batch; 1 for a single message."""

    def raw(self, message: StreamMessage[Any]) -> Raw:
        """The message as the broker delivered it; of a batch the first message."""

    def singles(self, message: StreamMessage[Any]) -> list[StreamMessage[Any]]:
        """Split a batch into batches of one message; a single message stays as it is."""

    def in_flight(self, message: StreamMessage[Any]) -> AbstractAsyncContextManager[object]:
        """A context around handling a message. Meanwhile the broker must not redeliver it."""

    def confirmation(self) -> AbstractAsyncContextManager[object]:
        """A context around publishing a message.

        Raises:
            Unavailable: The broker did not confirm the message in time.
            TooLarge: The broker does not accept messages of this size.
        """

    def acknowledgement(self) -> Exception:
        """The exception to raise after a message went to the dead letters, to acknowledge it."""

    def redelivery(self, error: Exception) -> Exception:
        """The exception to raise because of this error, to make the broker redeliver a message."""

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
            Unavailable, TooLarge: See `confirmation`.
        """


class Broker(Messages, Protocol):
    """Everything that a service needs from its broker in addition to FastStream."""

    system: str
    """`messaging.system`."""
    stores_by_group: bool
    """Whether the broker stores a message only for the consumer groups that exist by then."""
    unreachable: tuple[type[Exception], ...]
    """Exceptions that the client raises while the broker is unreachable."""
    noisy_loggers: Mapping[str, str]
    """Loggers of the client that repeat themselves, each with its level; empty for no own level."""

    @property
    def url(self) -> str:
        """The broker's address for log records, without a password."""

    @property
    def faststream(self) -> Any:
        """The FastStream broker, which `build` makes."""

    def build(
        self, service: str, middlewares: Sequence[Any], *, drain_seconds: float, busy: Busy
    ) -> None:
        """Make the FastStream broker with these middlewares. Does not connect.

        Args:
            service: The service's name; also the prefix of its consumer groups.
            middlewares: FastStream middlewares, outermost first.
            drain_seconds: How long to wait, at the stop, for messages that are being handled.
            busy: How long a consumer may need for the messages that it received.
        """

    def telemetry(self, providers: Mapping[str, Any]) -> Any:
        """The broker's telemetry middleware, with these providers."""

    def prometheus(
        self, registry: CollectorRegistry, metrics: "MessagingMetrics", service: str
    ) -> Any:
        """The broker's Prometheus middleware."""

    def subscriber(self, channel: str, *, batch: bool) -> Callable[..., Any]:
        """Decorate a handler of a channel's messages. Each service has its own consumer group.

        Raises:
            BatchPublisherError: The handler takes batches and has a publisher.
        """

    def publisher(self, channel: str, schema: Any | None) -> Publisher:
        """Declare a channel to publish to."""

    def in_memory(self, *others: Any) -> AbstractAsyncContextManager[object]:
        """Connect this broker, and others of its kind, in memory without a server; for tests.

        Publishing returns after all resulting handlers have returned.
        """

    def check(self) -> None:
        """Check all handlers before the start. Raises BatchPublisherError."""

    async def publish(
        self,
        publisher: Publisher,
        body: Any,
        *,
        key: str | None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Publish now. Messages with the same key keep their order if the broker supports it.

        Raises:
            Unavailable, TooLarge: See `confirmation`.
        """

    async def create_channels(
        self, channels: Collection[str], groups: Collection[Group] = ()
    ) -> None:
        """Create the channels that do not exist yet, and the channel of the dead letters.

        Args:
            channels: Without that of the dead letters.
            groups: Consumer groups to create too, if `stores_by_group`.

        Raises:
            Unreachable: The text says why.
        """

    async def why_unreachable(self, error: Exception) -> str:
        """The reason why the broker is unreachable, after the client raised this error."""

    def joined(self) -> bool:
        """Whether every consumer is attached, as far as the client knows."""

    async def answers(self) -> bool:
        """Whether the broker answers over the service's existing connection."""

    async def answers_new_client(self) -> bool:
        """Whether the broker answers a new client, as a restarted service would be."""

    async def progress(self) -> Mapping[str, Progress]:
        """The progress of each consumer, by channel; no progress if the broker does not answer."""

    def groups(self) -> list[Group]:
        """The consumer groups of the service. Needs no connection."""

    async def lag(self, groups: Collection[Group]) -> list[Lag]:
        """The lag of consumer groups, of any service, even if none of their consumers runs.

        Joins no group, and needs neither a running service nor `build`. A group whose channel does
        not exist has no lag.

        Raises:
            Unreachable: The text says why.
        """

    async def replicas(self, channels: Collection[str]) -> list[Replicas]:
        """The replicas of these channels; empty if the broker does not report them to clients.

        Needs neither a running service nor `build`. A channel that does not exist has none.

        Raises:
            Unreachable: The text says why.
        """

    def dead_letters(self) -> "DeadLetterStore":
        """The store of the dead letters."""
