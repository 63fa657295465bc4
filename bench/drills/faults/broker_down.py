"""The broker down for a minute, under load: HTTP answers 503, and everything recovers by itself."""

import time

from ..promises import Figures
from ..site import Run


def drill(run: Run) -> Figures:
    with run.load() as intake:
        with run.without(run.stack.broker):
            time.sleep(run.seconds(60, 30))
            before = len(intake.placed)
            time.sleep(5)
            run.must(len(intake.placed) == before, "orders were acknowledged without a broker")
        back = time.monotonic()
        acknowledged = len(intake.placed)
        while len(intake.placed) < acknowledged + 10 and time.monotonic() < back + 60:
            time.sleep(0.2)
        run.note(
            f"orders accepted again {time.monotonic() - back:.0f} s after the broker was healthy"
        )
        time.sleep(10)
    run.must(intake.refusals["503"], "no 503 while the broker was down")
    run.must(not intake.refusals["503 without Retry-After"], "a 503 had no Retry-After")
    run.must(not intake.unreachable, "no HTTP while the broker was down")
    return run.reckon(intake)
