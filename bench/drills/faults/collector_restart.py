"""The Collector restarted, under load."""

import time

from e2e.stack import docker

from ..promises import Figures
from ..site import Run


def drill(run: Run) -> Figures:
    with run.load() as intake:
        began = time.time()
        (collector,) = run.stack.replicas("otel-collector")
        docker("restart", collector["Id"], timeout=90)
        run.site.wait_until_healthy("otel-collector")
        run.note(f"down for {time.time() - began:.0f} s")
        time.sleep(5)
    return run.reckon(intake)
