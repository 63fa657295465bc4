"""Implements `Broker` for Kafka."""

import asyncio
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import TopicAlreadyExistsError, for_code
from faststream import AckPolicy
from faststream.kafka import KafkaBroker, Topic
from faststream.kafka.subscriber.usecase import BatchSubscriber
from prometheus_client import CollectorRegistry

from ..messages._faststream import publishers_of
from ..messages.broker import Busy, Group, Lag, Progress, Publisher, Replicas, Unreachable
from ..messages.dead_letters import DEAD_LETTERS
from ..messages.prometheus import MessagingMetrics
from ..messages.validation import BatchPublisherError, CheckedPublisher, MessageSerializer
from ..settings import BadSetting
from . import _aiokafka
from .dead_letters import KafkaDeadLetters
from .lag import lag, replicas
from .messages import (
    MAX_DEAD_LETTER_BYTES,
    MAX_MESSAGE_BYTES,
    UNREACHABLE,
    KafkaMessages,
    decode,
    parse,
)
from .offsets import Offsets
from .prometheus import KafkaPrometheusMiddleware
from .security import bootstrap_servers, broker_errors, broker_security, client_options, why_refused
from .settings import KafkaSettings
from .telemetry import KafkaTelemetryMiddleware

logger = logging.getLogger(__name__)

PARTITIONS = 3
MAX_BATCH = 100
POLL_INTERVAL_SECONDS = 300.0
"""aiokafka's default limit between two polls."""
DEAD_LETTER_SECONDS = 60.0
"""Time for publishing dead letters, in addition to the time for retries."""
# Longer than Kafka's default of a week: dead letters wait for people.
DEAD_LETTER_RETENTION_MS = 30 * 86_400_000
ANSWER_MS = 2000
"""Time in which a reachable broker answers a new client."""


