"""Tempo, Loki and Prometheus down for five minutes, under load."""

import time

from ..promises import Figures
from ..site import Run

BACKENDS = ("tempo", "loki", "prometheus")


def drill(run: Run) -> Figures:
    with run.load() as intake:
        began = time.time()
        with run.without(*BACKENDS):
            time.sleep(run.seconds(300, 30))
        run.note(f"down for {time.time() - began:.0f} s")
    return run.reckon(intake, patience=240)
