"""The broker restarted, under load."""

import time

from ..promises import Figures
from ..site import Run


def drill(run: Run) -> Figures:
    with run.load() as intake:
        with run.without(run.stack.broker):
            pass
        time.sleep(10)
    return run.reckon(intake)
