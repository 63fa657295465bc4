"""Kafka: the one module that knows which broker this is."""

import asyncio
import copy
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, cast

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, ConsumerRecord
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import (
    KafkaError,
    MessageSizeTooLargeError,
    TopicAlreadyExistsError,
    for_code,
)
from faststream import AckPolicy
from faststream.exceptions import IncorrectState, SetupError
from faststream.kafka import KafkaBroker, Topic
from faststream.kafka.subscriber.usecase import BatchSubscriber
from faststream.message import StreamMessage

from . import aiokafka_workarounds
from .bootstrap import bootstrap_servers
from .channels import CHANNELS, DEAD_LETTERS, Publisher
from .contracts import Event
from .dead_letters.letter import cut, header_text, headers_of
from .retry import DeadLetter, RetryPolicy
from .security import broker_security, client_options, refusal
from .settings import BadSetting, Settings
from .telemetry import Telemetry
from .telemetry._faststream import publishers_of
from .telemetry.kafka import KafkaTelemetryMiddleware
from .telemetry.kafka_prometheus import KafkaPrometheusMiddleware
from .telemetry.prometheus import MessagingMetrics, ServiceRegistry
from .time_limit import TimeLimit
from .validation import MessageSerializer

PARTITIONS = 3
MAX_BATCH = 100
PUBLISH_TIMEOUT_SECONDS = 5.0
ANSWER_SECONDS = 2.0
"""In which a broker that is there answers a question about itself."""
# The client's own limit between two polls, and the room for dead letters that comes on top of what
# the retries may take.
POLL_INTERVAL_SECONDS = 300.0
BURYING_SECONDS = 60.0
# The dead-letter topic takes what any other does, plus the headers that say why.
MAX_MESSAGE_BYTES = 2 * 1_048_576
MAX_DEAD_LETTER_BYTES = MAX_MESSAGE_BYTES + 65_536
# What is left of one that is larger: all but the headers that tell of it, then what a topic takes
# that somebody else has made, then those headers alone.
DEAD_LETTER_CUTS = (MAX_MESSAGE_BYTES, 900_000, 0)
# They wait for people, and the broker's own week is over soon.
DEAD_LETTER_RETENTION_MS = 30 * 86_400_000

Unreachable = (KafkaError, IncorrectState, OSError)
"""What the client raises while the broker cannot be reached."""
TooLarge = MessageSizeTooLargeError


class Unavailable(Exception):
    """The broker did not confirm a message, which may still arrive."""


class BatchPublisherError(SetupError):
    """A handler of batches has a publisher, which could lose what the handler returns.

    A batch that fails is handled message by message, and what is returned for each of them has
    nowhere to go.
    """

    def __init__(self, handler: str) -> None:
        super().__init__(
            f"The handler {handler!r} takes batches and has a publisher. A batch that fails is"
            " handled message by message, and what the handler then returns would be lost. Publish"
            " from within the handler instead: await service.send(publisher, event)."
        )


class Refused(KafkaError):  # type: ignore[misc]  # aiokafka has no types
    """The broker is there and does not let this client in; says which variable to look at."""


def check(settings: Settings) -> None:
    """Raises BadSetting where a `BROKER_*` variable is wrong, or does not fit the others."""
    client_options(settings)


