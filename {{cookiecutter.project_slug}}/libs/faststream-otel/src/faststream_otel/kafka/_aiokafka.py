"""Workarounds for aiokafka 0.14, with all private parts of aiokafka that this library uses.

pyproject.toml keeps aiokafka below the next minor version. If a part is missing or looks different,
the log says so once, and the workaround is off.

- `AIOKafkaClient._metadata_update`: to pause before the next attempt to reach a broker. Without:
  the client retries a refused connection at once, hundreds of times a second.
- `MessageAccumulator._pop_batch`, `._batches` and `._txn_manager`, `TransactionManager`'s
  `_pid_and_epoch`, `_pid_waiter` and `_sequence_numbers`, `PidAndEpoch`, `NO_PRODUCER_ID` and
  `NO_PRODUCER_EPOCH`: to get a new producer id after a batch has failed for good. Without: the
  broker may refuse everything that the producer sends afterwards.
- `aiokafka.conn.create_conn` and `aiokafka.protocol.metadata.MetadataRequest`, which have public
  names but no documentation: to find out why a broker refuses the client. Without: the log only
  says that there is no connection, not why.
"""

# ruff: noqa: SLF001

import asyncio
import functools
from collections.abc import Awaitable, Callable, Mapping
from inspect import iscoroutinefunction
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.client import AIOKafkaClient
from aiokafka.producer import message_accumulator, transaction_manager

from ..telemetry.missing import warn_missing

RECONNECT_SECONDS = 0.5

_NOT_RENEWED = "after a failed batch, the broker may refuse everything that the producer sends"
_warn_missing = functools.partial(warn_missing, "aiokafka")


@functools.cache
def apply() -> None:
    """Apply all workarounds, once per process."""
    pause_between_attempts(AIOKafkaClient)
    renew_producer_ids(getattr(message_accumulator, "MessageAccumulator", None))
    close_after_failed_start(AIOKafkaProducer)


def pause_between_attempts(client: Any) -> bool:
    """Make clients pause between attempts to reach a broker.

    Without the pause, each client retries a refused connection several hundred times a second. That
    uses the CPU that the broker needs to recover, and floods the log.

    Args:
        client: aiokafka's class.

    Returns:
        Whether clients pause.
    """
    update: Callable[..., Awaitable[bool]] | None = getattr(client, "_metadata_update", None)
    if update is None or not iscoroutinefunction(update):
        _warn_missing("`AIOKafkaClient._metadata_update`", "clients don't pause between attempts")
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
    """Make an idempotent producer request a new id after one of its batches has failed for good.

    A batch gets its sequence number when it is first sent. If it then fails for good (it expires,
    or the broker refuses it), its number never reaches the broker. The broker refuses all later
    batches of this producer with OutOfOrderSequenceNumber.

    Args:
        accumulator: aiokafka's class.

    Returns:
        Whether producers do, as far as the class shows; its instances may still lack a part.
    """
    pop: Callable[..., Any] | None = getattr(accumulator, "_pop_batch", None)
    try:
        no_id = transaction_manager.PidAndEpoch(
            transaction_manager.NO_PRODUCER_ID, transaction_manager.NO_PRODUCER_EPOCH
        )
    except (AttributeError, TypeError):
        pop = None
    if not callable(pop):
        _warn_missing("`MessageAccumulator._pop_batch`", _NOT_RENEWED)
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
    """Connect to a broker, send a request, and disconnect.

    aiokafka's clients only raise that there is no connection; this raises the cause.

    Args:
        security: Options such as any client of aiokafka takes.

    Raises:
        KafkaError, OSError: The cause, which a client hides.
    """
    try:
        from aiokafka.conn import create_conn
        from aiokafka.protocol.metadata import MetadataRequest

        connection = await create_conn(host, port, request_timeout_ms=timeout_ms, **security)
        try:  # a broker that requires a password closes the connection only at this request
            await connection.send(MetadataRequest([]))
        finally:
            connection.close()
    except (ImportError, AttributeError, TypeError):
        _warn_missing(
            "`aiokafka.conn.create_conn`", "the log does not say why a broker refuses the client"
        )


def _manager_of_new_batch(accumulator: Any, partition: Any) -> Any | None:
    """The object that numbers the next batch; None if the batch has a number, or gets none."""
    try:
        manager = accumulator._txn_manager
        if manager is None or accumulator._batches[partition][0].retry_count:
            return None
        manager._pid_and_epoch, manager._pid_waiter, manager._sequence_numbers  # noqa: B018 (there?)
    except (AttributeError, LookupError, TypeError):
        _warn_missing("`MessageAccumulator._txn_manager`", _NOT_RENEWED)
        return None
    return manager
