"""Implements `DeadLetterStore` for Kafka, in the topic of the dead letters.

A log is a partition, an id is `<partition>/<offset>`. It reads without a consumer group, so the
topic has no consumer lag.
"""

import asyncio
import json
import random
import re
import time
from collections.abc import AsyncGenerator, Mapping
from types import TracebackType
from typing import Any, Self

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from ..messages.broker import Headers, Unreachable
from ..messages.dead_letters import DEAD_LETTERS
from ..messages.dead_letters.dead_letter import DeadLetter, Record
from ..messages.dead_letters.headers import (
    CHANNEL,
    MESSAGE_ID,
    PREFIX,
    STATE,
    encoded_headers,
)
from ..messages.dead_letters.store import send_attributes
from ..telemetry import semconv as messaging
from ..telemetry.values import Attributes
from .messages import MAX_DEAD_LETTER_BYTES, publish_errors
from .security import REQUEST_TIMEOUT_MS, bootstrap_servers, broker_errors, client_options
from .settings import KafkaSettings
from .telemetry import KafkaConventions, attribute_text

CLIENT = "dead-letters"
STALLED_SECONDS = 15.0
"""Reading fails after this time without a record, if the topic has more."""

_ID = re.compile("(0|[1-9][0-9]{0,8})/(0|[1-9][0-9]{0,17})")


