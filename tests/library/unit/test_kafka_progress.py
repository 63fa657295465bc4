"""The watchdog sees from a Kafka consumer's progress whether messages wait for it."""

from typing import Any
from unittest.mock import AsyncMock, Mock

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from faststream_otel.kafka import KafkaSettings
from faststream_otel.kafka.broker import Kafka
from faststream_otel.messages.broker import Progress

ONE = TopicPartition("events", 0)


class Consumer:
    """A service's consumer of one partition, with nine messages, and the mark of a transaction."""

    def __init__(self) -> None:
        self.broker = Kafka(KafkaSettings())
        self.broker.build("service", [], drain_seconds=1, busy=lambda _: 1.0)

        @self.broker.subscriber("events", batch=False)
        async def handle(body: Any) -> None:
            """Does nothing."""

        (self.offsets,) = self.broker._offsets
        self.offsets.on_partitions_assigned({ONE})
        self.real = Mock(spec=AIOKafkaConsumer)
        self.real.assignment.return_value = {ONE}
        self.real.end_offsets = AsyncMock(return_value={ONE: 10})
        self.real.position = AsyncMock(return_value=10)
        self.real.committed = AsyncMock(return_value=9)
        (subscriber,) = self.broker.faststream.subscribers
        subscriber.consumer = self.real  # type: ignore[attr-defined]

    async def progress(self) -> Progress:
        return (await self.broker.progress())["events"]


@pytest.fixture
async def consumer() -> Consumer:
    return Consumer()


async def test_the_mark_of_a_transaction_is_no_message_that_waits(consumer: Consumer) -> None:
    assert not (await consumer.progress()).waiting


async def test_messages_before_the_end_wait(consumer: Consumer) -> None:
    consumer.real.position.return_value = 8
    assert (await consumer.progress()).waiting


async def test_what_is_not_committed_waits(
    consumer: Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(consumer.offsets), "pending", True)
    assert (await consumer.progress()).waiting
