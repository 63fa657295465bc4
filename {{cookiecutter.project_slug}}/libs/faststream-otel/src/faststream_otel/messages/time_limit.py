"""A limit on the time that a block of code may take."""

import asyncio
from collections.abc import Callable
from contextvars import Context, copy_context
from types import TracebackType

from anyio.to_thread import current_default_thread_limiter

THREAD_POLL_SECONDS = 0.05
"""How often a thread that is over its time is looked at again."""


class TimeLimit:
    """As `asyncio.timeout`, but for two things.

    - A thread that the block waits for, such as that of a plain `def` handler, ends first, and the
      block goes on with its outcome. Nothing can cancel a thread: whoever stopped waiting for it
      would have the next attempt run beside it. Known are the threads of `anyio.to_thread`, which
      FastStream uses.
    - It holds nothing once it is over. A cancelled timer of asyncio's stays in the event loop's
      queue until its time comes, with the context variables that were there, a message say.

    Args:
        seconds: The limit.
        overdue: Called once, when the limit has passed and a thread is waited for.

    Raises:
        TimeoutError: As `asyncio.timeout` does.
    """

    def __init__(self, seconds: float, overdue: Callable[[], object] = lambda: None) -> None:
        self._seconds = seconds
        self._overdue: Callable[[], object] | None = overdue

    async def __aenter__(self) -> None:
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        self._threads = current_default_thread_limiter()
        self._context: Context = copy_context()
        self._timeout = asyncio.timeout(None)
        await self._timeout.__aenter__()
        self._wait(self._seconds)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        await self._timeout.__aexit__(kind, error, traceback)

    def _wait(self, seconds: float) -> None:
        self._timer = self._loop.call_later(seconds, self._end, context=Context())

    def _end(self) -> None:
        if self._task not in self._threads.statistics().borrowers:
            self._timeout.reschedule(self._loop.time())
            return
        if self._overdue:
            self._context.run(self._overdue)
            self._overdue = None
        self._wait(THREAD_POLL_SECONDS)
