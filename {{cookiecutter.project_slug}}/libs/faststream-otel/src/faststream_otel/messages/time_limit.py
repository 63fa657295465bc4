"""A time-out for a block of code that may run a handler in a thread."""

import asyncio
import threading
from collections.abc import Callable
from contextvars import Context, copy_context
from types import TracebackType

from anyio.to_thread import current_default_thread_limiter

THREAD_POLL_SECONDS = 0.05
"""Time between two checks whether a thread has ended after its time-out."""


class TimeLimit:
    """Like `asyncio.timeout`, with three differences.

    - If the block waits for a thread, such as that of a plain `def` handler, the block continues
      with the thread's result, even after the time-out. A thread cannot be cancelled; without this,
      the next attempt would run beside it. Only threads of `anyio.to_thread` count, which
      FastStream uses.
    - It keeps no references after the block. The event loop keeps a cancelled timer until it would
      fire, with its context variables, which may include a message.
    - All limits of an event loop share one timer. Hardly any limit is ever reached, and a timer of
      its own would be most of its cost.

    Args:
        seconds: The time-out.
        overdue: Called once, with `seconds`, if the time-out passes while the block waits for a
            thread.

    Raises:
        TimeoutError: Like `asyncio.timeout`.
    """

    task: "asyncio.Task[object]"
    when: float
    """The loop's time at which it ends the block."""

    def __init__(self, seconds: float, overdue: Callable[[float], object] | None = None) -> None:
        self.seconds = seconds
        self._overdue = overdue

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        assert task
        self.task = task
        self._cancelling = task.cancelling()
        self._expired = False
        self._context: Context = copy_context()
        self._timer = _timer()
        self._timer.add(self)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.leave(kind):
            raise TimeoutError from error

    def leave(self, kind: type[BaseException] | None) -> bool:
        """End the limit. Returns whether the block ended because of it."""
        self._timer.limits.discard(self)
        ours = self._expired and self.task.uncancel() <= self._cancelling
        return ours and kind is asyncio.CancelledError

    def expire(self) -> None:
        """End the block."""
        self._expired = True
        self.task.cancel()

    def wait(self) -> None:
        """The time has passed, but the block waits for a thread."""
        if self._overdue:
            self._context.run(self._overdue, self.seconds)
            self._overdue = None


class _Timer:
    """The timer of an event loop for all limits. It fires at, or before, the earliest of them."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.limits: set[TimeLimit] = set()
        self._threads = current_default_thread_limiter()  # not available in a callback
        self._handle: asyncio.TimerHandle | None = None
        self._due = 0.0

    def add(self, limit: TimeLimit) -> None:
        limit.when = self.loop.time() + limit.seconds
        self.limits.add(limit)
        if self._handle is None or limit.when < self._due:
            self._schedule(limit.when)

    def _schedule(self, when: float) -> None:
        if self._handle:
            self._handle.cancel()
        self._due = when
        self._handle = self.loop.call_at(when, self._fire, context=Context())

    def _fire(self) -> None:
        self._handle = None
        now = self.loop.time()
        in_threads = self._threads.statistics().borrowers
        for limit in [limit for limit in self.limits if limit.when <= now]:
            if limit.task in in_threads:
                limit.when = now + THREAD_POLL_SECONDS
                limit.wait()
            else:
                self.limits.discard(limit)
                limit.expire()
        if self.limits:
            self._schedule(min(limit.when for limit in self.limits))


_of_thread = threading.local()


def _timer() -> _Timer:
    """The timer of the running event loop."""
    loop = asyncio.get_running_loop()
    timer: _Timer | None = getattr(_of_thread, "timer", None)
    if timer is None or timer.loop is not loop:
        timer = _of_thread.timer = _Timer(loop)
    return timer
