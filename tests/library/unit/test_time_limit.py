"""`TimeLimit` cancels, and keeps no references."""

import asyncio
import gc
import threading
import weakref
from contextvars import Context, ContextVar

import pytest
from anyio import to_thread
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


async def test_a_short_limit_within_long_ones() -> None:
    async with TimeLimit(60), TimeLimit(50):
        with pytest.raises(TimeoutError):
            async with TimeLimit(0.01):
                await asyncio.sleep(60)


async def test_limits_of_several_tasks_end_in_their_order() -> None:
    ended: list[float] = []

    async def limited(seconds: float) -> None:
        try:
            async with TimeLimit(seconds):
                await asyncio.sleep(60)
        except TimeoutError:
            ended.append(seconds)

    await asyncio.gather(*map(limited, (0.03, 0.01, 0.05, 0.02)))
    assert ended == [0.01, 0.02, 0.03, 0.05]


async def test_a_thread_does_not_keep_the_limits_of_other_blocks_from_ending() -> None:
    release = threading.Event()

    async def wait_for_thread() -> str:
        async with TimeLimit(0.01):
            await to_thread.run_sync(release.wait)
        return "done"

    waiting = asyncio.create_task(wait_for_thread())
    with pytest.raises(TimeoutError):
        async with TimeLimit(0.02):
            await asyncio.sleep(60)
    assert not waiting.done()
    release.set()
    assert await waiting == "done"


async def test_a_cancellation_from_outside_is_no_time_out() -> None:
    async def handle() -> None:
        async with TimeLimit(60):
            await asyncio.sleep(60)

    task = asyncio.create_task(handle())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_each_event_loop_has_its_own_timer() -> None:
    async def handle() -> None:
        with pytest.raises(TimeoutError):
            async with TimeLimit(0.01):
                await asyncio.sleep(60)

    for _ in range(2):
        asyncio.run(handle())
