"""Kafka: the topic of dead letters, read without a consumer group and so without any lag."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Any, Self

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaTimeoutError, MessageSizeTooLargeError
from opentelemetry.semconv.attributes import server_attributes as server

from ..messages.broker import Headers
from ..messages.dead_letters import DEAD_LETTERS
from ..messages.dead_letters.ledger import Mark
from ..messages.dead_letters.letter import (
    CORRELATION_ID,
    Letter,
    Position,
    Record,
    encoded,
)
from ..messages.middleware import Attributes
from ..telemetry import semconv as messaging
from .bootstrap import bootstrap_servers
from .messages import MAX_DEAD_LETTER_BYTES
from .security import client_options
from .settings import KafkaSettings
from .telemetry import KafkaConventions, text_of

CLIENT = "dead-letters"
STALLED_SECONDS = 15.0
"""Without any record of those that there are, before reading gives up."""
REQUEST_MS = 10_000

Offsets = Mapping[int, int]
"""By partition."""

NotSent = (MessageSizeTooLargeError,)
"""What sending raises when the message certainly was not sent; after other errors it may have."""


class KafkaDeadLetters:
    """What is in the topic of dead letters, and the way out of it; `async with` connects.

    Attributes:
        topics: All topics that there are.
        first: The oldest offset that each partition still has.
        end: The offset after the newest one of each partition; both as they were on connecting.

    Raises:
        messaging.Unreachable: On connecting, or by any method: the broker does not answer.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._producer: AIOKafkaProducer | None = None
        self.topics: frozenset[str] = frozenset()
        self.first: Offsets = {}
        self.end: Offsets = {}

    async def __aenter__(self) -> Self:
        admin = AIOKafkaAdminClient(
            **client_options(self._settings), client_id=CLIENT, request_timeout_ms=REQUEST_MS
        )
        try:
            await admin.start()
            topics = await admin.describe_topics()
        finally:
            await admin.close()
        self.topics = frozenset(topic["topic"] for topic in topics)
        partitions = [
            TopicPartition(DEAD_LETTERS, partition["partition"])
            for topic in topics
            if topic["topic"] == DEAD_LETTERS
            for partition in topic["partitions"]
        ]
        if partitions:
            consumer = self._consumer()
            try:
                await consumer.start()
                first = await consumer.beginning_offsets(partitions)
                end = await consumer.end_offsets(partitions)
            finally:
                await consumer.stop()
            self.first = {one.partition: offset for one, offset in first.items()}
            self.end = {one.partition: offset for one, offset in end.items()}
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._producer:
            await self._producer.stop()

    async def read(self, start: Offsets, end: Offsets) -> AsyncIterator[Record]:
        """Read each partition of `start` from there to before its `end`, in its order."""
        left = {
            TopicPartition(DEAD_LETTERS, partition): end[partition]
            for partition, offset in start.items()
            if offset < end[partition]
        }
        if not left:
            return
        consumer = self._consumer()
        try:
            await consumer.start()
            consumer.assign(list(left))
            for one in left:
                consumer.seek(one, start[one.partition])
            moved = time.monotonic()
            while left:
                found = await consumer.getmany(timeout_ms=500, max_records=500)
                if found:
                    moved = time.monotonic()
                for one, records in found.items():
                    for record in records:
                        if record.offset < end[one.partition]:
                            yield _record(record)
                for one in tuple(left):
                    # Not by the last record: what a transaction leaves behind has offsets too.
                    if await consumer.position(one) >= left[one]:
                        del left[one]
                        consumer.pause(one)
                if time.monotonic() - moved > STALLED_SECONDS:
                    raise KafkaTimeoutError(f"the broker sends no more of {DEAD_LETTERS}")
        finally:
            await consumer.stop()

    async def mark(self, partition: int, mark: Mark) -> int:
        """Write a mark, and return its offset."""
        producer = await self._started()
        sent = await producer.send_and_wait(
            DEAD_LETTERS, mark.value, partition=partition, headers=encoded(mark.headers)
        )
        return int(sent.offset)

    async def send(self, topic: str, letter: Letter, headers: Headers) -> "asyncio.Future[object]":
        """Publish a letter's message; what is returned is done when the broker has it.

        Messages of one key go the way they always go, and keep the order of these calls.

        Raises:
            NotSent: It is too large, say.
        """
        producer = await self._started()
        sent: asyncio.Future[object]
        if letter.value is None and letter.record.key is None:
            sent = await _send_neither(producer, topic, headers)
        else:
            sent = await producer.send(topic, letter.value, letter.record.key, headers=[*headers])
        return sent

    def attributes(self, topic: str, letter: Letter) -> tuple[Attributes, Attributes]:
        """What a span says of sending a letter, and what its link says of the letter."""
        broker = bootstrap_servers(self._settings)[0]
        span: Attributes = {
            messaging.MESSAGING_SYSTEM: KafkaConventions.system,
            messaging.MESSAGING_OPERATION_NAME: "send",
            messaging.MESSAGING_OPERATION_TYPE: "send",
            messaging.MESSAGING_DESTINATION_NAME: topic,
            messaging.MESSAGING_MESSAGE_BODY_SIZE: len(letter.value or b""),
            server.SERVER_ADDRESS: broker.host,
            server.SERVER_PORT: broker.port,
        }
        if letter.record.key is not None:
            span[messaging.MESSAGING_KAFKA_MESSAGE_KEY] = text_of(letter.record.key)
        if conversation := letter.record.text.get(CORRELATION_ID):
            span[messaging.MESSAGING_MESSAGE_CONVERSATION_ID] = text_of(conversation)
        link: Attributes = {
            messaging.MESSAGING_DESTINATION_NAME: DEAD_LETTERS,
            messaging.MESSAGING_DESTINATION_PARTITION_ID: str(letter.position.partition),
            messaging.MESSAGING_KAFKA_OFFSET: letter.position.offset,
        }
        return span, link

    def _consumer(self) -> AIOKafkaConsumer:
        return AIOKafkaConsumer(
            **client_options(self._settings),
            client_id=CLIENT,
            group_id=None,
            auto_offset_reset="earliest",  # of what the topic forgets while it is being read
            max_partition_fetch_bytes=MAX_DEAD_LETTER_BYTES,
            request_timeout_ms=REQUEST_MS,
        )

    async def _started(self) -> AIOKafkaProducer:
        if self._producer is None:
            producer = AIOKafkaProducer(
                **client_options(self._settings),
                client_id=CLIENT,
                acks="all",
                enable_idempotence=True,  # its own retries make no duplicates, and keep the order
                max_request_size=MAX_DEAD_LETTER_BYTES,
                request_timeout_ms=REQUEST_MS,
            )
            try:
                await producer.start()
            except BaseException:
                await producer.stop()
                raise
            self._producer = producer
        return self._producer


async def _send_neither(producer: AIOKafkaProducer, topic: str, headers: Headers) -> Any:
    """Send a message without key and value, which Kafka takes and `producer.send` refuses."""
    batch = producer.create_batch()
    batch.append(key=None, value=None, timestamp=None, headers=[*headers])
    partition = random.choice([*await producer.partitions_for(topic)])
    return await producer.send_batch(batch, topic, partition=partition)


def _record(record: Any) -> Record:
    return Record(
        Position(record.partition, record.offset),
        (record.timestamp or 0) / 1000,  # negative where the sender left it out
        record.key,
        record.value,
        tuple(record.headers),
    )
