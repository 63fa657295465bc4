"""A day's messages in a shorter time; each container is restarted twice."""

import statistics
import threading
import time
from collections import defaultdict
from typing import Self

from ..flow import SERVICES
from ..intake import Intake
from ..promises import Figures
from ..site import Run
from .rolling import roll

MESSAGES_PER_ORDER = 2.8  # on average: a declined order has two, all others three
WATCHED_SECONDS = 120.0  # at least, after the last restart
LEAST_SAMPLES = 20
# A failing order blocks its partition during its retries. With as many of them as in other drills,
# shipping would handle fewer orders than arrive.
SHARES = {"good": 0.84, "declined": 0.15, "failing": 0.01}
STEEPEST = 0.1  # of the memory in use, from the first half after the last restart to its second


def drill(run: Run) -> Figures:
    run.mark()
    wanted = run.site.messages / MESSAGES_PER_ORDER
    memory = Memory(run)
    with run.intake(shares=SHARES) as intake, memory:
        for _ in range(2):
            place(intake, wanted / 4)
            roll(run, every_container(run))
        memory.samples.clear()
        began = time.monotonic()
        place(intake, wanted / 2)
        time.sleep(max(0.0, began + WATCHED_SECONDS - time.monotonic()))
    figures = run.reckon(intake, patience=300)
    for service in SERVICES:
        run.note(memory.judged(service))
    return figures


def every_container(run: Run) -> list[str]:
    """All long-running services, except a store that would lose its spans."""
    forgets = {run.stack.traces} if run.forgets_traces else set()
    return [one for one in run.stack.services if one not in forgets | {"channels"}]


def place(intake: Intake, orders: float) -> None:
    """Wait until `count` more orders are acknowledged."""
    wanted = len(intake.placed) + orders
    while len(intake.placed) < wanted:
        time.sleep(0.5)


class Memory:
    """Samples the services' memory inside its `with` block."""

    def __init__(self, run: Run) -> None:
        self.samples: dict[str, list[int]] = defaultdict(list)
        self._run = run
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()

    def judged(self, service: str) -> str:
        """Describe how a service's memory grew after its last restart, and whether it is flat."""
        samples = self.samples[service]
        if len(samples) < LEAST_SAMPLES:
            self._run.must(False, f"{service}: too few samples for a slope")
            return f"{service}: {len(samples)} samples"
        # The first third is warm-up: caches, and the queue of spans.
        settled = samples[len(samples) // 3 :]
        half = len(settled) // 2
        before, after = statistics.mean(settled[:half]), statistics.mean(settled[half:])
        growth = after / before - 1
        self._run.must(growth <= STEEPEST, f"{service}'s memory grew by {growth:.0%}")
        return f"{service} {after / 2**20:.0f} MiB, {growth:+.1%}"

    def _sample(self) -> None:
        while not self._ends.wait(1):  # Docker takes two seconds to answer
            for service, size in self._run.stack.memory().items():
                self.samples[service].append(size)
