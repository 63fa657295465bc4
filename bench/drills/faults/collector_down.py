"""The Collector down for a minute, under load."""

import time

from ..promises import Figures
from ..site import Run


def drill(run: Run) -> Figures:
    with run.load() as intake:
        with run.without("otel-collector"):
            time.sleep(60)
        time.sleep(5)
    return run.reckon(intake, patience=180)