def make_broker(
    settings: Settings,
    telemetry: Telemetry,
    registry: ServiceRegistry,
    service: str,
    consumers: "Consumers",
) -> KafkaBroker:
    """Make the broker of a service: telemetry first, so that all else runs inside of its spans.

    Raises:
        BadSetting: BROKER_URL, or the `BROKER_*` variables about security, cannot be used.
    """
    aiokafka_workarounds.apply()
    servers = bootstrap_servers(settings)
    metrics = MessagingMetrics(registry)
    counting = (
        [KafkaPrometheusMiddleware(registry=registry, metrics=metrics, app_name=service)]
        if settings.messaging_metrics == "prometheus"
        else []
    )
    policy = RetryPolicy(
        attempts=settings.retry_attempts,
        backoff=settings.retry_backoff_seconds,
        timeout=settings.handler_timeout_seconds,
        redeliver=Unavailable,
        confirmation=_confirmation,
        holding=lambda message, seconds=None: consumers.holding(
            _first(message).topic, seconds or policy.bound(_count(message))
        ),
        bury=lambda letter: _bury(broker, letter, metrics),
        retried=lambda message: metrics.retry(_first(message).topic),
        postponed=lambda message: consumers.postponed(_first(message).topic),
        singles=_singles,
        tracer=telemetry.tracer_provider.get_tracer(RetryPolicy.__module__),
    )
    consumers.bound = policy.bound
    broker = KafkaBroker(
        [str(server) for server in servers],
        client_id=service,
        security=broker_security(settings),
        acks="all",
        enable_idempotence=True,  # what the client sends again is stored once
        max_request_size=MAX_DEAD_LETTER_BYTES,
        graceful_timeout=settings.drain_timeout_seconds,
        # The retry policy ends every failure in the dead letters. What escapes it could not be
        # buried, so it is read again rather than lost.
        ack_policy=AckPolicy.NACK_ON_ERROR,
        parser=_parse,
        decoder=_decode,
        serializer=MessageSerializer(),
        middlewares=[
            KafkaTelemetryMiddleware(
                **telemetry.providers,
                # Which of several leads a partition, the client alone knows: the first one stands
                # for the cluster, so that it is the same name everywhere.
                server_address=servers[0].host,
                server_port=servers[0].port,
            ),
            *counting,
            policy,
        ],
        logger=logging.getLogger("faststream.messages"),
        # "Received" and "Processed" of every message cost a fifth of its time: the trace has both.
        log_level=logging.DEBUG,
    )
    return broker


def subscriber(
    broker: KafkaBroker,
    channel: str,
    *,
    service: str,
    consumers: "Consumers",
    batch: bool = False,
) -> Callable[[Callable[..., Any]], Any]:
    """Subscribe a handler. Each has a consumer group of its own, so none rebalances another."""
    options: dict[str, Any] = {
        "group_id": f"{service}.{channel}",
        "listener": consumers.member(channel),
        # `latest` would skip what was published before the group first committed.
        "auto_offset_reset": "earliest",
        "max_partition_fetch_bytes": MAX_DEAD_LETTER_BYTES,
        # Beyond it the client leaves its group, and what it holds is given to another as well.
        "max_poll_interval_ms": _poll_interval_ms(consumers.bound(MAX_BATCH if batch else 1)),
        # Otherwise a message's header `reply_to` has the handler's result sent wherever it says.
        "no_reply": True,
    }
    if batch:
        options |= {"batch": True, "max_records": MAX_BATCH, "batch_timeout_ms": 200}
    # Topics are made by `create_channels` before any service starts, with their limits.
    made = broker.subscriber(Topic(channel, declare=False), **options)

    def decorate(handler: Callable[..., Any]) -> Any:
        decorated = made(handler)
        refuse_batch_publishers(broker)
        return decorated

    return decorate


def _poll_interval_ms(held: float) -> int:
    """For a consumer that may be busy with what it took for so many seconds."""
    return int(max(POLL_INTERVAL_SECONDS, held + BURYING_SECONDS) * 1000)


def publisher(broker: KafkaBroker, channel: str, schema: Any | None = None) -> Publisher:
    """Declare a channel that a service publishes to."""
    return _Publisher(broker, broker.publisher(channel, schema=schema))


class _Publisher:
    """FastStream's publisher, which does not decorate a handler of batches."""

    def __init__(self, broker: KafkaBroker, made: Any) -> None:
        self._broker = broker
        self._made = made

    def __call__(self, handler: Callable[..., Any], /) -> Callable[..., Any]:
        decorated: Callable[..., Any] = self._made(handler)
        refuse_batch_publishers(self._broker)
        return decorated

    def __getattr__(self, name: str) -> Any:
        return getattr(self._made, name)


def refuse_batch_publishers(broker: KafkaBroker) -> None:
    """Look at all handlers, also those that were decorated by the broker itself.

    Raises:
        BatchPublisherError: One takes batches and has a publisher.
    """
    for subscriber in broker.subscribers:
        for call in subscriber.calls:
            if isinstance(subscriber, BatchSubscriber) and publishers_of(call.handler):
                raise BatchPublisherError(call.name)


