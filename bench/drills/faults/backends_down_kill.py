"""The trace backend down under load, and the Collector killed meanwhile: its queue is on disk."""

import time

from ..promises import Figures
from ..site import Run


def drill(run: Run) -> Figures:
    with run.load() as intake:
        with run.without(run.stack.traces):
            time.sleep(15)
            run.stop("otel-collector", kill=True)
            time.sleep(2)
            run.start("otel-collector")
            time.sleep(10)
        time.sleep(2)
    return run.reckon(intake, patience=180)
