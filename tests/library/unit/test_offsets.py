"""Offsets are committed at intervals, and never beyond a message that is not acknowledged."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any
from unittest.mock import AsyncMock, Mock

import pytest
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, RequestTimedOutError
from faststream.kafka.message import KafkaAckableMessage
from faststream.kafka.parser import AioKafkaBatchParser, AioKafkaParser
from faststream_otel.kafka import offsets as module
from faststream_otel.kafka.offsets import Offsets

from ..brokers.rig import until

PARTITIONS = [TopicPartition("events", number) for number in range(3)]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COMMIT_SECONDS", 0.05)
    monkeypatch.setattr(module, "IN_FLIGHT_SECONDS", 0.3)
    monkeypatch.setattr(module, "LAST_SECONDS", 0.3)


class Consumer:
    """A consumer whose commits are recorded, and may be held up or fail.

    Attributes:
        commits: The offsets of each request, by partition.
        offsets: What is tested.
    """

    def __init__(self) -> None:
        self.commits: list[dict[int, int]] = []
        self.fails: Exception | None = None
        self.goes_on = asyncio.Event()
        self.goes_on.set()
        self.real = Mock(spec=AIOKafkaConsumer)
        self.real.assignment.return_value = frozenset(PARTITIONS)
        self.real.commit = AsyncMock(side_effect=self._commit)
        self.rebalances = Mock()
        self.offsets = Offsets(self.rebalances)

    async def _commit(self, sent: dict[TopicPartition, int]) -> None:
        self.commits.append({one.partition: offset for one, offset in sent.items()})
        await self.goes_on.wait()
        if self.fails:
            raise self.fails

    @property
    def committed(self) -> dict[int, int]:
        """The last committed offset of each partition."""
        return {number: offset for one in self.commits for number, offset in one.items()}

    async def deliver(self, *positions: tuple[int, int], batch: bool = False) -> Any:
        """Deliver a message, or a batch of them, by partition and offset."""
        records = tuple(
            ConsumerRecord("events", one, offset, 0, 0, b"k", b"v", None, 0, 0, ())
            for one, offset in positions
        )
        if batch:
            parser: Any = AioKafkaBatchParser(KafkaAckableMessage, None)
            parse = parser.parse_batch
        else:
            parser = AioKafkaParser(KafkaAckableMessage, None)
            parse = parser.parse_message
        parser._setup(self.real)
        return await self.offsets.parse(records if batch else records[0], parse)

    async def handle(self, *positions: tuple[int, int]) -> None:
        for one in positions:
            await (await self.deliver(one)).ack()


@pytest.fixture
async def consumer() -> Consumer:
    return Consumer()


async def test_many_messages_take_one_commit(consumer: Consumer) -> None:
    await consumer.handle(*((number % 3, number) for number in range(99)))
    assert not consumer.commits
    await until(lambda: consumer.commits, "a commit")
    assert consumer.commits == [{0: 97, 1: 98, 2: 99}]
    await consumer.handle((0, 99))
    await until(lambda: len(consumer.commits) == 2, "the next commit")
    assert consumer.commits[1] == {0: 100}


async def test_a_message_in_flight_is_not_committed(consumer: Consumer) -> None:
    await consumer.handle((0, 1))
    slow = await consumer.deliver((0, 2))
    await until(lambda: consumer.commits, "a commit")
    await consumer.offsets.stop()
    assert consumer.committed == {0: 2}
    await slow.ack()
    assert consumer.committed == {0: 3}


async def test_a_redelivered_message_is_not_committed(consumer: Consumer) -> None:
    await consumer.handle((0, 1))
    await (await consumer.deliver((0, 2))).nack()
    consumer.real.seek.assert_called_once_with(PARTITIONS[0], 2)
    await consumer.handle((1, 7))
    await consumer.offsets.stop()
    assert consumer.committed == {0: 2, 1: 8}


async def test_nothing_of_a_redelivered_batch_is_committed(consumer: Consumer) -> None:
    await consumer.handle((0, 1))
    await (await consumer.deliver((0, 2), (0, 3), (1, 5), batch=True)).nack()
    await consumer.handle((2, 7))
    await consumer.offsets.stop()
    assert consumer.committed == {0: 2, 2: 8}
    await (await consumer.deliver((0, 2), (0, 3), (1, 5), batch=True)).ack()
    assert consumer.committed == {0: 4, 1: 6, 2: 8}


async def test_a_message_without_an_acknowledgement_is_committed_with_the_next(
    consumer: Consumer,
) -> None:
    await consumer.deliver((0, 1))
    await consumer.handle((1, 7))
    await consumer.offsets.stop()
    assert consumer.committed == {0: 2, 1: 8}


async def test_the_stop_commits_and_then_each_message_at_once(consumer: Consumer) -> None:
    last = await consumer.deliver((0, 2))
    await consumer.handle((1, 7))
    await consumer.offsets.stop()
    before = len(consumer.commits)
    assert before
    await last.ack()
    await consumer.handle((0, 3), (0, 4))
    assert [one[0] for one in consumer.commits[-2:]] == [4, 5]


async def test_a_rebalance_waits_for_the_message_in_flight_and_commits(consumer: Consumer) -> None:
    message = await consumer.deliver((0, 1))
    revoked = asyncio.create_task(consumer.offsets.on_partitions_revoked({*PARTITIONS}))
    await asyncio.sleep(0.05)
    assert not revoked.done()
    consumer.rebalances.on_partitions_revoked.assert_called_once_with({*PARTITIONS})
    await message.ack()
    await revoked
    assert consumer.committed == {0: 2}


async def test_a_rebalance_does_not_wait_for_ever(consumer: Consumer) -> None:
    await consumer.handle((1, 7))
    slow = await consumer.deliver((0, 1))
    consumer.goes_on.clear()
    async with asyncio.timeout(5):
        await consumer.offsets.on_partitions_revoked({*PARTITIONS})
    consumer.goes_on.set()
    consumer.real.assignment.return_value = frozenset(PARTITIONS[1:])
    await slow.ack()  # its partition is somebody else's now
    await consumer.handle((1, 7))
    await consumer.offsets.stop()
    assert 0 not in consumer.committed


async def test_what_a_rebalance_interrupts_is_never_committed_by_another_message(
    consumer: Consumer,
) -> None:
    batch = await consumer.deliver((0, 1), (1, 5), batch=True)
    await consumer.offsets.on_partitions_revoked({*PARTITIONS})
    # Both partitions are read from their last commit on. The first is somebody else's now.
    consumer.real.assignment.return_value = frozenset(PARTITIONS[1:])
    consumer.real.seek.side_effect = IllegalStateError("not assigned")
    with pytest.raises(IllegalStateError):
        await batch.nack()
    await consumer.handle((2, 7))
    await consumer.offsets.stop()
    assert consumer.committed == {2: 8}


async def test_a_consumer_has_pending_messages_until_their_commit(consumer: Consumer) -> None:
    assert not consumer.offsets.pending
    message = await consumer.deliver((0, 1))
    assert consumer.offsets.pending
    await message.ack()
    assert consumer.offsets.pending
    await until(lambda: not consumer.offsets.pending, "the commit")
    assert consumer.committed == {0: 2}
    await (await consumer.deliver((0, 2))).nack()
    assert not consumer.offsets.pending  # its position has gone back


async def test_what_was_lost_in_a_rebalance_is_not_committed_later(consumer: Consumer) -> None:
    await consumer.handle((0, 1))
    consumer.fails = CommitFailedError()
    await consumer.offsets.on_partitions_revoked({*PARTITIONS})
    consumer.fails = None
    before = len(consumer.commits)
    await consumer.handle((1, 7))
    await consumer.offsets.stop()
    assert consumer.commits[before:] == [{1: 8}]


async def test_a_failed_commit_is_logged_once_and_tried_again(
    consumer: Consumer, caplog: pytest.LogCaptureFixture
) -> None:
    consumer.fails = RequestTimedOutError("no answer")
    await consumer.handle((0, 1))
    await until(lambda: len(consumer.commits) > 2, "three attempts")
    await consumer.handle((0, 2))
    warnings = [one for one in caplog.records if one.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert "no answer" in warnings[0].getMessage()
    consumer.fails = None
    await until(lambda: consumer.commits[-1] == {0: 3}, "the commit of both")


async def test_while_a_commit_hangs_no_further_message_goes_on(consumer: Consumer) -> None:
    consumer.goes_on.clear()
    await consumer.handle((0, 1))
    await until(lambda: consumer.commits, "a request")
    await asyncio.sleep(0.1)
    blocked = asyncio.create_task(consumer.handle((0, 2)))
    await asyncio.sleep(0.1)
    assert not blocked.done()
    consumer.goes_on.set()
    await blocked
    await until(lambda: consumer.committed == {0: 3}, "the next commit")


async def test_a_stop_does_not_wait_for_ever(consumer: Consumer) -> None:
    consumer.goes_on.clear()
    await consumer.handle((0, 1))
    async with asyncio.timeout(5):
        await consumer.offsets.stop()
    consumer.offsets.reset()


async def test_the_consumer_of_the_next_start_begins_afresh(consumer: Consumer) -> None:
    consumer.fails = RequestTimedOutError()
    await consumer.handle((0, 1))
    await consumer.offsets.stop()
    consumer.offsets.reset()
    consumer.fails = None
    before = len(consumer.commits)
    await consumer.handle((1, 7))
    await until(lambda: len(consumer.commits) > before, "a commit")
    assert consumer.commits[before:] == [{1: 8}]


async def test_a_handler_may_use_the_consumer(consumer: Consumer) -> None:
    message = await consumer.deliver((0, 1))
    message.consumer.pause(PARTITIONS[0])
    consumer.real.pause.assert_called_once_with(PARTITIONS[0])
    await message.consumer.commit({PARTITIONS[0]: 2})
    assert consumer.commits == [{0: 2}]


async def test_consumers_in_memory_have_no_offsets() -> None:
    other = Mock(spec=[])
    message = await Offsets(Mock()).parse(
        ConsumerRecord("events", 0, 1, 0, 0, b"k", b"v", None, 0, 0, ()), _parser(other)
    )
    assert message.consumer is other


def _parser(consumer: Any) -> Callable[[Any], Any]:
    parser = AioKafkaParser(KafkaAckableMessage, None)
    parser._setup(consumer)
    return parser.parse_message
