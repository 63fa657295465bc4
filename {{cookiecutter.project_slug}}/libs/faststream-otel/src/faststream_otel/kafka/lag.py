"""Kafka: the lag of consumer groups, asked from outside of them."""

import asyncio
from collections.abc import Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from ..messages.broker import Lag, Unreachable
from .security import client_options, reaching
from .settings import KafkaSettings

CLIENT = "lag"
REQUEST_MS = 10_000
ATTEMPTS = 10
RETRY_SECONDS = 0.5


async def lag(settings: KafkaSettings, groups: Sequence[tuple[str, str]]) -> list[Lag]:
    """See `Broker.lag`. Kafka counts what was delivered and not committed as ready.

    Args:
        groups: Of each its topic and its name. A topic that does not exist has no lag.

    Raises:
        Unreachable: Says why.
    """
    options = client_options(settings)
    admin = AIOKafkaAdminClient(**options, client_id=CLIENT, request_timeout_ms=REQUEST_MS)
    consumer = AIOKafkaConsumer(
        **options, client_id=CLIENT, group_id=None, request_timeout_ms=REQUEST_MS
    )
    async with reaching(settings):
        try:
            await admin.start()
            await consumer.start()
            # Of all: a broker may create a topic that somebody asks for by name.
            partitions = {
                topic["topic"]: [
                    TopicPartition(topic["topic"], one["partition"]) for one in topic["partitions"]
                ]
                for topic in await admin.describe_topics()
            }
            return [
                Lag(topic, group, await _ready(admin, consumer, group, partitions[topic]), 0)
                for topic, group in groups
                if topic in partitions
            ]
        finally:
            await consumer.stop()
            await admin.close()


async def _ready(
    admin: AIOKafkaAdminClient,
    consumer: AIOKafkaConsumer,
    group: str,
    partitions: Sequence[TopicPartition],
) -> int:
    first = await consumer.beginning_offsets(partitions)
    end = await consumer.end_offsets(partitions)
    committed = await _committed(admin, group, partitions)
    # -1: nothing was committed. What retention has deleted is not waiting.
    return sum(end[one] - max(committed[one].offset, first[one]) for one in partitions)


async def _committed(
    admin: AIOKafkaAdminClient, group: str, partitions: Sequence[TopicPartition]
) -> dict[TopicPartition, Any]:
    for _ in range(ATTEMPTS):
        # A new broker first has to make, and load, the topic in which groups keep their offsets.
        try:
            found = await admin.list_consumer_group_offsets(group, partitions=[*partitions])
        except KafkaError as error:
            if not error.retriable:
                raise
        else:
            # On an error of the group as a whole, aiokafka returns nothing.
            if found.keys() >= {*partitions}:
                return dict(found)
        await asyncio.sleep(RETRY_SECONDS)
    raise Unreachable(f"it does not say which offsets group {group} has committed")
