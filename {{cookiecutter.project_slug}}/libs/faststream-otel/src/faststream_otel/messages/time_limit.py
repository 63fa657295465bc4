"""A time-out for a block of code that may run a handler in a thread."""

import asyncio
from collections.abc import Callable
from contextvars import Context, copy_context
from types import TracebackType

from anyio.to_thread import current_default_thread_limiter

THREAD_POLL_SECONDS = 0.05
"""Time between two checks whether a thread has ended after its time-out."""


class TimeLimit:
    """Like `asyncio.timeout`, with two differences.

    - If the block waits for a thread, such as that of a plain `def` handler, the block continues
      with the thread's result, even after the time-out. A thread cannot be cancelled; without this,
      the next attempt would run beside it. Only threads of `anyio.to_thread` count, which
      FastStream uses.
    - It keeps no references after the block. The event loop keeps a cancelled timer until it would
      fire, with its context variables, which may include a message.

    Args:
        seconds: The time-out.
        overdue: Called once if the time-out passes while the block waits for a thread.

    Raises:
        TimeoutError: Like `asyncio.timeout`.
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
