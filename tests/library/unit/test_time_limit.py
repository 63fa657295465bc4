"""`TimeLimit` cancels, and keeps no references."""

import asyncio
import gc
import weakref
from contextvars import Context, ContextVar

import pytest
from faststream_otel.messages.time_limit import TimeLimit


class Body:
    """Stands for the body of a message."""


message: ContextVar[Body] = ContextVar("message")


async def test_a_block_that_takes_too_long_is_cancelled() -> None:
    with pytest.raises(TimeoutError):
        async with TimeLimit(0.01):
            await asyncio.sleep(60)


async def test_a_finished_limit_keeps_no_message() -> None:
    async def handle() -> None:
        async with TimeLimit(60):  # longer than the test
            await asyncio.sleep(0)

    # An earlier timer: the event loop only removes cancelled timers at the head of its queue.
    timer = asyncio.get_running_loop().call_later(50, lambda: None)
    body = Body()
    alive = weakref.ref(body)
    context = Context()
    context.run(message.set, body)
    await asyncio.create_task(handle(), context=context)
    del body, context
    await asyncio.sleep(0)
    gc.collect()
    assert alive() is None
    timer.cancel()
