"""A broker that is away, or says no, leaves no client that spins or is refused for ever."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.cluster import ClusterMetadata
from aiokafka.errors import LeaderNotAvailableError
from aiokafka.producer.message_accumulator import MessageAccumulator
from aiokafka.producer.transaction_manager import TransactionManager

from {{ cookiecutter.package_name }} import aiokafka_cures

PARTITION = TopicPartition("orders", 0)


@pytest.fixture(autouse=True)
def cured() -> None:
    aiokafka_cures.cure()
    aiokafka_cures.cure()  # once is enough, twice does no harm


async def test_a_broker_that_is_away_is_not_asked_all_the_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = AIOKafkaClient()
    asked = []

    async def refused(node_id: Any, **options: Any) -> None:
        asked.append(node_id)
        client.force_metadata_update()  # as the real one does

    monkeypatch.setattr(client, "_get_conn", refused)
    monkeypatch.setattr(client.cluster, "brokers", lambda: [SimpleNamespace(nodeId=1)])
    synchronizer = asyncio.create_task(client._md_synchronizer())
    ends = asyncio.get_running_loop().time() + 4 * aiokafka_cures.RECONNECT_SECONDS
    while asyncio.get_running_loop().time() < ends:
        await client.force_metadata_update()  # as consumers and producer do, one after another
    synchronizer.cancel()
    assert 0 < len(asked) < 20


async def test_a_batch_that_failed_leaves_no_gap_in_the_sequence() -> None:
    manager = TransactionManager(None, 0)
    manager.set_pid_and_epoch(7, 0)
    accumulator = MessageAccumulator(ClusterMetadata(), 16_384, 0, 40, txn_manager=manager)

    async def drained() -> Any:
        await accumulator.add_message(PARTITION, None, b"value", 1)
        return accumulator._pop_batch(PARTITION)

    good = await drained()
    good.done_noack()
    await asyncio.sleep(0)
    assert (manager.producer_id, manager.sequence_number(PARTITION)) == (7, 1)

    bad, late = await drained(), await drained()
    bad.failure(LeaderNotAvailableError())
    await asyncio.sleep(0)
    assert not manager.has_pid()  # the sender asks for another before it sends anything more
    assert manager.sequence_number(PARTITION) == 0

    manager.set_pid_and_epoch(8, 0)
    late.failure(LeaderNotAvailableError())  # of the old id: no matter of the new one's
    await asyncio.sleep(0)
    assert manager.producer_id == 8
