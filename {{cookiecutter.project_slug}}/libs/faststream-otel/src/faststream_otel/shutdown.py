"""An orderly shutdown: each step has its turn, whatever becomes of the others."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable

Step = Callable[[], Awaitable[object]]

# Of a step whose turn comes when the time of all is over.
LEAST_SECONDS = 1.0

logger = logging.getLogger(__name__)


class Shutdown:
    """Runs the steps of a shutdown one after the other, and remembers how that went.

    Attributes:
        failed: Whether a step raised, or hung.
        hung: Whether one hung: what it leaves behind may keep the process from ending.
    """

    def __init__(self) -> None:
        self.failed = False
        self.hung = False

    async def run(self, steps: Iterable[Step], seconds: float) -> None:
        """Run these steps. A failure is logged with the step's name, and the next step follows.

        Args:
            seconds: For all of them together; a step that hangs longer is cancelled and left.
        """
        ends = asyncio.get_running_loop().time() + seconds
        for step in steps:
            left = max(ends - asyncio.get_running_loop().time(), LEAST_SECONDS)
            task = asyncio.create_task(_guarded(step))
            # Not `wait_for`, which waits on where the step does not let itself be cancelled.
            await asyncio.wait({task}, timeout=left)
            if not task.done():
                self.failed = self.hung = True
                task.cancel()
                logger.error("Shutdown: %s hangs and is given up", _name(step))
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