class Kafka(KafkaMessages):
    """See `faststream_otel.messages.broker.Broker`.

    Raises:
        BadSetting: A `BROKER_*` variable is wrong, or contradicts another.
    """

    system = "kafka"
    stores_by_group = False
    unreachable: tuple[type[Exception], ...] = UNREACHABLE
    # aiokafka logs every failed attempt to reach the broker, several times a second. Child loggers
    # are listed because they do not inherit filters.
    noisy_loggers: Mapping[str, str] = {
        "aiokafka": "ERROR",
        "aiokafka.cluster": "",
        "aiokafka.consumer.fetcher": "",
        "aiokafka.consumer.group_coordinator": "",
    }

    def __init__(self, settings: KafkaSettings) -> None:
        super().__init__()
        client_options(settings)  # raises BadSetting
        self._settings = settings
        self._servers = bootstrap_servers(settings)
        self._members: dict[str, _Member] = {}
        self._offsets: list[Offsets] = []
        self._service = ""
        self._busy: Busy = lambda messages: 0.0

    @property
    def url(self) -> str:
        return ",".join(map(str, self._servers))

    def build(
        self, service: str, middlewares: Sequence[Any], *, drain_seconds: float, busy: Busy
    ) -> None:
        _aiokafka.apply()
        self._service, self._busy = service, busy
        self._broker = _Broker(
            [str(server) for server in self._servers],
            offsets=self._offsets,
            client_id=service,
            security=broker_security(self._settings),
            acks="all",
            enable_idempotence=True,  # the client's retries make no duplicates
            max_request_size=MAX_DEAD_LETTER_BYTES,
            graceful_timeout=drain_seconds,
            # A message that could not be sent to the dead letters is redelivered rather than lost.
            ack_policy=AckPolicy.NACK_ON_ERROR,
            parser=parse,
            decoder=decode,
            serializer=MessageSerializer(),
            middlewares=middlewares,
            logger=logging.getLogger("faststream.messages"),
            # "Received" and "Processed" take a fifth of a message's time; the trace shows both.
            log_level=logging.DEBUG,
        )

    def telemetry(self, providers: Mapping[str, Any]) -> KafkaTelemetryMiddleware:
        # Only the client knows which server leads a partition. The first server stands for the
        # cluster, so that all spans have the same name.
        first = self._servers[0]
        return KafkaTelemetryMiddleware(
            **providers, server_address=first.host, server_port=first.port
        )

    def prometheus(
        self, registry: CollectorRegistry, metrics: MessagingMetrics, service: str
    ) -> KafkaPrometheusMiddleware:
        return KafkaPrometheusMiddleware(registry=registry, metrics=metrics, app_name=service)

    def subscriber(self, channel: str, *, batch: bool) -> Callable[..., Any]:
        member = self._members.setdefault(channel, _Member())
        offsets = Offsets(member)
        member.offsets.append(offsets)
        self._offsets.append(offsets)
        options: dict[str, Any] = {
            # A group per channel, so that one consumer does not rebalance another.
            "group_id": f"{self._service}.{channel}",
            "listener": offsets,
            "parser": offsets.parse,
            # `latest` would skip messages that were published before the group's first commit.
            "auto_offset_reset": "earliest",
            "max_partition_fetch_bytes": MAX_DEAD_LETTER_BYTES,
            # After this time the client leaves its group, and another gets the same messages.
            "max_poll_interval_ms": _poll_interval_ms(self._busy(MAX_BATCH if batch else 1)),
            # Otherwise the header `reply_to` would choose where the handler's result is sent.
            "no_reply": True,
        }
        if batch:
            options |= {"batch": True, "max_records": MAX_BATCH, "batch_timeout_ms": 200}
        # `create_channels` creates the topics, with their limits, before any service starts.
        made = self.faststream.subscriber(Topic(channel, declare=False), **options)

        def decorate(handler: Callable[..., Any]) -> Any:
            decorated = made(handler)
            self.check()
            return decorated

        return decorate

    def publisher(self, channel: str, schema: Any | None) -> Publisher:
        return CheckedPublisher(self.check, self.faststream.publisher(channel, schema=schema))

    def in_memory(self, *others: "Kafka") -> AbstractAsyncContextManager[object]:
        from faststream.kafka import TestKafkaBroker

        brokers = (broker.faststream for broker in (self, *others))
        return TestKafkaBroker(*brokers, connect_only=False)

    def check(self) -> None:
        """Check all handlers, even those that were decorated with FastStream's broker."""
        for subscriber in self.faststream.subscribers:
            for call in subscriber.calls:
                if isinstance(subscriber, BatchSubscriber) and publishers_of(call.handler):
                    raise BatchPublisherError(call.name)

    async def publish(
        self,
        publisher: Publisher,
        body: Any,
        *,
        key: str | None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        async with self.confirmation(getattr(publisher, "topic", "")):
            await publisher.publish(
                body, key=None if key is None else key.encode(), headers=dict(headers or {})
            )

    async def create_channels(
        self, channels: Collection[str], groups: Collection[Group] = ()
    ) -> None:
        admin = AIOKafkaAdminClient(**client_options(self._settings))
        async with broker_errors(self._settings):
            try:
                await admin.start()
                await _check_controller(admin)
                for channel in dict.fromkeys((*channels, DEAD_LETTERS)):
                    await self._create_topic(admin, channel)
            finally:
                await admin.close()

    async def why_unreachable(self, error: Exception) -> str:
        return await why_refused(self._settings) or str(error)

    def joined(self) -> bool:
        return all(
            subscriber.running and self._members[channel].joined
            for channel, subscriber in self._subscribers()
        )

    async def answers(self) -> bool:
        return await self.faststream.ping(timeout=None)

    async def answers_new_client(self) -> bool:
        # A running client never reads BROKER_URL again, so it does not find a cluster that moved.
        try:
            options = client_options(self._settings)
        except BadSetting:  # a certificate file was deleted meanwhile
            return False
        client = AIOKafkaAdminClient(**options, request_timeout_ms=ANSWER_MS)
        try:
            await client.start()
        except UNREACHABLE:
            return False
        finally:
            await client.close()
        return True

    async def progress(self) -> Mapping[str, Progress]:
        consumers = dict(self._subscribers())
        found = await asyncio.gather(
            *(
                _progress_soon(self._members[channel], subscriber.consumer)
                for channel, subscriber in consumers.items()
            )
        )
        return dict(zip(consumers, found, strict=True))

    def groups(self) -> list[Group]:
        return [Group(channel, subscriber.group_id) for channel, subscriber in self._subscribers()]

    async def lag(self, groups: Collection[Group]) -> list[Lag]:
        return await lag(self._settings, groups)

    async def replicas(self, channels: Collection[str]) -> list[Replicas]:
        return await replicas(self._settings, channels)

    def dead_letters(self) -> KafkaDeadLetters:
        return KafkaDeadLetters(self._settings)

    async def _create_topic(self, admin: AIOKafkaAdminClient, channel: str) -> None:
        limits = {"max.message.bytes": str(MAX_MESSAGE_BYTES)}
        if channel == DEAD_LETTERS:
            limits = {
                "max.message.bytes": str(MAX_DEAD_LETTER_BYTES),
                "retention.ms": str(DEAD_LETTER_RETENTION_MS),
            }
        topic = NewTopic(
            channel,
            num_partitions=PARTITIONS,
            replication_factor=-1,  # the broker's default
            replica_assignments={},  # aiokafka requires it together with -1
            topic_configs=limits,
        )
        answer = await admin.create_topics([topic])
        for name, code, *reason in answer.topic_errors:
            error = for_code(code)
            if error is TopicAlreadyExistsError:
                await self._check_limits(admin, channel, limits)
            elif code:
                raise error(f"topic {name}: {' '.join(map(str, reason))}")

    async def _check_limits(
        self, admin: AIOKafkaAdminClient, topic: str, limits: Mapping[str, str]
    ) -> None:
        """Log limits of an existing topic that are lower: a broker may have created it on use."""
        resource = ConfigResource(ConfigResourceType.TOPIC, topic, limits)
        (answer,) = await admin.describe_configs([resource])
        # Without the permission to read them there are no entries. -1 is unlimited.
        found = {name: value for *_, of in answer.resources for name, value, *_ in of}
        lower = sorted(one for one in found if 0 <= int(found[one]) < int(limits[one]))
        if lower:
            logger.warning(
                "The topic %s exists, with %s. If nobody has chosen that: kafka-configs.sh"
                " --bootstrap-server %s --alter --entity-type topics --entity-name %s"
                " --add-config %s",
                topic,
                ", ".join(f"{one}={found[one]}" for one in lower),
                self._servers[0],
                topic,
                ",".join(f"{one}={limits[one]}" for one in lower),
            )

    def _subscribers(self) -> Iterator[tuple[str, Any]]:
        subscribers: Sequence[Any] = self.faststream.subscribers
        for subscriber in subscribers:
            for channel in subscriber.topic_names:
                if channel in self._members:
                    yield channel, subscriber


class _Broker(KafkaBroker):
    """FastStream's broker, which commits what is handled before its consumers stop."""

    def __init__(self, *arguments: Any, offsets: Sequence[Offsets], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._offsets = offsets

    async def start(self) -> None:
        for one in self._offsets:
            one.reset()
        await super().start()

    async def stop(self, *error: Any) -> None:
        await asyncio.gather(*(one.stop() for one in self._offsets))
        await super().stop(*error)
        for one in self._offsets:
            one.reset()


@dataclass(eq=False)
class _Member(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types
    """The last known state of one consumer.

    Attributes:
        reached: The largest position of each partition.
    """

    joined: bool = False
    reached: dict[Any, int] = field(default_factory=dict)
    offsets: list[Offsets] = field(default_factory=list)

    def on_partitions_revoked(self, revoked: Any) -> None:
        self.joined = False

    def on_partitions_assigned(self, assigned: Any) -> None:
        self.joined = True


def _poll_interval_ms(busy: float) -> int:
    """`max_poll_interval_ms` for a consumer that may be busy for this many seconds."""
    return int(max(POLL_INTERVAL_SECONDS, busy + DEAD_LETTER_SECONDS) * 1000)


async def _check_controller(admin: AIOKafkaAdminClient) -> None:
    """aiokafka asks the controller to create topics, and assumes that there is one."""
    cluster = await admin.describe_cluster()
    if cluster["controller_id"] not in {one["node_id"] for one in cluster["brokers"]}:
        raise Unreachable(
            "it has no controller, which creates topics. The broker of `dev` never has one: it"
            " creates a topic on first use."
        )


async def _progress_soon(member: _Member, consumer: AIOKafkaConsumer | None) -> Progress:
    try:
        return await asyncio.wait_for(_progress(member, consumer), 5)
    except UNREACHABLE:  # includes TimeoutError, which is an OSError
        return Progress(attached=True, waiting=True, reached="no answer")


async def _progress(member: _Member, consumer: AIOKafkaConsumer | None) -> Progress:
    if consumer is None or not member.joined:
        return Progress(attached=False, waiting=True, reached=None)
    partitions = consumer.assignment()
    ends = await consumer.end_offsets(partitions) if partitions else {}
    # Not the committed offsets: they may stay below the end, before a transaction's marker.
    waiting = any(one.pending for one in member.offsets)
    for one in partitions:
        position = await consumer.position(one)
        member.reached[one] = max(position, member.reached.get(one, 0))
        waiting |= position < ends[one]
    return Progress(attached=True, waiting=waiting, reached=tuple(member.reached.items()))
