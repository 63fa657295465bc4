"""The trace backend and Loki down for five minutes under load; the Collector, whose queues are on
disk, is killed meanwhile."""

import time

from ..promises import Figures
from ..site import Run
from .backends_down import SECONDS, look_up_logs


def drill(run: Run) -> Figures:
    half = run.seconds(*SECONDS) / 2
    with run.load() as intake:
        began = time.time()
        with run.without(run.stack.traces, "loki"):
            time.sleep(half)
            run.stop("otel-collector", kill=True)
            time.sleep(2)
            run.start("otel-collector")
            time.sleep(half)
        run.note(f"down for {time.time() - began:.0f} s")
        time.sleep(2)
    figures = run.reckon(intake, patience=240)
    look_up_logs(run)
    return figures
