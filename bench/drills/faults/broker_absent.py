"""Services start without a broker, which starts a minute later."""

import time

from e2e.stack import docker

from ..flow import SERVICES
from ..promises import Figures
from ..site import Run


def drill(run: Run) -> Figures:
    run.mark()
    run.stop(*SERVICES)
    with run.without(run.stack.broker):
        for service in SERVICES:
            docker("start", *(one["Id"] for one in run.stack.replicas(service)))
        restarts = restart_counts(run)
        with run.intake() as early:
            time.sleep(run.seconds(75, 30))
    run.must(early.refusals["503"], "no 503 while the broker was absent")
    run.must(not early.refusals["503 without Retry-After"], "a 503 had no Retry-After")
    run.must(not early.placed, "orders were acknowledged without a broker")
    run.note(f"while it was absent: {early.described()}")
    run.site.wait_until_healthy(*SERVICES)
    again = restart_counts(run) - restarts
    if again:
        run.note(f"{again} restarts by Docker")
    with run.intake() as intake:
        time.sleep(15)
    return run.reckon(intake)


def restart_counts(run: Run) -> int:
    return sum(one["RestartCount"] for name in SERVICES for one in run.stack.replicas(name))
