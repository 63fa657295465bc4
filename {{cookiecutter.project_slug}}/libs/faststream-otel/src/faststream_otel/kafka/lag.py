"""The lag of Kafka's consumer groups."""

import asyncio
from collections.abc import Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from ..messages.broker import Lag, Unreachable
from .security import REQUEST_TIMEOUT_MS, broker_errors, client_options
from .settings import KafkaSettings

CLIENT = "lag"
ATTEMPTS = 10
RETRY_SECONDS = 0.5


async def lag(settings: KafkaSettings, groups: Sequence[tuple[str, str]]) -> list[Lag]:
    """See `Broker.lag`. For Kafka, all messages that are not committed count as ready.

    Args:
        groups: The topic and the name of each group. A topic that does not exist has no lag.

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
            # All topics: a broker may create a topic that a client asks for by name.
            partitions = {
                topic["topic"]: [
                    TopicPartition(topic["topic"], one["partition"]) for one in topic["partitions"]
                ]
                for topic in await admin.describe_topics()
            }
            return [
                one
                for topic, group in groups
                if topic in partitions
                for one in await _of_group(admin, consumer, group, partitions[topic])
            ]
        finally:
            await consumer.stop()
            await admin.close()


async def _of_group(
    admin: AIOKafkaAdminClient,
    consumer: AIOKafkaConsumer,
    group: str,
    partitions: Sequence[TopicPartition],
) -> list[Lag]:
    first = await consumer.beginning_offsets(partitions)
    end = await consumer.end_offsets(partitions)
    committed = await _committed(admin, group, partitions)
    return [
        Lag(
            one.topic,
            group,
            # A committed offset of -1 means none. Messages that retention has deleted do not count.
            ready=end[one] - max(committed[one].offset, first[one]),
            in_flight=0,
            position=max(committed[one].offset, 0),
            partition=str(one.partition),
        )
        for one in partitions
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
                return dict(found)
        await asyncio.sleep(RETRY_SECONDS)
    raise Unreachable(f"it does not return the committed offsets of group {group}")