class KafkaDeadLetters:
    """See `faststream_otel.messages.dead_letters.store.DeadLetterStore`."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._producer: AIOKafkaProducer | None = None
        self._topics: frozenset[str] = frozenset()
        self._partitions: list[int] = []

    async def __aenter__(self) -> Self:
        admin = AIOKafkaAdminClient(
            **client_options(self._settings),
            client_id=CLIENT,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
        )
        async with broker_errors(self._settings):
            try:
                await admin.start()
                topics = await admin.describe_topics()
            finally:
                await admin.close()
        self._topics = frozenset(topic["topic"] for topic in topics)
        self._partitions = [
            partition["partition"]
            for topic in topics
            if topic["topic"] == DEAD_LETTERS
            for partition in topic["partitions"]
        ]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._producer:
            await self._producer.stop()

    async def exists(self, channel: str) -> bool:
        return channel in self._topics

    def order(self, id: str) -> tuple[str, int]:
        found = _ID.fullmatch(id)
        if found is None:
            raise ValueError(f"{id} is not an id of the form <partition>/<offset>, such as 0/12")
        return found[1], int(found[2])

    async def read(self, start: Mapping[str, str] | None = None) -> AsyncGenerator[Record, None]:
        if start is None:
            offsets = dict.fromkeys(self._partitions, 0)
        else:
            offsets = {int(log): self.order(id)[1] for log, id in start.items()}
        found = {
            TopicPartition(DEAD_LETTERS, partition): offset
            for partition, offset in offsets.items()
            if partition in self._partitions
        }
        if not found:
            return
        consumer = self._consumer()
        async with broker_errors(self._settings):
            try:
                await consumer.start()
                first = await consumer.beginning_offsets([*found])
                end = await consumer.end_offsets([*found])
                left = {
                    one: (max(offset, first[one]), end[one])
                    for one, offset in found.items()
                    if max(offset, first[one]) < end[one]
                }
                async for record in _read(consumer, left):
                    yield record
            finally:
                await consumer.stop()

    async def append(self, log: str, body: bytes, headers: Mapping[str, str]) -> str:
        async with broker_errors(self._settings):
            producer = await self._started()
            sent = await producer.send_and_wait(
                DEAD_LETTERS, body, partition=int(log), headers=encoded_headers(headers)
            )
        return f"{sent.partition}/{sent.offset}"

    async def send(
        self, channel: str, dead_letter: DeadLetter, headers: Headers
    ) -> "asyncio.Future[object]":
        async with broker_errors(self._settings):
            producer = await self._started()
        body, key = dead_letter.body, dead_letter.record.key
        with publish_errors():
            if body is None and key is None:
                sent = await _send_empty(producer, channel, headers)
            else:
                sent = await producer.send(channel, body, key, headers=[*headers])
        return asyncio.ensure_future(_confirmed(sent))

    def attributes(self, channel: str, dead_letter: DeadLetter) -> tuple[Attributes, Attributes]:
        span = send_attributes(
            KafkaConventions.system, bootstrap_servers(self._settings)[0], channel, dead_letter
        )
        if dead_letter.record.key is not None:
            span[messaging.MESSAGING_KAFKA_MESSAGE_KEY] = attribute_text(dead_letter.record.key)
        partition, offset = self.order(dead_letter.id)
        link: Attributes = {
            messaging.MESSAGING_DESTINATION_NAME: DEAD_LETTERS,
            messaging.MESSAGING_DESTINATION_PARTITION_ID: partition,
            messaging.MESSAGING_KAFKA_OFFSET: offset,
        }
        return span, link

    def _consumer(self) -> AIOKafkaConsumer:
        return AIOKafkaConsumer(
            **client_options(self._settings),
            client_id=CLIENT,
            group_id=None,
            auto_offset_reset="earliest",  # if retention deletes records during the read
            max_partition_fetch_bytes=MAX_DEAD_LETTER_BYTES,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
        )

    async def _started(self) -> AIOKafkaProducer:
        if self._producer is None:
            producer = AIOKafkaProducer(
                **client_options(self._settings),
                client_id=CLIENT,
                acks="all",
                enable_idempotence=True,  # the client's retries make no duplicates, keep the order
                max_request_size=MAX_DEAD_LETTER_BYTES,
                request_timeout_ms=REQUEST_TIMEOUT_MS,
            )
            try:
                await producer.start()
            except BaseException:
                await producer.stop()
                raise
            self._producer = producer
        return self._producer


async def _read(
    consumer: AIOKafkaConsumer, offsets: Mapping[TopicPartition, tuple[int, int]]
) -> AsyncGenerator[Record, None]:
    """Read each partition in order, from its first offset up to, but excluding, its second."""
    left = {one: end for one, (_, end) in offsets.items()}
    consumer.assign([*left])
    for one, (start, _) in offsets.items():
        consumer.seek(one, start)
    moved = time.monotonic()
    while left:
        found = await consumer.getmany(timeout_ms=500, max_records=500)
        if found:
            moved = time.monotonic()
        for one, records in found.items():
            for record in records:
                if record.offset < offsets[one][1]:
                    yield _record(record)
        for one in tuple(left):
            # Compare positions, not records: a transaction's markers have offsets too.
            if await consumer.position(one) >= left[one]:
                del left[one]
                consumer.pause(one)
        if time.monotonic() - moved > STALLED_SECONDS:
            raise Unreachable(f"it stopped sending records of {DEAD_LETTERS}")


async def _confirmed(sent: "asyncio.Future[object]") -> object:
    with publish_errors():
        return await sent


async def _send_empty(producer: AIOKafkaProducer, topic: str, headers: Headers) -> Any:
    """Send a message without key and value. Kafka accepts it, but `producer.send` refuses it."""
    batch = producer.create_batch()
    batch.append(key=None, value=None, timestamp=None, headers=[*headers])
    partition = random.choice([*await producer.partitions_for(topic)])
    return await producer.send_batch(batch, topic, partition=partition)


def _record(record: Any) -> Record:
    return _from_old(
        Record(
            f"{record.partition}/{record.offset}",
            (record.timestamp or 0) / 1000,  # negative if the sender omitted it
            record.key,
            record.value,
            tuple(record.headers),
        )
    )


# Headers that version 0.1 and earlier wrote.
_OLD_TOPIC = f"{PREFIX}topic"
_OLD_PARTITION = f"{PREFIX}partition"
_OLD_OFFSET = f"{PREFIX}offset"
_OLD_STATE = f"{PREFIX}mark"


def _from_old(record: Record) -> Record:
    """Translate a record of version 0.1 or earlier; a newer one stays as it is."""
    text, added, body = record.text, {}, record.body
    if _OLD_TOPIC in text and CHANNEL not in text:
        added[CHANNEL] = text[_OLD_TOPIC]
        message_id = f"{text.get(_OLD_PARTITION)}/{text.get(_OLD_OFFSET)}"
        if _ID.fullmatch(message_id):
            added[MESSAGE_ID] = message_id
    if _OLD_STATE in text and STATE not in text:
        try:
            offsets = json.loads(body or b"")["offsets"]
            if isinstance(offsets, list) and all(type(one) is int for one in offsets):
                partition = record.id.partition("/")[0]
                body = json.dumps({"ids": [f"{partition}/{one}" for one in offsets]}).encode()
                added[STATE] = text[_OLD_STATE]
        except (ValueError, TypeError, KeyError, RecursionError):
            pass  # not written by this library
    if not added:
        return record
    headers = (*record.headers, *encoded_headers(added))
    return Record(record.id, record.timestamp, record.key, body, headers)
