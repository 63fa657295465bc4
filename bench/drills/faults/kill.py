"""kill -9 of each service under load, of one in the middle of a handler; Docker starts it again.

Docker does so only for a process that ended by itself: the kill comes from inside of the container.
"""

import time

from e2e.poll import poll_until
from e2e.stack import docker

from ..flow import SERVICES
from ..promises import Figures
from ..samples import body, message
from ..site import Run

TOPIC = "trial.given"
HANDLED_SECONDS = 5.0
# The service is the one child of the container's PID 1, which is init.
KILL = """
import os, pathlib
os.kill(int(pathlib.Path("/proc/1/task/1/children").read_text().split()[0]), 9)
"""


def drill(run: Run) -> Figures:
    with run.load() as intake:
        for service in SERVICES:
            kill(run, service)
            time.sleep(8)  # longer than spans wait for their export: what is lost is told apart
        task = body(TOPIC, act="sleep", seconds=HANDLED_SECONDS)
        given = time.time()
        run.inject([message(TOPIC, task)])
        time.sleep(HANDLED_SECONDS / 2)
        kill(run, "trial")
    figures = run.reckon(intake, patience=45)
    done = [one for one in run.records if one.order_id == task["order_id"] and one.topic != TOPIC]
    run.must([one.topic for one in done] == ["trial.done"], f"in mid-handler, then: {done}")
    # It was not done before the kill, so what did it is the process after it.
    run.must(
        all(one.at - given >= 1.5 * HANDLED_SECONDS for one in done), "it was not in mid-handler"
    )
    run.note("one in mid-handler was handled again")
    return figures


def kill(run: Run, service: str) -> None:
    """Kill the service's process, and wait until Docker has started it again."""
    (one,) = run.stack.replicas(service)
    before, began = one["RestartCount"], time.time()
    docker("exec", "--detach", one["Id"], "python", "-c", KILL)  # it would be killed as well
    poll_until(
        lambda: run.stack.replicas(service)[0]["RestartCount"] > before,
        f"{service} to be restarted",
    )
    run.interrupted(service, began, killed=True)
    run.site.wait_until_healthy(service)
    run.interrupted(service, began)
