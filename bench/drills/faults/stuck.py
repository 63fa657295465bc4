"""A blocked event loop, and a stalled consumer: the process exits with a reason, and is
restarted."""

import time

from e2e.poll import poll_until
from e2e.stack import docker

from ..promises import Figures
from ..samples import body, message
from ..site import WATCHDOG_SECONDS, Run

CHANNEL = "trial.given"
# The limit for a message: three attempts of ten seconds, and the pauses between them.
HOLD_SECONDS = 31.0
ACTS = {"block": 0.0, "stick": 0.0, "deaf": HOLD_SECONDS}
"""A handler that blocks the event loop, one that stalls its consumer, and one that ignores its
timeout, each with the seconds before which the watchdog must not act."""
SLACK_SECONDS = 20.0
EXIT_CODE = "70"


def drill(run: Run) -> Figures:
    run.mark()
    for act in ACTS:
        fail(run, act)
    figures = run.reckon()
    # Once or twice, because messages in flight are redelivered.
    done = {record.order_id for record in run.records if record.channel == "trial.done"}
    run.must(len(done) == len(ACTS) * 4, f"{len(done)} of {len(ACTS) * 4} tasks were done")
    return figures


def fail(run: Run, act: str) -> None:
    """Let the handler stall for longer than the watchdog allows, once."""
    (before,) = run.stack.replicas("trial")
    began = time.time()
    # The message has an end, or it would stall the handler again after the restart.
    allowed = ACTS[act] + WATCHDOG_SECONDS + SLACK_SECONDS
    run.inject([message(CHANNEL, body(CHANNEL, act=act, until=began + allowed), partition=0)])
    time.sleep(2)
    run.inject([message(CHANNEL, body(CHANNEL), partition=number) for number in range(3)])
    poll_until(
        lambda: run.stack.replicas("trial")[0]["RestartCount"] > before["RestartCount"],
        f"the process to end itself when it is made to {act}",
        allowed,
    )
    seconds = time.time() - began
    run.interrupted("trial", began, killed=True)
    codes = docker(
        "events", "--since", str(int(began)), "--until", str(int(time.time()) + 1),
        "--filter", f"container={before['Id']}", "--filter", "event=die",
        "--format", "{{.Actor.Attributes.exitCode}}",
    ).split()  # fmt: skip
    run.must(codes[:1] == [EXIT_CODE], f"{act}: the process exited {codes}")
    log = docker("logs", "--since", str(int(began)), before["Id"], errors=True)
    reasons = [
        line for line in log.splitlines() if "Exiting so that the process is restarted" in line
    ]
    run.must(reasons, f"{act}: no reason in its log")
    run.note(f"{act}: ended after {seconds:.0f} s with exit code {' '.join(codes)}")
    run.site.wait_until_healthy("trial")
    run.interrupted("trial", began)
