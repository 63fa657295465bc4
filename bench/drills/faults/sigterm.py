"""SIGTERM to each service in turn, under load; each is restarted."""

import time

from ..flow import SERVICES
from ..promises import Figures
from ..site import Run


def drill(run: Run) -> Figures:
    with run.load() as intake:
        for service in SERVICES:
            run.stop(service)
            codes = [one["State"]["ExitCode"] for one in run.stack.replicas(service)]
            run.must(codes == [0] * len(codes), f"{service} exited {codes}")
            run.start(service)
            time.sleep(2)
    return run.reckon(intake)
