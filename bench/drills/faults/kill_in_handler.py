"""kill -9 of a service in the middle of a handler: the message is handled again."""

import time

from ..promises import Figures
from ..samples import body, message
from ..site import Run
from .kill import kill

CHANNEL = "trial.given"
HANDLED_SECONDS = 6.0


def drill(run: Run) -> Figures:
    run.mark()
    task = body(CHANNEL, act="sleep", seconds=HANDLED_SECONDS)
    given = time.time()
    run.inject([message(CHANNEL, task)])
    time.sleep(HANDLED_SECONDS / 2)
    kill(run, "trial")
    figures = run.reckon(patience=45)
    done = [record for record in run.records if record.channel == "trial.done"]
    run.must(len(done) == 1, f"it was done {len(done)} times")
    # It was not done before the kill, so the new process did it.
    seconds = [record.at - given for record in done]
    run.must(all(one >= 1.5 * HANDLED_SECONDS for one in seconds), f"done after {seconds} s")
    run.note(f"done {max(seconds, default=0):.0f} s after it was sent, and not before the kill")
    return figures
