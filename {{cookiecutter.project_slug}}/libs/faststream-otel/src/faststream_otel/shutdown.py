"""An orderly shutdown: every step runs, even after another one failed."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable

Step = Callable[[], Awaitable[object]]

# For a step that starts after the shared time is used up.
LEAST_SECONDS = 1.0

logger = logging.getLogger(__name__)


class Shutdown:
    """Runs the steps of a shutdown one after the other, and remembers failures.

    Attributes:
        failed: Whether a step raised an error or hung.
        hung: Whether a step hung. Whatever it left running may keep the process alive.
    """

    def __init__(self) -> None:
        self.failed = False
        self.hung = False

    async def run(self, steps: Iterable[Step], seconds: float) -> None:
        """Run these steps. A failure is logged with the step's name; the next step still runs.

        Args:
            seconds: For all steps together. A step that hangs longer is cancelled.
        """
        ends = asyncio.get_running_loop().time() + seconds
        for step in steps:
            left = max(ends - asyncio.get_running_loop().time(), LEAST_SECONDS)
            task = asyncio.create_task(_guarded(step))
            # Not `wait_for`, which would wait for a step that ignores its cancellation.
            await asyncio.wait({task}, timeout=left)
            if not task.done():
                self.failed = self.hung = True
                task.cancel()
                logger.error("Shutdown: %s hangs and is abandoned", _name(step))
            elif (error := task.result()) is not None:
                self.failed = True
                logger.error("Shutdown: %s failed", _name(step), exc_info=error)


async def _guarded(step: Step) -> BaseException | None:
    try:
        await step()
    except BaseException as error:  # SystemExit too: it would end the event loop at once
        return error
    return None


def _name(step: Step) -> str:
    return f"{step.__module__}.{getattr(step, '__qualname__', step)}"