async def send(publisher: Publisher, event: Event) -> None:
    """Publish an event; those of one order keep their order, since they share a key.

    Raises:
        Unavailable: The broker did not confirm it.
        TooLarge: The broker does not take messages of this size.
    """
    async with _confirmation():
        await publisher.publish(event, key=event.order_id.encode())


@asynccontextmanager
async def _confirmation() -> AsyncIterator[None]:
    """Limits the time of a publication; raises `Unavailable` where the broker is to blame."""
    try:
        # The client's own limit is 40 s, and a shorter one would also end its requests to join a
        # consumer group, which rightly take as long as the other members need.
        async with TimeLimit(PUBLISH_TIMEOUT_SECONDS):
            yield
    except TooLarge:
        raise
    except TimeoutError as error:
        raise Unavailable(f"no answer within {PUBLISH_TIMEOUT_SECONDS:.0f} s") from error
    except Unreachable as error:
        raise Unavailable(f"{type(error).__name__}: {error}") from error


async def obstacle(settings: Settings, error: Exception) -> object:
    """What stands between the service and the broker, after the client failed with this error."""
    return await refusal(settings) or error


async def create_channels(settings: Settings) -> None:
    """Create all topics that do not exist yet.

    Raises:
        KafkaError: The broker cannot be reached, or refuses; `Refused` if it is the client.
        BadSetting: As `make_broker`.
    """
    admin = AIOKafkaAdminClient(**client_options(settings))
    try:
        await admin.start()
    except Unreachable as failure:
        await admin.close()
        if reason := await refusal(settings):
            raise Refused(reason) from failure
        raise
    try:
        for channel in CHANNELS:
            limits = {"max.message.bytes": str(MAX_MESSAGE_BYTES)}
            if channel == DEAD_LETTERS:
                limits = {
                    "max.message.bytes": str(MAX_DEAD_LETTER_BYTES),
                    "retention.ms": str(DEAD_LETTER_RETENTION_MS),
                }
            answer = await admin.create_topics(
                [
                    NewTopic(
                        channel,
                        num_partitions=PARTITIONS,
                        replication_factor=-1,  # the broker's default
                        replica_assignments={},  # aiokafka asks for them beside a -1
                        topic_configs=limits,
                    )
                ]
            )
            for name, code, *reason in answer.topic_errors:
                error = for_code(code)
                if code and error is not TopicAlreadyExistsError:
                    raise error(f"topic {name}: {' '.join(map(str, reason))}")
    finally:
        await admin.close()


