"""Implements `Broker` for NATS: a stream per channel, a durable pull consumer per service.

`create_channels` creates the streams; a service creates its consumers when it starts. Existing ones
are never changed, so that you can configure them differently.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, field
from typing import Any

from faststream import AckPolicy
from faststream.exceptions import IncorrectState
from faststream.nats import JStream, NatsBroker, PullSub
from faststream.nats.schemas.js_stream import is_subject_match_wildcard
from faststream.nats.subscriber.usecases import BatchPullStreamSubscriber
from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg
from nats.errors import Error, StaleConnectionError, UnexpectedEOF
from nats.errors import TimeoutError as NatsTimeoutError
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig, StreamConfig
from nats.js.errors import NotFoundError
from prometheus_client import CollectorRegistry

from ..messages._faststream import publishers_of
from ..messages.broker import Busy, Group, Lag, Progress, Publisher, Replicas, Unreachable
from ..messages.dead_letters import DEAD_LETTERS
from ..messages.outage import Outage
from ..messages.prometheus import MessagingMetrics
from ..messages.validation import BatchPublisherError, CheckedPublisher, MessageSerializer
from ..settings import BadSetting
from ..telemetry.missing import warn_missing
from ._natspy import Client, end_delivery
from .dead_letters import NatsDeadLetters
from .lag import lag, replicas
from .messages import (
    ACK_WAIT_SECONDS,
    MAX_DEAD_LETTER_BYTES,
    MAX_MESSAGE_BYTES,
    PUBLISH_TIMEOUT_SECONDS,
    UNREACHABLE,
    NatsMessages,
    NoChannel,
    parse,
    stream_of,
    with_key,
)
from .prometheus import NatsPrometheusMiddleware
from .security import broker_security, client_options, connected, servers, why
from .settings import NatsSettings
from .telemetry import NatsTelemetryMiddleware

MAX_BATCH = 100
RETENTION_SECONDS = 7 * 86_400
"""Of a channel's messages."""
# Longer: dead letters wait for people.
DEAD_LETTER_RETENTION_SECONDS = 30 * 86_400
ANSWER_SECONDS = 2
"""Time in which a reachable server answers."""
PULL_SECONDS = 5.0
RECONNECT_PAUSE_SECONDS = 0.2
GONE_PAUSE_SECONDS = 1.0
"""Between two attempts to fetch messages from a consumer that is gone."""
BATCH_SECONDS = 0.2
"""How long a batch is collected."""
LEAST_PULL_SECONDS = 0.02
"""With a shorter request, messages would arrive while the previous batch is handled, and wait
without a heartbeat."""
LEFT_SECONDS = 0.05
"""For what the client has received already."""

NO_ANSWER = Progress(attached=True, waiting=True, reached="no answer")
NOT_OURS = (
    "a service without a server does not log why, and BROKER_TLS does not protect its password"
)

logger = logging.getLogger(__name__)


