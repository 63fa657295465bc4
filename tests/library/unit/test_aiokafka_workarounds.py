"""The workarounds for aiokafka: no busy loop without a broker, and no producer refused for ever.

If a private part of aiokafka is missing, the workaround is off.
"""

import asyncio
import gc
import inspect
from collections.abc import Callable
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition, conn
from aiokafka.client import AIOKafkaClient
from aiokafka.cluster import ClusterMetadata
from aiokafka.errors import KafkaConnectionError, LeaderNotAvailableError
from aiokafka.producer import transaction_manager
from aiokafka.producer.message_accumulator import MessageAccumulator
from aiokafka.producer.transaction_manager import TransactionManager
from aiokafka.protocol import metadata
from faststream_otel.kafka import _aiokafka as aiokafka_workarounds
from faststream_otel.telemetry.missing import warn_missing

from ..ports import refusing_port

PARTITION = TopicPartition("orders", 0)


@pytest.fixture(autouse=True)
def applied() -> None:
    aiokafka_workarounds.apply()
    aiokafka_workarounds.apply()  # a second call has no effect


async def test_an_unreachable_broker_is_not_retried_all_the_time(
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
    ends = asyncio.get_running_loop().time() + 4 * aiokafka_workarounds.RECONNECT_SECONDS
    while asyncio.get_running_loop().time() < ends:
        await client.force_metadata_update()  # as consumers and producer do, one after another
    synchronizer.cancel()
    assert 0 < len(asked) < 20


async def test_a_producer_that_does_not_start_is_closed() -> None:
    said: list[str] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: said.append(context["message"]))
    with refusing_port() as port:
        producer = AIOKafkaProducer(bootstrap_servers=f"127.0.0.1:{port}")
        with pytest.raises(KafkaConnectionError):
            await producer.start()
    del producer
    gc.collect()
    assert said == []


async def test_a_failed_batch_leaves_no_gap_in_the_sequence() -> None:
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
    assert not manager.has_pid()  # so the sender requests a new id before it sends the next batch
    assert manager.sequence_number(PARTITION) == 0

    manager.set_pid_and_epoch(8, 0)
    late.failure(LeaderNotAvailableError())  # a batch of the old id does not affect the new one
    await asyncio.sleep(0)
    assert manager.producer_id == 8


PAUSE = "a client retries a refused connection at once, hundreds of times a second"
RENEW = "after a failed batch, the broker may refuse everything that the producer sends"
WHY = "the log does not say why a broker refuses the client"


@pytest.mark.parametrize(
    ("part", "without", "holds"),
    [
        (
            "AIOKafkaClient._metadata_update", PAUSE,
            lambda: inspect.iscoroutinefunction(AIOKafkaClient._metadata_update),
        ),
        ("MessageAccumulator._pop_batch", RENEW, lambda: callable(MessageAccumulator._pop_batch)),
        ("MessageAccumulator._batches", RENEW, lambda: accumulator()._batches == {}),
        ("MessageAccumulator._txn_manager", RENEW, lambda: accumulator()._txn_manager.has_pid()),
        (
            "TransactionManager._pid_and_epoch", RENEW,
            lambda: accumulator()._txn_manager._pid_and_epoch == (7, 0),
        ),
        (
            "TransactionManager._pid_waiter", RENEW,
            lambda: accumulator()._txn_manager._pid_waiter.done(),
        ),
        (
            "TransactionManager._sequence_numbers", RENEW,
            lambda: accumulator()._txn_manager._sequence_numbers[PARTITION] == 0,
        ),
        (
            "PidAndEpoch, NO_PRODUCER_ID, NO_PRODUCER_EPOCH", RENEW,
            lambda: TransactionManager(None, 0)._pid_and_epoch
            == transaction_manager.PidAndEpoch(
                transaction_manager.NO_PRODUCER_ID, transaction_manager.NO_PRODUCER_EPOCH
            ),
        ),
        (
            "conn.create_conn", WHY,
            lambda: {"request_timeout_ms", "ssl_context", "sasl_mechanism", "security_protocol"}
            <= inspect.signature(conn.create_conn).parameters.keys(),
        ),
        ("protocol.metadata.MetadataRequest", WHY, lambda: metadata.MetadataRequest([])),
    ],
)  # fmt: skip
async def test_a_private_part_is_as_the_workarounds_expect(
    part: str, without: str, holds: Callable[[], Any]
) -> None:
    broken = f"aiokafka {version('aiokafka')} has changed: {part}. Without: {without}."
    try:
        there = holds()
    except Exception as error:
        error.add_note(broken)
        raise
    assert there, broken


def accumulator() -> Any:
    manager = TransactionManager(None, 0)
    manager.set_pid_and_epoch(7, 0)
    return MessageAccumulator(ClusterMetadata(), 16_384, 0, 40, txn_manager=manager)


class Newer:
    """A client and an accumulator with different private parts."""

    def _metadata_update(self) -> bool:
        return False

    def _pop_batch(self, partition: Any) -> str:
        return f"batch of {partition}"


def test_a_client_without_the_private_parts_stays_unchanged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    warn_missing.cache_clear()
    for client in (Newer, object):
        assert not aiokafka_workarounds.pause_between_attempts(client)
    assert not aiokafka_workarounds.renew_producer_ids(object)
    assert Newer()._metadata_update() is False
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2


def test_an_accumulator_without_the_private_parts_still_sends_batches(
    caplog: pytest.LogCaptureFixture,
) -> None:
    warn_missing.cache_clear()
    assert aiokafka_workarounds.renew_producer_ids(Newer)
    assert Newer()._pop_batch("orders/0") == "batch of orders/0"
    assert [record.levelname for record in caplog.records] == ["WARNING"]


async def test_without_the_private_parts_no_connection_is_tried(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    warn_missing.cache_clear()
    monkeypatch.delattr(conn, "create_conn")
    await aiokafka_workarounds.connect_once("127.0.0.1", 1, 1000, {})
    monkeypatch.setattr(conn, "create_conn", lambda address: None, raising=False)
    await aiokafka_workarounds.connect_once("127.0.0.1", 1, 1000, {})
    assert [record.levelname for record in caplog.records] == ["WARNING"]
