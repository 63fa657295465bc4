"""Ends a process that is blocked or stalled, so that it is restarted.

Docker Compose restarts a container that exited, but not an unhealthy one. A liveness probe of
an orchestrator would work too, but has to be set up.
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
"""Exit code of a process that the watchdog ended: 70, EX_SOFTWARE of sysexits.h."""

INTERVAL_SECONDS = 1.0
# Added to the timeout for an interpreter that is blocked as a whole and runs no thread.
BACKSTOP_SECONDS = 15.0

Stalled = Callable[[], Awaitable[dict[str, float]]]
"""Returns what is stalled, with the seconds since its last progress."""


class Watchdog:
    """Detects a blocked event loop, from a thread, and stalled consumers, from the event loop.

    Args:
        timeout: Seconds that the event loop may be blocked, or a consumer stalled, before the
            process ends. 0: forever.
        stalled: Called about every second.
        flush: Exports telemetry before the process exits without an orderly shutdown. It must not
            need the event loop.
        shutdown_timeout: Seconds after which an orderly shutdown is aborted.
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
        """Why the watchdog ends the process; empty until then."""
        self.ends_with_process = False
        """Whether the process exits after the orderly shutdown. If so, the shutdown's timeout also
        covers the exit itself, where the interpreter waits for threads."""
        self.stalled: dict[str, float] = {}
        """What is stalled now, with the seconds since its last progress."""
        self._ask = stalled
        self._flush = flush
        self._shutdown_timeout = shutdown_timeout
        self._stopped = threading.Event()
        self._beat = 0.0
        self._task: asyncio.Task[None] | None = None

    @property
    def suspicion(self) -> str:
        """What has been stalled for at least half of the timeout, in words; empty if nothing."""
        return self._describe_stalled(self.timeout / 2)

    async def start(self) -> None:
        """Start watching. Call it in the main thread, with the event loop running."""
        if not self.timeout:
            return
        self._task = asyncio.create_task(self._look())
        self._tick()
        self._main_thread = threading.get_ident()
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    async def stop(self) -> None:
        """Stop watching, and start the timeout of the orderly shutdown."""
        if self._task is None:
            return
        self._task.cancel()
        self._stopped.set()
        faulthandler.dump_traceback_later(self._shutdown_timeout, exit=True)

    async def done(self) -> None:
        """Cancel the timeout of the orderly shutdown, which is complete."""
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
                logger.exception("The watchdog could not check the consumers")
            if reason := self._describe_stalled(self.timeout):
                self._end(reason)
                return
            await asyncio.sleep(INTERVAL_SECONDS)

    def _describe_stalled(self, least: float) -> str:
        """Describe what has been stalled for at least this many seconds; empty if nothing."""
        for what, seconds in self.stalled.items():
            if seconds >= least:
                return f"{what} has made no progress for {seconds:.0f} s"
        return ""

    def _end(self, reason: str) -> None:
        self.reason = reason
        logger.critical("Exiting so that the process is restarted: %s", reason)
        signal.raise_signal(signal.SIGTERM)  # an orderly shutdown: the event loop still runs

    def _watch(self) -> None:
        """Watch the event loop, from a thread."""
        before = time.monotonic()
        while not self._stopped.wait(INTERVAL_SECONDS):
            # If the interpreter is blocked, this thread included, a timer in C ends the process.
            faulthandler.dump_traceback_later(self.timeout + BACKSTOP_SECONDS, exit=True)
            now = time.monotonic()
            if now - before > INTERVAL_SECONDS * 5:
                self._beat = now  # the whole process was paused, say by `docker pause`
            before = now
            if (blocked := now - self._beat) > self.timeout:
                frames = sys._current_frames()  # noqa: SLF001 (documented)
                stack = frames.get(self._main_thread)
                logger.critical(
                    "Exiting so that the process is restarted: the event loop has been blocked for"
                    " %.0f s by\n%s",
                    blocked,
                    "".join(traceback.format_stack(stack)),
                )
                self._flush()
                os._exit(EXIT_CODE)