class Nats(NatsMessages):
    """See `faststream_otel.messages.broker.Broker`.

    Raises:
        BadSetting: A `BROKER_*` variable is wrong, or contradicts another.
    """

    system = "nats"
    stores_by_group = False
    unreachable: tuple[type[Exception], ...] = UNREACHABLE
    # nats-py logs every failed attempt to reach the server.
    noisy_loggers: Mapping[str, str] = {"nats": "ERROR", "nats.aio.client": ""}

    def __init__(self, settings: NatsSettings) -> None:
        super().__init__()
        client_options(settings)  # raises BadSetting
        self._settings = settings
        self._servers = servers(settings)
        self._members: dict[str, _Member] = {}
        self._service = ""

    @property
    def url(self) -> str:
        return ",".join(map(str, self._servers))

    def build(
        self, service: str, middlewares: Sequence[Any], *, drain_seconds: float, busy: Busy
    ) -> None:
        self._service = service
        self._broker = _Broker(
            [f"nats://{server}" for server in self._servers],
            members=self._members,
            outage=Outage(self.url),
            name=service,
            security=broker_security(self._settings),
            max_reconnect_attempts=-1,
            reconnect_time_wait=1,
            # Otherwise it takes minutes to notice a server that has vanished.
            ping_interval=5,
            flush_timeout=PUBLISH_TIMEOUT_SECONDS,
            graceful_timeout=drain_seconds,
            # A message that could not be sent to the dead letters is redelivered rather than lost.
            ack_policy=AckPolicy.NACK_ON_ERROR,
            parser=parse,
            serializer=MessageSerializer(),
            middlewares=middlewares,
            logger=logging.getLogger("faststream.messages"),
            # "Received" and "Processed" take a fifth of a message's time; the trace shows both.
            log_level=logging.DEBUG,
        )

    def telemetry(self, providers: Mapping[str, Any]) -> NatsTelemetryMiddleware:
        # The first server stands for the cluster, so that all spans have the same name.
        first = self._servers[0]
        return NatsTelemetryMiddleware(
            **providers, server_address=first.host, server_port=first.port
        )

    def prometheus(
        self, registry: CollectorRegistry, metrics: MessagingMetrics, service: str
    ) -> NatsPrometheusMiddleware:
        return NatsPrometheusMiddleware(registry=registry, metrics=metrics, app_name=service)

    def subscriber(self, channel: str, *, batch: bool) -> Callable[..., Any]:
        stream = stream_of(channel)
        durable = f"{stream_of(self._service)}-{stream}"
        size = MAX_BATCH if batch else 1
        self._members.setdefault(channel, _Member(stream, durable, size))
        made = self.faststream.subscriber(
            channel,
            # `create_channels` creates the streams before any service starts. FastStream would
            # change one that exists.
            stream=JStream(stream, declare=False),
            durable=durable,
            # Takes effect only if the consumer does not exist yet.
            config=ConsumerConfig(ack_wait=ACK_WAIT_SECONDS, max_deliver=-1),
            pull_sub=PullSub(size, batch=True, timeout=BATCH_SECONDS)
            if batch
            else PullSub(size, timeout=PULL_SECONDS),  # one at a time, in order
            # Otherwise the header `reply_to` would choose where the handler's result is sent.
            no_reply=True,
        )

        def decorate(handler: Callable[..., Any]) -> Any:
            decorated = made(handler)
            self.check()
            return decorated

        return decorate

    def publisher(self, channel: str, schema: Any | None) -> Publisher:
        made = self.faststream.publisher(
            channel,
            schema=schema,
            # Without a stream, nothing would confirm a message.
            stream=JStream(stream_of(channel), declare=False),
            timeout=PUBLISH_TIMEOUT_SECONDS,
        )
        return CheckedPublisher(self.check, made)

    def in_memory(self, *others: "Nats") -> AbstractAsyncContextManager[object]:
        from faststream.nats import TestNatsBroker

        brokers = (broker.faststream for broker in (self, *others))
        return TestNatsBroker(*brokers, connect_only=False)

    def check(self) -> None:
        """Check all handlers, even those that were decorated with FastStream's broker."""
        for subscriber in self.faststream.subscribers:
            for call in subscriber.calls:
                if isinstance(subscriber, BatchPullStreamSubscriber) and publishers_of(
                    call.handler
                ):
                    raise BatchPublisherError(call.name)

    async def publish(
        self,
        publisher: Publisher,
        body: Any,
        *,
        key: str | None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        async with self.confirmation():
            encoded = None if key is None else key.encode()
            await publisher.publish(body, headers=with_key(dict(headers or {}), encoded))

    async def create_channels(
        self, channels: Collection[str], groups: Collection[Group] = ()
    ) -> None:
        async with connected(self._settings, "channels") as stream:
            for channel in dict.fromkeys((*channels, DEAD_LETTERS)):
                await _create_stream(stream, channel, self._settings.broker_replicas)

    async def why_unreachable(self, error: Exception) -> str:
        return why(self._settings, error)

    def joined(self) -> bool:
        return (
            all(
                subscriber.running and self._members[channel].attached
                for channel, subscriber in self._subscribers()
            )
            and (client := self._client()) is not None
            and client.is_connected
        )

    async def answers(self) -> bool:
        client = self._client()
        if client is None or not client.is_connected:
            return False
        try:
            await client.rtt(ANSWER_SECONDS)
        except UNREACHABLE:
            return False
        return True

    async def answers_new_client(self) -> bool:
        # A running client never reads BROKER_URL again, so it does not find a cluster that moved.
        try:
            async with connected(self._settings, self._service):
                return True
        except (Unreachable, BadSetting):  # a certificate file was deleted meanwhile
            return False

    async def progress(self) -> Mapping[str, Progress]:
        consumers = [channel for channel, _ in self._subscribers()]
        found = await asyncio.gather(*(self._progress(self._members[one]) for one in consumers))
        return dict(zip(consumers, found, strict=True))

    def groups(self) -> list[Group]:
        return [
            Group(channel, self._members[channel].durable) for channel, _ in self._subscribers()
        ]

    async def lag(self, groups: Collection[Group]) -> list[Lag]:
        return await lag(self._settings, groups)

    async def replicas(self, channels: Collection[str]) -> list[Replicas]:
        return await replicas(self._settings, channels)

    def dead_letters(self) -> NatsDeadLetters:
        return NatsDeadLetters(self._settings)

    def _client(self) -> Client | None:
        try:
            client: Any = self.faststream.connection
        except IncorrectState:
            return None
        return client  # type: ignore[no-any-return]

    async def _progress(self, member: "_Member") -> Progress:
        client = self._client()
        if client is None:
            return Progress(attached=False, waiting=True, reached=None)
        if not client.is_connected:
            return NO_ANSWER
        try:
            info = await client.jetstream().consumer_info(
                member.stream, member.durable, timeout=PUBLISH_TIMEOUT_SECONDS
            )
        except NotFoundError:  # the consumer or the stream was deleted
            return Progress(attached=False, waiting=True, reached=None)
        except UNREACHABLE:
            return NO_ANSWER
        # Redeliveries move neither.
        reached = tuple(one and one.stream_seq for one in (info.delivered, info.ack_floor))
        # Messages that another instance handles do not wait for this one; nor do those behind them,
        # if somebody has limited how many may be in flight.
        limit = info.config.max_ack_pending or -1
        held_up = 0 < limit <= (info.num_ack_pending or 0)
        waiting = bool(member.in_flight() or (info.num_pending and not held_up))
        return Progress(attached=True, waiting=waiting, reached=reached)

    def _subscribers(self) -> Iterator[tuple[str, Any]]:
        subscribers: Sequence[Any] = self.faststream.subscribers
        for subscriber in subscribers:
            if (channel := subscriber.subject.template) in self._members:
                yield channel, subscriber


@dataclass
class _Member:
    """One consumer of the service.

    Attributes:
        attached: Whether the server still knew it when last asked.
        received: What FastStream's loop got last from the server: one message, or one batch.
        size: How many messages FastStream's loop takes at a time.
    """

    stream: str
    durable: str
    size: int
    attached: bool = True
    received: list[Msg] = field(default_factory=list)

    def in_flight(self) -> list[Msg]:
        """The messages of this instance that are not acknowledged."""
        return [message for message in self.received if not message.is_acked]


class _Broker(NatsBroker):
    """FastStream's broker, with a client that gives up if it cannot connect at the start."""

    def __init__(
        self,
        *arguments: Any,
        members: Mapping[str, _Member],
        outage: Outage,
        **options: Any,
    ) -> None:
        super().__init__(*arguments, **options)
        self._members, self._outage = members, outage

    async def _connect(self) -> NatsClient:
        options = getattr(self, "_connection_kwargs", None)
        if options is None:
            warn_missing("FastStream", "`_connection_kwargs`", NOT_OURS)
            return await super()._connect()
        client = _Client(self._members.values(), self._outage)
        # Replace FastStream's callbacks, which log a traceback, and close the client at an error
        # that may be temporary.
        own = {
            "error_cb": client.failed, "disconnected_cb": client.lost,
            "reconnected_cb": client.back,
        }  # fmt: skip
        await client.connect(**{**options, **own})
        self.config.connect(client)
        return client

    async def start(self) -> None:
        await self.connect()
        stream = self.connection.jetstream(timeout=PUBLISH_TIMEOUT_SECONDS)
        for channel, member in self._members.items():
            try:
                await stream.stream_info(member.stream)
            except NotFoundError as error:
                raise NoChannel(channel) from error
        await super().start()
        subscribers: Sequence[Any] = self.subscribers
        for subscriber in subscribers:
            channel = subscriber.subject.template
            if channel in self._members:
                self._members[channel].attached = True


class _Client(Client):
    """A client whose pull subscriptions for members are `_Pull`, from the first fetch on."""

    def __init__(self, members: Collection[_Member], outage: Outage) -> None:
        super().__init__()
        self._members, self._outage = members, outage
        self._cause: Exception | None = None
        self.pulls: list[_Pull] = []

    def jetstream(self, **options: Any) -> JetStreamContext:
        return _JetStream(self, self._members, options)

    async def failed(self, error: Exception) -> None:
        """Called with each error, also before `lost`, and while reconnecting fails."""
        if isinstance(error, OSError | UnexpectedEOF | StaleConnectionError):
            self._cause = error
        elif self._outage.lasts:
            self._outage.begin(error)
        else:
            logger.warning("The NATS client reports: %s", error)

    async def lost(self) -> None:
        """Called when the connection is lost, or closed."""
        if self.is_closed:
            return
        self._outage.begin(self._cause)
        for pull in self.pulls:
            pull.interrupt()

    async def back(self) -> None:
        """Called after a reconnect."""
        self._cause = None
        self._outage.end()


class _JetStream(JetStreamContext):
    def __init__(
        self, client: _Client, members: Collection[_Member], options: Mapping[str, Any]
    ) -> None:
        super().__init__(client, **options)
        self._client, self._members = client, members

    async def pull_subscribe(self, *arguments: Any, **options: Any) -> Any:
        made = await super().pull_subscribe(*arguments, **options)
        for member in self._members:
            if (member.stream, member.durable) == (options.get("stream"), options.get("durable")):
                pull = _Pull(made, self._client, member)
                self._client.pulls.append(pull)
                return pull
        return made


class _Pull:
    """A pull subscription that pauses while there is nothing to pull from.

    FastStream's loop retries at once if the consumer is gone: it would use a quarter of a CPU, and
    if the client is closed, block the event loop.

    When it ends, it gives back the messages that the loop dropped because the service stops.
    Otherwise they would wait for the end of `ack_wait`, and newer ones would overtake them.
    """

    def __init__(
        self, made: JetStreamContext.PullSubscription, client: NatsClient, member: _Member
    ) -> None:
        self._made, self._client, self._member = made, client, member
        self._fetching = asyncio.Lock()
        self._request: asyncio.Timeout | None = None

    async def fetch(self, batch: int, timeout: float | None) -> list[Any]:  # noqa: ASYNC109 (nats-py's)
        if batch >= self._member.size:  # otherwise the loop still collects a batch
            self._member.received = []
        if not self._client.is_connected:
            # Otherwise the client sends each request after it has reconnected, and gets more
            # messages than one handler can take.
            await asyncio.sleep(RECONNECT_PAUSE_SECONDS)
            raise NatsTimeoutError
        if timeout is not None and timeout < LEAST_PULL_SECONDS:
            raise NatsTimeoutError
        try:
            async with self._fetching, asyncio.timeout(None) as self._request:
                messages = await self._made.fetch(batch, timeout)
        except TimeoutError as error:
            self._member.attached = True
            # nats-py also raises the built-in error, which FastStream does not expect: its loop
            # would end, and what it has of a batch would wait for its redelivery.
            raise NatsTimeoutError from error
        except Error as error:
            if self._member.attached:
                logger.warning(
                    "The consumer %s of the stream %s is gone: %s",
                    self._member.durable, self._member.stream, error,
                )  # fmt: skip
            self._member.attached = False
            await asyncio.sleep(GONE_PAUSE_SECONDS)
            raise NatsTimeoutError from error
        self._member.attached = True
        self._member.received += messages
        return messages

    def interrupt(self) -> None:
        """End the current fetch: a server that was restarted no longer knows of its request."""
        if self._request:
            with suppress(RuntimeError):  # it has ended
                self._request.reschedule(0)

    async def unsubscribe(self) -> None:
        await end_delivery(self._client, self._made)  # or the server would send them here again
        # FastStream's loop still runs. It does not handle what it gets from now on.
        ends = LEFT_SECONDS if self._member.size == 1 else BATCH_SECONDS
        with suppress(TimeoutError):
            async with asyncio.timeout(ends), self._fetching:
                pass
        with suppress(Error, TimeoutError):
            while self._made.pending_msgs:
                self._member.received += await self._made.fetch(1, LEFT_SECONDS)
        await self._made.unsubscribe()
        for message in self._member.in_flight():
            with suppress(Error, OSError):
                await message.nak()
        self._member.received = []


async def _create_stream(stream: JetStreamContext, channel: str, replicas: int) -> None:
    name = stream_of(channel)
    try:
        found = await stream.stream_info(name)
    except NotFoundError:
        pass
    else:
        subjects = found.config.subjects or []
        if not any(is_subject_match_wildcard(channel, subject) for subject in subjects):
            raise Unreachable(
                f"its stream {name} stores {', '.join(subjects) or 'no subject'}, not the channel"
                f" {channel}: rename the channel, or add its subject to the stream"
            )
        return
    limits: dict[str, Any] = {"max_age": RETENTION_SECONDS, "max_msg_size": MAX_MESSAGE_BYTES}
    if channel == DEAD_LETTERS:
        limits = {
            "max_age": DEAD_LETTER_RETENTION_SECONDS,
            "max_msg_size": MAX_DEAD_LETTER_BYTES,
            "deny_delete": True,
        }
    await stream.add_stream(
        StreamConfig(
            name=name, subjects=[channel], num_replicas=replicas, allow_direct=True, **limits
        )
    )
