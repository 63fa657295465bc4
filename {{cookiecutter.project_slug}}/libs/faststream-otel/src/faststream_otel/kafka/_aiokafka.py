"""Workarounds for aiokafka 0.14, with all the private parts of it that this project uses.

pyproject.toml keeps aiokafka below the next minor version. Where a part is missing or has another
shape, this is logged once, and aiokafka behaves as it does by itself.

- `AIOKafkaClient._metadata_update`: to pause before a broker that does not answer is asked again.
  Without: a refused connection is tried again at once, hundreds of times a second.
- `MessageAccumulator._pop_batch`, `._batches` and `._txn_manager`, `TransactionManager`'s
  `_pid_and_epoch`, `_pid_waiter` and `_sequence_numbers`, `PidAndEpoch`, `NO_PRODUCER_ID` and
  `NO_PRODUCER_EPOCH`: for a new producer id after a batch that has failed for good. Without: the
  broker may refuse all that the producer sends from then on.
- `aiokafka.conn.create_conn` and `aiokafka.protocol.metadata.MetadataRequest`, which have public
  names but no documentation: to find out why a broker refuses the client. Without: the log has no
  reason, only that there is no connection.
"""

# ruff: noqa: SLF001

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable, Mapping
from inspect import iscoroutinefunction
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.client import AIOKafkaClient
from aiokafka.producer import message_accumulator, transaction_manager

RECONNECT_SECONDS = 0.5

logger = logging.getLogger(__name__)


@functools.cache
def apply() -> None:
    """Apply all, once per process."""
    pause_between_attempts(AIOKafkaClient)
    renew_producer_ids(getattr(message_accumulator, "MessageAccumulator", None))
    close_after_failed_start(AIOKafkaProducer)


def pause_between_attempts(client: Any) -> bool:
    """Have clients pause before they ask a broker again that does not answer.

    Without it a refused connection is tried again at once, several hundred times a second in each
    client: it takes the processor that the broker needs to come back, and floods the log.

    Args:
        client: aiokafka's class.

    Returns:
        Whether they do.
    """
    update: Callable[..., Awaitable[bool]] | None = getattr(client, "_metadata_update", None)
    if update is None or not iscoroutinefunction(update):
        _say_missing("AIOKafkaClient._metadata_update", "clients don't pause between attempts")
        return False

    @functools.wraps(update)
    async def update_then_pause(*arguments: Any, **options: Any) -> bool:
        updated = await update(*arguments, **options)
        if not updated:
            await asyncio.sleep(RECONNECT_SECONDS)
        return updated

    client._metadata_update = update_then_pause
    return True


def renew_producer_ids(accumulator: Any) -> bool:
    """Have an idempotent producer take a new id when a batch of it has failed for good.

    A batch has its sequence number from when it is first sent. If it is then given up (it expired,
    or the broker does not take it), the number is missing, and the broker refuses all that follow:
    OutOfOrderSequenceNumber, for as long as the producer lives.

    Args:
        accumulator: aiokafka's class.

    Returns:
        Whether it does, unless its instances turn out to have another shape.
    """
    pop: Callable[..., Any] | None = getattr(accumulator, "_pop_batch", None)
    try:
        no_id = transaction_manager.PidAndEpoch(
            transaction_manager.NO_PRODUCER_ID, transaction_manager.NO_PRODUCER_EPOCH
        )
    except (AttributeError, TypeError):
        pop = None
    if not callable(pop):
        _say_missing("MessageAccumulator._pop_batch", "a failed batch may end its producer")
        return False

    @functools.wraps(pop)
    def renewing(self: Any, partition: Any, *arguments: Any, **options: Any) -> Any:
        manager = _manager_of_new_batch(self, partition)
        batch = pop(self, partition, *arguments, **options)
        if manager is not None:
            producer_id = manager.producer_id

            def renew(future: "asyncio.Future[Any]") -> None:
                failed = not future.cancelled() and future.exception() is not None
                if failed and manager.producer_id == producer_id:
                    manager._pid_and_epoch = no_id
                    manager._pid_waiter = asyncio.get_running_loop().create_future()
                    manager._sequence_numbers.clear()

            batch.future.add_done_callback(renew)
        return batch

    accumulator._pop_batch = renewing
    return True


def close_after_failed_start(producer: Any) -> None:
    """Have a producer that cannot start close itself.

    FastStream drops it as it is, and then aiokafka logs an error, once for each attempt to start.

    Args:
        producer: aiokafka's class.
    """
    start: Callable[..., Awaitable[None]] = producer.start

    @functools.wraps(start)
    async def start_or_close(self: Any) -> None:
        try:
            await start(self)
        except BaseException:
            await self.stop()
            raise

    producer.start = start_or_close


async def connect_once(host: str, port: int, timeout_ms: int, security: Mapping[str, Any]) -> None:
    """Connect to a broker, ask it something, and hang up.

    aiokafka's clients raise only that there is no connection.

    Args:
        security: As any client of aiokafka takes it.

    Raises:
        KafkaError, OSError: What a client keeps to itself.
    """
    try:
        from aiokafka.conn import create_conn
        from aiokafka.protocol.metadata import MetadataRequest

        connection = await create_conn(host, port, request_timeout_ms=timeout_ms, **security)
        try:  # a broker that wants a password first hangs up only here
            await connection.send(MetadataRequest([]))
        finally:
            connection.close()
    except (ImportError, AttributeError, TypeError):
        _say_missing("aiokafka.conn.create_conn", "why a broker refuses is not known")


def _manager_of_new_batch(accumulator: Any, partition: Any) -> Any | None:
    """What numbers the next batch; None if that is sent once more, or nothing numbers it."""
    try:
        manager = accumulator._txn_manager
        if manager is None or accumulator._batches[partition][0].retry_count:
            return None
        manager._pid_and_epoch, manager._pid_waiter, manager._sequence_numbers  # noqa: B018 (there?)
    except (AttributeError, LookupError, TypeError):
        _say_missing("MessageAccumulator._txn_manager", "a failed batch may end its producer")
        return None
    return manager


@functools.cache
def _say_missing(part: str, consequence: str) -> None:
    logger.warning("This version of aiokafka has no `%s`, or another one: %s", part, consequence)
