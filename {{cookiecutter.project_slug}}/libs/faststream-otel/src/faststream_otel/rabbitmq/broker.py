"""Implements `Broker` for RabbitMQ: an exchange per channel, a quorum queue per consumer of it."""

import asyncio
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from types import TracebackType
from typing import Any

from aio_pika import RobustConnection
from aio_pika.exceptions import (
    AMQPConnectionError,
    ChannelInvalidStateError,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
    InvalidFrameError,
)
from faststream import AckPolicy
from faststream.exceptions import IncorrectState
from faststream.rabbit import Channel, RabbitBroker
from prometheus_client import CollectorRegistry

from ..messages._faststream import publishers_of
from ..messages.broker import Busy, Group, Lag, Progress, Publisher, Replicas, Unreachable
from ..messages.outage import Outage
from ..messages.prometheus import MessagingMetrics
from ..messages.validation import BatchPublisherError, CheckedPublisher, MessageSerializer
from ..settings import BadSetting
from . import _pika
from .channels import create_dead_letters, create_exchange, create_queue, service_queue
from .consumers import MAX_BATCH, Consumer
from .dead_letters import RabbitDeadLetters
from .in_flight import InFlight
from .lag import lag, open_channel, ready_messages
from .messages import (
    KEY,
    UNREACHABLE,
    Codec,
    ConsumedExchange,
    RabbitMessages,
    exchange,
    parse,
)
from .prometheus import RabbitPrometheusMiddleware
from .security import (
    CONNECT_SECONDS,
    broker_security,
    client_options,
    connected,
    server,
    why_refused,
)
from .settings import RabbitSettings
from .telemetry import RabbitTelemetryMiddleware

logger = logging.getLogger(__name__)

RECONNECT_SECONDS = 1.0
ANSWER_SECONDS = 2.0
"""Time in which a reachable broker answers."""


