"""The Collector's disk full, and the trace backend down: dropped spans are counted."""

from ..promises import Figures
from ..site import Run
from .collector_full import fill

DISK = "4m"


def drill(run: Run) -> Figures:
    override = {
        "environment": {"QUEUE_DIRECTORY": "/queue"},
        "tmpfs": [f"/queue:size={DISK},uid=10001,gid=10001"],
    }
    with run.changed("otel-collector", override=override):
        return fill(run, seconds=90, oldest_stay=False)
