"""The lag of Kafka's consumer groups, and the replicas of topics."""

import asyncio
from collections.abc import Collection, Sequence
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


async def lag(settings: KafkaSettings, groups: Collection[Group]) -> list[Lag]:
    """See `Broker.lag`. For Kafka, all messages that are not committed count as ready.

    Raises:
        Unreachable: The text says why.
    """
    options = client_options(settings) | {
        "client_id": CLIENT,
        "request_timeout_ms": REQUEST_TIMEOUT_MS,
    }
    admin = AIOKafkaAdminClient(**options)
    consumer = AIOKafkaConsumer(**options, group_id=None)
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
    return [
        Lag(
            group.channel,
            group.name,
            # A committed offset of -1 means none. Messages that retention has deleted do not count.
            # An offset beyond the end is of an earlier topic of this name.
            ready=max(end[one] - max(of.offset, first[one]), 0),
            in_flight=0,
            position=max(of.offset, 0),
            partition=str(one.partition),
        )
        for group, found in committed.items()
        for one, of in found.items()
    ]


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
