"""What aiokafka 0.14 does badly when the broker is away or says no, and how it is kept from it.

It reaches into the client: a newer one is to be looked at before it is let in (pyproject.toml).
"""

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import Any

from aiokafka.client import AIOKafkaClient
from aiokafka.producer.message_accumulator import MessageAccumulator
from aiokafka.producer.transaction_manager import (
    NO_PRODUCER_EPOCH,
    NO_PRODUCER_ID,
    PidAndEpoch,
)
from aiokafka.util import create_future

RECONNECT_SECONDS = 0.5


def cure() -> None:
    """Apply both, once per process."""
    if not hasattr(AIOKafkaClient._metadata_update, "__wrapped__"):
        AIOKafkaClient._metadata_update = _unhurried(AIOKafkaClient._metadata_update)
        MessageAccumulator._pop_batch = _renewing(MessageAccumulator._pop_batch)


def _unhurried(update: Callable[..., Awaitable[bool]]) -> Callable[..., Awaitable[bool]]:
    """Have a client pause before it asks again a broker that does not answer.

    Without it a refused connection is tried again at once, several hundred times a second in each
    client: it takes the processor that the broker needs to come back, and floods the log.
    """

    @functools.wraps(update)
    async def unhurried(client: Any, *arguments: Any) -> bool:
        updated = await update(client, *arguments)
        if not updated:
            await asyncio.sleep(RECONNECT_SECONDS)
        return updated

    return unhurried


def _renewing(pop: Callable[..., Any]) -> Callable[..., Any]:
    """Have an idempotent producer take a new id when a batch of it has failed for good.

    A batch has its sequence number from when it is first sent. If it is then given up (it expired,
    or the broker does not take it), the number is missing, and the broker refuses all that follow:
    OutOfOrderSequenceNumber, for as long as the producer lives.
    """

    @functools.wraps(pop)
    def renewing(accumulator: Any, partition: Any) -> Any:
        is_new = accumulator._batches[partition][0].retry_count == 0
        batch = pop(accumulator, partition)
        manager = accumulator._txn_manager
        if manager is not None and is_new:
            producer_id = manager.producer_id

            def renew(future: "asyncio.Future[Any]") -> None:
                failed = not future.cancelled() and future.exception() is not None
                if failed and manager.producer_id == producer_id:
                    manager._pid_and_epoch = PidAndEpoch(NO_PRODUCER_ID, NO_PRODUCER_EPOCH)
                    manager._pid_waiter = create_future()
                    manager._sequence_numbers.clear()

            batch.future.add_done_callback(renew)
        return batch

    return renewing