class Consumers:
    """Tells of the consumers of a service whether they get on.

    One gets on while it comes further in its partitions, or has nothing left to do there. It does
    not while it is not a member of its group, takes nothing of what Kafka has for it, or takes the
    same again and again, unless its handler asks for that. A message in hand may take as long as
    the retry policy allows.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._members: dict[str, _Member] = {}
        self._away = False
        self._question: asyncio.Task[bool] | None = None
        self.bound: Callable[[int], float]
        """Of the retry policy; `make_broker` sets it."""

    def member(self, channel: str) -> "_Member":
        """The one that consumes this channel."""
        return self._members.setdefault(channel, _Member(time.monotonic()))

    @contextmanager
    def holding(self, channel: str, seconds: float) -> Iterator[None]:
        """While a message is handled, which may take so long."""
        member = self.member(channel)
        member.held_until = time.monotonic() + seconds
        try:
            yield
        finally:
            member.held_until = None

    def postponed(self, channel: str) -> None:
        """A handler asked for its message again later: the consumer is not stalled."""
        self.member(channel).since = time.monotonic()

    def joined(self, broker: KafkaBroker) -> bool:
        """Whether each is a member of its group, be it one that no partition is left for."""
        return all(
            subscriber.running and self.member(channel).joined
            for channel, subscriber in self._subscribers(broker)
        )

    async def stalled(self, broker: KafkaBroker) -> dict[str, float]:
        """Say of each consumer that does not get on for how many seconds it has not.

        While the broker does not answer, nobody is to blame: the answer is empty.
        """
        if broker.running and (not self._away or await self._is_there(broker)):
            stalled = await self._standing_still(broker)
            # Asked for this alone: an answer tells of every topic that the cluster has.
            self._away = bool(stalled) and not await self._is_there(broker)
            if not self._away:
                return stalled
        now = time.monotonic()
        for member in self._members.values():
            member.since = now
        return {}

    async def answers(self, broker: KafkaBroker) -> bool:
        """Whether the broker soon answers over a connection that the service has."""
        # One question at a time, and never taken back: where it gets no answer at all, the client's
        # own time-out gives the connection up, and a new one takes its place.
        if self._question is None or self._question.done():
            self._question = asyncio.create_task(broker.ping(timeout=None))
        answered, _ = await asyncio.wait({self._question}, timeout=ANSWER_SECONDS)
        return bool(answered) and self._question.result()

    async def _is_there(self, broker: KafkaBroker) -> bool:
        return await self.answers(broker) or await self._answers_a_new_client()

    async def _answers_a_new_client(self) -> bool:
        """Whether a service that was started anew would find the broker.

        Clients ask BROKER_URL once: they never find a cluster that has moved meanwhile.
        """
        try:
            options = client_options(self._settings)
        except BadSetting:  # a certificate that is gone by now
            return False
        client = AIOKafkaAdminClient(**options, request_timeout_ms=int(ANSWER_SECONDS * 1000))
        try:
            await client.start()
        except Unreachable:
            return False
        finally:
            await client.close()
        return True

    async def _standing_still(self, broker: KafkaBroker) -> dict[str, float]:
        consumers = list(self._subscribers(broker))
        standings = await asyncio.gather(
            *(self._standing_soon(self.member(channel), subscriber.consumer)
              for channel, subscriber in consumers)
        )  # fmt: skip
        now = time.monotonic()
        stalled = {}
        for (channel, _), standing in zip(consumers, standings, strict=True):
            member = self.member(channel)
            if standing is None or standing != member.standing:
                member.standing = standing
                member.since = now
            since = max(member.since, member.held_until or 0)
            if now - since > 1:
                stalled[f"the consumer of {channel}"] = now - since
        return stalled

    async def _standing_soon(self, member: "_Member", consumer: AIOKafkaConsumer | None) -> Any:
        try:
            return await asyncio.wait_for(self._standing(member, consumer), 5)
        except (*Unreachable, TimeoutError):
            return "no answer"

    async def _standing(self, member: "_Member", consumer: AIOKafkaConsumer | None) -> Any:
        """What would be different if it had got on; None if there is nothing to get on with."""
        if consumer is None or not member.joined:
            return "not in its group"
        partitions = consumer.assignment()
        ends = await consumer.end_offsets(partitions) if partitions else {}
        # What is in hand, also of a group that has never committed anything.
        waits = member.held_until is not None
        for one in partitions:
            position = await consumer.position(one)
            member.reached[one] = max(position, member.reached.get(one, 0))
            if position < ends[one]:
                waits = True
            elif member.committed.get(one) != position:
                # What was taken is not done with: it is taken again if it is not committed.
                committed = await consumer.committed(one)
                if committed is not None:
                    member.committed[one] = committed
                    waits |= committed < ends[one]
        return dict(member.reached) if waits else None

    def _subscribers(self, broker: KafkaBroker) -> Iterator[tuple[str, Any]]:
        subscribers: Sequence[Any] = broker.subscribers
        for subscriber in subscribers:
            for channel in subscriber.topic_names:
                if channel in self._members:
                    yield channel, subscriber


@dataclass(eq=False)
class _Member(ConsumerRebalanceListener):  # type: ignore[misc]
    """What is known of one consumer; times are those of the monotonic clock."""

    since: float
    joined: bool = False
    reached: dict[Any, int] = field(default_factory=dict)
    committed: dict[Any, int] = field(default_factory=dict)
    held_until: float | None = None
    standing: Any = None

    def on_partitions_revoked(self, revoked: Any) -> None:
        self.joined = False

    def on_partitions_assigned(self, assigned: Any) -> None:
        self.joined = True


async def _bury(broker: KafkaBroker, letter: DeadLetter, metrics: MessagingMetrics) -> None:
    """Publish a dead letter, as much of it as the topic takes.

    A message that was compressed may be any size, and headers that are not text are stored twice.
    """
    record = _first(letter.message)
    origin = record.topic, record.partition, record.offset
    whole = record.key, record.value or b""
    headers = headers_of(letter, *origin, record.headers, tombstone=record.value is None)
    with metrics.dead_letter(record.topic, letter.error, letter.message.headers):
        try:
            await _put_away(broker, *whole, headers)
        except TooLarge:
            for most in DEAD_LETTER_CUTS[:-1]:
                with suppress(TooLarge):
                    return await _put_away(broker, *cut(*whole, headers, most))
            await _put_away(broker, *cut(*whole, headers, DEAD_LETTER_CUTS[-1]))


async def _put_away(
    broker: KafkaBroker, key: bytes | None, body: bytes, headers: dict[str, str]
) -> None:
    async with _confirmation():
        await broker.publish(
            body,
            DEAD_LETTERS,
            key=key,
            correlation_id=headers.get("correlation_id"),
            headers=headers,
        )


def _first(message: StreamMessage[Any]) -> "ConsumerRecord[Any, Any]":
    raw = message.raw_message
    record: ConsumerRecord[Any, Any] = raw[0] if isinstance(raw, tuple) else raw
    return record


def _count(message: StreamMessage[Any]) -> int:
    return len(message.raw_message) if isinstance(message.raw_message, tuple) else 1


def _singles(message: StreamMessage[Any]) -> list[StreamMessage[Any]]:
    if _count(message) == 1:
        return [message]
    singles = []
    for position, record in enumerate(message.raw_message):
        single = copy.copy(message)
        single.raw_message = (record,)
        single.body = [message.body[position]]
        single.batch_headers = [message.batch_headers[position]]
        single.headers = single.batch_headers[0]
        single.correlation_id = single.headers.get("correlation_id", single.correlation_id)
        single.content_type = single.headers.get("content-type")
        single.message_id = f"{record.offset}-{record.timestamp}"
        singles.append(single)
    return singles


class _Unparsed(bytes):
    """The body of a record that could not be parsed; `parse` fails in the same way again."""

    parse: Callable[[], Awaitable[object]]


async def _parse(message: Any, parse: Callable[[Any], Awaitable[Any]]) -> StreamMessage[Any]:
    """Parse a record, or a batch, whatever is in it.

    When parsing raises, FastStream goes on to the next message, and the offset with it. So a record
    that cannot be parsed becomes a message that cannot be decoded, and ends as a dead letter.
    """
    try:
        parsed = await parse(_readable(message))
    except Exception:
        parsed = await _parse_apart(message, parse)
    # With its bytes; the broker of tests has batches in lists.
    parsed.raw_message = tuple(message) if isinstance(message, Sequence) else message
    return cast("StreamMessage[Any]", parsed)


async def _parse_apart(message: Any, parse: Callable[[Any], Awaitable[Any]]) -> Any:
    """Leave out of the records that cannot be parsed all that could be to blame."""
    batch = isinstance(message, Sequence)
    readable, unparsed = [], {}
    for position, record in enumerate(message if batch else (message,)):
        one = _readable((record,) if batch else record)
        try:
            await parse(one)
        except Exception:
            unparsed[position] = body = _Unparsed(record.value or b"")
            body.parse = partial(parse, one)
            readable.append(replace(record, value=b"", headers=()))
        else:
            readable.append(one[0] if batch else one)
    parsed = await parse(tuple(readable) if batch else readable[0])
    for position, body in unparsed.items():
        if batch:
            parsed.body[position] = body
        else:
            parsed.body = body
    return parsed


async def _decode(
    message: StreamMessage[Any], decode: Callable[[StreamMessage[Any]], Awaitable[Any]]
) -> Any:
    for body in message.body if isinstance(message.body, list) else (message.body,):
        if isinstance(body, _Unparsed):
            await body.parse()
    if isinstance(message.raw_message, tuple):
        message = copy.copy(message)
        message.raw_message = _readable(message.raw_message)  # FastStream parses them again
    return await decode(message)


def _readable(message: Any) -> Any:
    """With headers that FastStream can read: it takes text alone."""
    if isinstance(message, Sequence):
        return tuple(_readable(record) for record in message)
    try:
        for _, value in message.headers:
            value.decode()
    except (AttributeError, UnicodeDecodeError):
        headers = ((name, header_text(value).encode()) for name, value in message.headers)
        return replace(message, headers=tuple(headers))
    return message
