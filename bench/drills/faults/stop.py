"""`docker compose stop` of each service in turn, under load, and `docker compose start`."""

import time

from ..flow import SERVICES
from ..promises import Figures
from ..site import Run


def drill(run: Run) -> Figures:
    slowest = 0.0
    with run.load() as intake:
        for service in SERVICES:
            began = time.time()
            run.stack.compose("stop", service, timeout=120)
            slowest = max(slowest, time.time() - began)
            run.interrupted(service, began)
            run.stack.compose("start", service, timeout=120)
            run.site.wait_until_healthy(service)
    run.note(f"the slowest stop took {slowest:.0f} s")
    return run.reckon(intake)
