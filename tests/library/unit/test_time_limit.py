"""A limit on time, and what it leaves behind."""

import asyncio
import gc
import weakref
from contextvars import Context, ContextVar

import pytest
from faststream_otel.messages.time_limit import TimeLimit


class Body:
    """Stands for what a message holds."""


message: ContextVar[Body] = ContextVar("message")


async def test_what_takes_longer_is_cancelled() -> None:
    with pytest.raises(TimeoutError):
        async with TimeLimit(0.01):
            await asyncio.sleep(60)


async def test_a_limit_that_is_over_holds_no_message() -> None:
    async def handle() -> None:
        async with TimeLimit(60):  # longer than anybody can wait for its timer
            await asyncio.sleep(0)

    # Ahead of the limit's in the event loop's queue, whose head alone is tidied up.
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
