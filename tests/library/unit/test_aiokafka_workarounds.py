"""A broker that is away, or says no, leaves no client that spins or is refused for ever.

Where aiokafka is not as the workarounds know it, it does what it does by itself.
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

from ..ports import refusing_port

PARTITION = TopicPartition("orders", 0)


@pytest.fixture(autouse=True)
def applied() -> None:
    aiokafka_workarounds.apply()
    aiokafka_workarounds.apply()  # once is enough, twice does no harm


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


PAUSE = "a refused connection is tried again at once, hundreds of times a second"
RENEW = "after a batch that failed for good, the broker may refuse all that a producer sends"
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
async def test_a_private_part_is_as_the_workarounds_use_it(
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
    """A client and an accumulator of another shape."""

    def _metadata_update(self) -> bool:
        return False

    def _pop_batch(self, partition: Any) -> str:
        return f"batch of {partition}"


def test_a_client_of_another_shape_stays_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    aiokafka_workarounds._say_missing.cache_clear()
    for client in (Newer, object):
        assert not aiokafka_workarounds.pause_between_attempts(client)
    assert not aiokafka_workarounds.renew_producer_ids(object)
    assert Newer()._metadata_update() is False
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2


def test_a_batch_of_an_accumulator_of_another_shape_is_sent(
    caplog: pytest.LogCaptureFixture,
) -> None:
    aiokafka_workarounds._say_missing.cache_clear()
    assert aiokafka_workarounds.renew_producer_ids(Newer)
    assert Newer()._pop_batch("orders/0") == "batch of orders/0"
    assert [record.levelname for record in caplog.records] == ["WARNING"]


async def test_a_broker_is_not_asked_where_that_cannot_be_done(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    aiokafka_workarounds._say_missing.cache_clear()
    monkeypatch.delattr(conn, "create_conn")
    await aiokafka_workarounds.connect_once("127.0.0.1", 1, 1000, {})
    monkeypatch.setattr(conn, "create_conn", lambda address: None, raising=False)
    await aiokafka_workarounds.connect_once("127.0.0.1", 1, 1000, {})
    assert [record.levelname for record in caplog.records] == ["WARNING"]
