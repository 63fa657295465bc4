"""kill -9 of each service under load; Docker restarts it.

Docker restarts only processes that end by themselves, so the kill comes from inside the container.
"""

import time

from e2e.poll import poll_until
from e2e.stack import docker

from ..flow import SERVICES
from ..promises import Figures
from ..site import Run

# The service is the one child of the container's PID 1, which is init.
KILL = """
import os, pathlib
os.kill(int(pathlib.Path("/proc/1/task/1/children").read_text().split()[0]), 9)
"""


def drill(run: Run) -> Figures:
    with run.load() as intake:
        for service in SERVICES:
            kill(run, service)
            time.sleep(8)  # longer than an export, so that losses of two kills are distinguishable
    return run.reckon(intake, patience=45)


def kill(run: Run, service: str) -> None:
    """Kill the service's process, and wait until Docker has restarted it."""
    (one,) = run.stack.replicas(service)
    before, began = one["RestartCount"], time.time()
    docker(
        "exec", "--detach", one["Id"], "python", "-c", KILL
    )  # detached, because it dies with the container
    poll_until(
        lambda: run.stack.replicas(service)[0]["RestartCount"] > before,
        f"{service} to be restarted",
    )
    run.interrupted(service, began, killed=True)
    run.site.wait_until_healthy(service)
    run.interrupted(service, began)
