"""Each container of each service restarted, one after another, with one replica of each."""

import time
from collections.abc import Sequence

from e2e.stack import docker

from ..flow import SERVICES
from ..promises import Figures
from ..site import Run


def drill(run: Run) -> Figures:
    with run.load() as intake:
        roll(run)
    return run.reckon(intake)


def roll(run: Run, services: Sequence[str] = SERVICES) -> None:
    """Restart every container of these, and wait until each is healthy before the next."""
    for service in services:
        for one in run.stack.replicas(service):
            began = time.time()
            docker("restart", one["Id"], timeout=120)
            run.site.wait_until_healthy(service)
            run.interrupted(service, began)
