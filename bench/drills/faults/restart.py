"""`docker compose restart` of all services at once, under load."""

import time

from ..flow import SERVICES
from ..promises import Figures
from ..site import Run


def drill(run: Run) -> Figures:
    with run.load() as intake:
        began = time.time()
        run.stack.compose("restart", *SERVICES, timeout=180)
        run.site.wait_until_healthy(*SERVICES)
        for service in SERVICES:
            run.interrupted(service, began)
    return run.reckon(intake)
