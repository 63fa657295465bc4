"""Each container of each service restarted, one after another, with two replicas of each."""

from ..flow import SERVICES
from ..promises import Figures
from ..site import Run
from .rolling import roll


def drill(run: Run) -> Figures:
    scale(run, 2)
    try:
        with run.load() as intake:
            roll(run)
        figures = run.reckon(intake)
    finally:
        scale(run, 1)
    return figures


def scale(run: Run, replicas: int) -> None:
    """Run `count` containers of each service."""
    each = [f"--scale={service}={replicas}" for service in SERVICES]
    run.stack.compose(
        "up", "--detach", "--no-build", "--no-recreate", "--no-deps", *each, *SERVICES, timeout=120
    )
    run.site.wait_until_healthy()