class Rabbit(RabbitMessages):
    """See `faststream_otel.messages.broker.Broker`.

    Raises:
        BadSetting: A `BROKER_*` variable is wrong, or contradicts another.
    """

    system = "rabbitmq"
    stores_by_group = True
    # Not `UNREACHABLE`: a service whose queue has other arguments must not wait for the broker.
    unreachable: tuple[type[Exception], ...] = (
        ChannelInvalidStateError,
        IncorrectState,
        InvalidFrameError,
        OSError,
    )
    # Both log every failed attempt to reach the broker.
    noisy_loggers: Mapping[str, str] = {
        "aio_pika": "CRITICAL",
        "aio_pika.robust_connection": "",
        "aiormq": "CRITICAL",
        "aiormq.connection": "",
    }

    def __init__(self, settings: RabbitSettings) -> None:
        super().__init__()
        client_options(settings)  # raises BadSetting
        self._in_flight = InFlight(settings)  # raises BadSetting
        self._settings = settings
        self._server = server(settings)
        self._consumers: dict[str, Consumer] = {}
        self._service = ""

    @property
    def url(self) -> str:
        return str(self._server)

    def build(
        self, service: str, middlewares: Sequence[Any], *, drain_seconds: float, busy: Busy
    ) -> None:
        _pika.apply()
        self._service = service
        self._broker = _Broker(
            outage=Outage(self.url),
            host=self._server.host,
            port=self._server.port,
            virtualhost=self._settings.broker_virtual_host,
            security=broker_security(self._settings),
            # Shared by all publications. Each consumer has its own channel: RabbitMQ closes a
            # channel on an error.
            default_channel=Channel(on_return_raises=True),
            timeout=CONNECT_SECONDS,
            reconnect_interval=RECONNECT_SECONDS,
            app_id=service,
            graceful_timeout=drain_seconds,
            # A message that could not be sent to the dead letters is redelivered rather than lost.
            ack_policy=AckPolicy.NACK_ON_ERROR,
            parser=parse,
            codec=Codec(),
            serializer=MessageSerializer(),
            middlewares=middlewares,
            logger=logging.getLogger("faststream.messages"),
            # "Received" and "Processed" take a fifth of a message's time; the trace shows both.
            log_level=logging.DEBUG,
        )

    def telemetry(self, providers: Mapping[str, Any]) -> RabbitTelemetryMiddleware:
        return RabbitTelemetryMiddleware(
            **providers, server_address=self._server.host, server_port=self._server.port
        )

    def prometheus(
        self, registry: CollectorRegistry, metrics: MessagingMetrics, service: str
    ) -> RabbitPrometheusMiddleware:
        return RabbitPrometheusMiddleware(registry=registry, metrics=metrics, app_name=service)

    def subscriber(self, channel: str, *, batch: bool) -> Callable[..., Any]:
        queue = f"{self._service}.{channel}"
        consumer = self._consumers[channel] = Consumer(queue, batch=batch)
        made = self.faststream.subscriber(
            service_queue(queue),
            ConsumedExchange(channel),
            # No more at once than one handler takes, so one consumer keeps their order.
            channel=Channel(prefetch_count=MAX_BATCH if batch else 1),
            # Otherwise the property `reply_to` would choose where the handler's result is sent.
            no_reply=True,
        )
        consumer.attach(made)

        def decorate(handler: Callable[..., Any]) -> Any:
            decorated = made(handler)
            self.check()
            return decorated

        return decorate

    def publisher(self, channel: str, schema: Any | None) -> Publisher:
        made = self.faststream.publisher(
            exchange=exchange(channel), persist=True, mandatory=True, schema=schema
        )
        return CheckedPublisher(self.check, made)

    def in_memory(self, *others: "Rabbit") -> AbstractAsyncContextManager[object]:
        from .memory import InMemory

        brokers = (self, *others)
        batches = [one for broker in brokers for one in broker.batch_subscribers()]
        return InMemory(*(broker.faststream for broker in brokers), batches=batches)

    def batch_subscribers(self) -> list[Any]:
        """FastStream's subscribers whose handlers take batches."""
        return [one for channel, one in self._subscribers() if self._consumers[channel].batch]

    def check(self) -> None:
        """Check all handlers, even those that were decorated with FastStream's broker."""
        for subscriber in self.batch_subscribers():
            for call in subscriber.calls:
                if publishers_of(call.handler):
                    raise BatchPublisherError(call.name)

    async def publish(
        self,
        publisher: Publisher,
        body: Any,
        *,
        key: str | None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        async with self.confirmation(publisher.exchange.name):  # type: ignore[attr-defined]
            sent = {**(headers or {}), **({} if key is None else {KEY: key})}
            await publisher.publish(body, headers=sent)

    async def create_channels(
        self, channels: Collection[str], groups: Collection[Group] = ()
    ) -> None:
        async with (
            connected(self._settings, "channels") as connection,
            connection.channel() as opened,
        ):
            for channel in channels:
                await create_exchange(opened, channel)
            await create_dead_letters(opened)
            for group in groups:
                await create_queue(opened, group.name, group.channel)

    async def why_unreachable(self, error: Exception) -> str:
        return await why_refused(self._settings) or str(error) or type(error).__name__

    def joined(self) -> bool:
        return all(_pika.is_attached(subscriber) for _, subscriber in self._subscribers())

    async def answers(self) -> bool:
        if not self.faststream.running:
            return False
        try:
            # Opening a channel takes one round trip.
            opened = await open_channel(await self.faststream.connect(), ANSWER_SECONDS)
            await opened.close()
        except UNREACHABLE:
            return False
        return True

    async def answers_new_client(self) -> bool:
        try:
            async with asyncio.timeout(ANSWER_SECONDS), connected(self._settings, self._service):
                return True
        except (Unreachable, BadSetting, TimeoutError):  # a certificate file was deleted meanwhile
            return False

    async def progress(self) -> Mapping[str, Progress]:
        consumers = dict(self._subscribers())
        found = await asyncio.gather(*(self._progress(*one) for one in consumers.items()))
        return dict(zip(consumers, found, strict=True))

    def groups(self) -> list[Group]:
        return [Group(channel, consumer.queue) for channel, consumer in self._consumers.items()]

    async def lag(self, groups: Collection[Group]) -> list[Lag]:
        return await lag(self._settings, self._in_flight, groups)

    async def replicas(self, channels: Collection[str]) -> list[Replicas]:
        return []  # AMQP has no request for it; RabbitMQ's own metrics show lost nodes

    def dead_letters(self) -> RabbitDeadLetters:
        return RabbitDeadLetters(self._settings)

    async def _progress(self, channel: str, subscriber: Any) -> Progress:
        consumer = self._consumers[channel]
        if not _pika.is_attached(subscriber):
            return Progress(attached=False, waiting=True, reached=None)
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                connection = await self.faststream.connect()
                ready = await ready_messages(connection, consumer.queue)
        except ChannelNotFoundEntity:  # it was deleted
            return Progress(attached=False, waiting=True, reached=None)
        except UNREACHABLE:  # includes TimeoutError, which is an OSError
            return Progress(attached=True, waiting=True, reached="no answer")
        waiting = ready > 0 or consumer.settled < consumer.received
        return Progress(attached=True, waiting=waiting, reached=consumer.settled)

    def _subscribers(self) -> Iterator[tuple[str, Any]]:
        subscribers: Sequence[Any] = self.faststream.subscribers
        for subscriber in subscribers:
            if (channel := subscriber.exchange.name) in self._consumers:
                yield channel, subscriber


class _Broker(RabbitBroker):
    """FastStream's broker, which closes every connection that it has opened when it stops.

    FastStream forgets one if its start or its stop fails half-way. It would reconnect for ever, and
    keep the process alive, since aio-pika ignores that its task is cancelled.
    """

    def __init__(self, *arguments: Any, outage: Outage, **options: Any) -> None:
        super().__init__(*arguments, on_close=[self._lost], on_reconnected=[self._back], **options)
        self._outage, self._stops = outage, False
        self._opened: list[RobustConnection] = []
        _pika.remember_connections(self, self._opened, _channel_closed)

    async def start(self) -> None:
        self._stops = False
        await super().start()

    def _lost(self, _: object, error: BaseException | None) -> None:
        # The second: every attempt to reconnect while the server is down.
        if not self._stops and not (self._outage.lasts and type(error) is AMQPConnectionError):
            self._outage.begin(error)

    def _back(self, _: object) -> None:
        self._outage.end()

    async def stop(
        self,
        exc_type: type[BaseException] | None = None,
        exc_val: BaseException | None = None,
        exc_tb: TracebackType | None = None,
    ) -> None:
        self._stops = True
        try:
            await super().stop(exc_type, exc_val, exc_tb)
        except* UNREACHABLE as errors:
            # RabbitMQ cancels the consumers of a lost connection itself.
            logger.info("Consumers could not be cancelled at RabbitMQ: %s", errors.exceptions[0])
        finally:
            while self._opened:
                with suppress(*UNREACHABLE):
                    await self._opened.pop().close()


def _channel_closed(_: object, error: BaseException | None) -> None:
    if isinstance(error, ChannelPreconditionFailed) and "timed out" in str(error):
        logger.error(
            "A handler was busy for longer than RabbitMQ's consumer_timeout, so its message is"
            " delivered again, each time: raise consumer_timeout in rabbitmq.conf, for example to"
            " consumer_timeout = 86400000, or the queue's policy: %s", error,
        )  # fmt: skip
