"""The lag of Kafka's consumer groups, and the replicas of topics."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from ..messages.broker import Group, Lag, Replicas, Unreachable
from .security import REQUEST_TIMEOUT_MS, broker_errors, client_options
from .settings import KafkaSettings

CLIENT = "lag"
ATTEMPTS = 10
RETRY_SECONDS = 0.5
MOST_MARKS = 10
"""A larger lag is never assumed to be only transaction markers."""
MARKS_SECONDS = 1.0
"""How long to look for messages among the markers, over all groups."""


async def lag(settings: KafkaSettings, groups: Collection[Group]) -> list[Lag]:
    """See `Broker.lag`. For Kafka, all messages that are not committed count as ready.

    Each transaction ends with a marker, which takes an offset that no consumer commits. If nothing
    else follows the committed offset, there is no lag. Detecting that requires permission to read
    the topic; without it, markers count.

    Raises:
        Unreachable: The text says why.
    """
    options = client_options(settings) | {
        "client_id": CLIENT,
        "request_timeout_ms": REQUEST_TIMEOUT_MS,
    }
    admin = AIOKafkaAdminClient(**options)
    consumer = AIOKafkaConsumer(
        **options, group_id=None, auto_offset_reset="none", max_partition_fetch_bytes=65536
    )
    async with broker_errors(settings):
        try:
            await admin.start()
            await consumer.start()
            return await _lag(admin, consumer, groups)
        finally:
            await consumer.stop()
            await admin.close()


async def replicas(settings: KafkaSettings, channels: Collection[str]) -> list[Replicas]:
    """See `Broker.replicas`.

    Raises:
        Unreachable: The text says why.
    """
    admin = AIOKafkaAdminClient(
        **client_options(settings), client_id=CLIENT, request_timeout_ms=REQUEST_TIMEOUT_MS
    )
    async with broker_errors(settings):
        try:
            await admin.start()
            topics = await admin.describe_topics()  # all, as below
        finally:
            await admin.close()
    return [
        Replicas(
            topic["topic"],
            configured=len(one["replicas"]),
            # The last copy stays in the list when its broker is lost.
            in_sync=len(one["isr"]) if one["leader"] >= 0 else 0,
            partition=str(one["partition"]),
        )
        for topic in topics
        if topic["topic"] in channels
        for one in topic["partitions"]
    ]


async def _lag(
    admin: AIOKafkaAdminClient, consumer: AIOKafkaConsumer, groups: Collection[Group]
) -> list[Lag]:
    # All topics: a broker may create a topic that a client asks for by name.
    partitions = {
        topic["topic"]: [
            TopicPartition(topic["topic"], one["partition"]) for one in topic["partitions"]
        ]
        for topic in await admin.describe_topics()
    }
    committed = {
        group: await _committed(admin, group.name, partitions[group.channel])
        for group in groups
        if group.channel in partitions
    }
    # After the committed offsets, which may grow meanwhile.
    every = list({one: None for found in committed.values() for one in found})
    first = await consumer.beginning_offsets(every) if every else {}
    end = await consumer.end_offsets(every) if every else {}
    # A committed offset of -1 means none. Messages that retention has deleted do not count.
    next_offsets = {
        group: {one: max(of.offset, first[one]) for one, of in found.items()}
        for group, found in committed.items()
    }
    found = []
    until = asyncio.get_running_loop().time() + MARKS_SECONDS
    for group, offsets in next_offsets.items():
        marks = await _marks(consumer, offsets, end, until)
        found += [
            Lag(
                group.channel,
                group.name,
                # An offset beyond the end belongs to an earlier topic of the same name.
                ready=0 if one in marks else max(end[one] - offset, 0),
                in_flight=0,
                position=max(committed[group][one].offset, 0),
                partition=str(one.partition),
            )
            for one, offset in offsets.items()
        ]
    return found


async def _marks(
    consumer: AIOKafkaConsumer,
    offsets: Mapping[TopicPartition, int],
    end: Mapping[TopicPartition, int],
    until: float,
) -> set[TopicPartition]:
    """The partitions that have only transaction markers from these offsets on.

    Args:
        until: When to stop looking, by the event loop's clock.
    """
    unknown = {one for one, offset in offsets.items() if 0 < end[one] - offset <= MOST_MARKS}
    marks: set[TopicPartition] = set()
    if not unknown:
        return marks
    consumer.assign(unknown)
    for one in unknown:
        consumer.seek(one, offsets[one])
    # No permission, no time, or a message that the client cannot read: then the lag stays as it is.
    with suppress(KafkaError, ValueError, TimeoutError):
        async with asyncio.timeout_at(until):
            while unknown:
                messages = await consumer.getmany(*unknown, timeout_ms=100)
                unknown -= messages.keys()
                # The client skips markers without returning them.
                passed = {one for one in unknown if await consumer.position(one) >= end[one]}
                marks |= passed
                unknown -= passed
    return marks


async def _committed(
    admin: AIOKafkaAdminClient, group: str, partitions: Sequence[TopicPartition]
) -> dict[TopicPartition, Any]:
    for _ in range(ATTEMPTS):
        # A new broker first has to create and load the topic of the groups' offsets.
        try:
            found = await admin.list_consumer_group_offsets(group, partitions=[*partitions])
        except KafkaError as error:
            if not error.retriable:
                raise
        else:
            # If the request fails for the whole group, aiokafka returns an empty result.
            if found.keys() >= {*partitions}:
                return {one: found[one] for one in partitions}
        await asyncio.sleep(RETRY_SECONDS)
    raise Unreachable(f"it does not return the committed offsets of group {group}")
