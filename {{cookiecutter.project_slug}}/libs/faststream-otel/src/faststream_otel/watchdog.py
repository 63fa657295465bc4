"""Ends a process that no longer does its work, so that it is started anew.

Docker Compose restarts what has ended, not what is unhealthy, and an orchestrator's liveness probe
is one more thing to be set up; this needs neither.
"""

import asyncio
import faulthandler
import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Awaitable, Callable

logger = logging.getLogger(__name__)

EXIT_CODE = os.EX_SOFTWARE
"""Of a process that the watchdog ended: 70, EX_SOFTWARE of sysexits.h."""

INTERVAL_SECONDS = 1.0
# Of what a blocked interpreter, which runs no thread, is given on top of the time-out.
BACKSTOP_SECONDS = 15.0

Stalled = Callable[[], Awaitable[dict[str, float]]]
"""Names what is stalled, with the seconds since its last progress."""


class Watchdog:
    """Watches the event loop from a thread, and from the event loop whatever `stalled` names.

    Args:
        timeout: Seconds that the event loop may be blocked, or a consumer stalled, before the
            process ends. 0: for ever.
        stalled: Asked every second, or as often as it answers.
        flush: Called before the process is ended without an orderly shutdown, to save what can be
            saved; must not need the event loop.
        shutdown_timeout: Seconds that an orderly shutdown may take before it is cut short.
    """

    def __init__(
        self,
        timeout: float,
        stalled: Stalled,
        *,
        flush: Callable[[], object],
        shutdown_timeout: float,
    ) -> None:
        self.timeout = timeout
        self.reason = ""
        """Why the process ends, once it does."""
        self.ends_with_process = False
        """Whether nothing comes after an orderly shutdown: its time then covers the very end too,
        where the interpreter waits for threads that still run."""
        self.stalled: dict[str, float] = {}
        """What is stalled, with seconds."""
        self._ask = stalled
        self._flush = flush
        self._shutdown_timeout = shutdown_timeout
        self._stopped = threading.Event()
        self._beat = 0.0
        self._task: asyncio.Task[None] | None = None

    @property
    def suspicion(self) -> str:
        """What is about to end the process: stalled for half of the time-out, or longer."""
        return self._describe_stalled(self.timeout / 2)

    async def start(self) -> None:
        """Watch from now on; needs the running event loop, and to be called in the main thread."""
        if not self.timeout:
            return
        self._task = asyncio.create_task(self._look())
        self._tick()
        self._main_thread = threading.get_ident()
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    async def stop(self) -> None:
        """Watch no more; an orderly shutdown has begun, and is itself given so long only."""
        if self._task is None:
            return
        self._task.cancel()
        self._stopped.set()
        faulthandler.dump_traceback_later(self._shutdown_timeout, exit=True)

    async def done(self) -> None:
        """The orderly shutdown is over."""
        if not self.ends_with_process:
            faulthandler.cancel_dump_traceback_later()

    def _tick(self) -> None:
        self._beat = time.monotonic()
        asyncio.get_running_loop().call_later(INTERVAL_SECONDS, self._tick)

    async def _look(self) -> None:
        while True:
            try:
                self.stalled = await self._ask()
            except Exception:
                logger.exception("The watchdog could not look at the consumers")
            if reason := self._describe_stalled(self.timeout):
                self._end(reason)
                return
            await asyncio.sleep(INTERVAL_SECONDS)

    def _describe_stalled(self, least: float) -> str:
        """Describe what has made no progress for so many seconds, if anything."""
        for what, seconds in self.stalled.items():
            if seconds >= least:
                return f"{what} has made no progress for {seconds:.0f} s"
        return ""

    def _end(self, reason: str) -> None:
        self.reason = reason
        logger.critical("Ending to be started anew: %s", reason)
        signal.raise_signal(signal.SIGTERM)  # the orderly way: the event loop still runs

    def _watch(self) -> None:
        """Watch the event loop; runs in a thread of its own."""
        before = time.monotonic()
        while not self._stopped.wait(INTERVAL_SECONDS):
            # Where no thread gets to run, this one neither, a timer in C ends the process.
            faulthandler.dump_traceback_later(self.timeout + BACKSTOP_SECONDS, exit=True)
            now = time.monotonic()
            if now - before > INTERVAL_SECONDS * 5:
                self._beat = now  # the whole process stood still, say in `docker pause`
            before = now
            if (blocked := now - self._beat) > self.timeout:
                frames = sys._current_frames()  # noqa: SLF001 (documented)
                stack = frames.get(self._main_thread)
                logger.critical(
                    "Ending to be started anew: the event loop has been blocked for %.0f s, by\n%s",
                    blocked,
                    "".join(traceback.format_stack(stack)),
                )
                self._flush()
                os._exit(EXIT_CODE)
